"""A card as a screen of text."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

LABELS = {
    "classes": "one class each",
    "probabilities": "soft: a probability for every class",
    "scores": "soft: a score for every class, the target of a regression",
}


def describe(folder: Path, about: Mapping[str, Any]) -> str:
    """Return what a card says, for a person.

    Args:
        folder: Where it lies.
        about: Its content, checked.
    """
    num, channels, height, width = about["images"]["shape"]
    low, high = about["pixels"]["range"]
    network, labels = about["network"], about["labels"]["kind"]
    formation = about.get("formation") or {}
    stored = f"{num} of {channels} x {height} x {width}, {about['ipc']} per class, {len(about['classes'])} classes"
    many = formation.get("factor", 1) ** 2 * (2 if "mirror" in formation else 1)
    if many > 1:
        stored += f"; each holds {many} training images"
    width_said = f", width {network['width']}" if network["width"] else ""
    lines = {
        "card": str(folder),
        "method": str(about["method"]),
        "made of": f"{about['dataset']}, {_noise(about['noise'])}",
        "images": stored,
        "labels": f"{LABELS[labels]} ({labels})",
        "pixels": f"{low:.3f} to {high:.3f}, as networks see them ({about['transform']['kind']})",
        "accuracy": f"{promise(about['expected_accuracy'])}, {network['name']}{width_said}",
        "chosen on": str(about["selected_on"]),
        "training": _training(about),
        "licence": str(about["licence"]),
    }
    text = "\n".join(f"{name:<10} {line}" for name, line in lines.items())
    return f"{text}\n\n{_use(folder, about, formation)}"


def promise(accuracy: Mapping[str, Any]) -> str:
    """Return an accuracy in %, with its interval and n."""
    mean, n, split = 100 * accuracy["mean"], accuracy["n"], accuracy["split"]
    if accuracy["low"] is None:
        return f"{mean:.1f} % on {split} (n = {n} network)"
    return (
        f"{mean:.1f} % on {split} (95 % interval {100 * accuracy['low']:.1f} to {100 * accuracy['high']:.1f}, n = {n})"
    )


def _noise(noise: Mapping[str, Any]) -> str:
    """Return the noise in words."""
    if noise["kind"] == "none":
        return "labels as they are"
    what = noise["kind"] + (f" {noise['labels']}" if noise.get("labels") else "")
    rate = f" {100 * noise['rate']:g} %" if noise.get("rate") is not None else ""
    realised = noise.get("rate_realised")
    return f"{what}{rate} label noise" + (f" ({100 * realised:.1f} % of the labels)" if realised is not None else "")


def _training(about: Mapping[str, Any]) -> str:
    """Return the evaluation recipe in a line."""
    recipe = about["evaluation"]
    rate = recipe["lr"] if recipe["lr"] is not None else about["step_size"]
    learnt = "" if recipe["lr"] is not None else ", learnt"
    return (
        f"{recipe['epochs']} epochs, batches of {recipe['batch_size']}, {recipe.get('optimizer', 'sgd')} at "
        f"{rate:.4g}{learnt}, {recipe.get('loss', 'cross_entropy')}, augmentation {recipe['augment'] or 'none'}"
    )


def _use(folder: Path, about: Mapping[str, Any], formation: Mapping[str, Any]) -> str:
    """Return how to use the set."""
    transform = about["transform"]
    lines = [
        "use it:",
        f'  tensors = safetensors.torch.load_file("{folder / about["images"]["file"]}")  # images, labels',
        f"  pixels to network input: {transform['forward']}",
        f"  and back: {transform['inverse']}",
    ]
    lines += [f"  {text}" for text in (formation.get("decode"), formation.get("mirror")) if text]
    lines += [
        f"  ddnl verify {folder}      is it as promised?",
        f"  ddnl export {folder} --format parquet --out DIR",
    ]
    return "\n".join(lines)
