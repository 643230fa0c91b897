"""What is wrong with a damaged card is named; a good one passes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ddnl_ray.card import seal, write_card
from ddnl_ray.cards import problems, read_about, read_card
from ddnl_ray.data import PrepareConfig, load, prepare
from ddnl_ray.errors import CorruptFileError, RequestError
from ddnl_ray.files import read_tensors, sha256, write_json, write_tensors

About = dict[str, Any]
Change = Callable[[About], object]


def rewrite(folder: Path, change: Change, sealed: bool = True) -> None:
    """Change a card as somebody would who keeps its checksum right."""
    about = json.loads((folder / "card.json").read_text())
    change(about)
    write_json(folder / "card.json", seal(about) if sealed else about)


def retensor(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    """Change the tensors, with all checksums right."""
    path = folder / "distilled.safetensors"
    tensors, _ = read_tensors(path)
    change(tensors)
    write_tensors(path, tensors, {"format_version": 1})
    rewrite(folder, lambda about: about["images"].update(sha256=sha256(path.read_bytes())))


def flip_a_bit(folder: Path) -> None:
    path = folder / "distilled.safetensors"
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(bytes(content))


def truncate(folder: Path) -> None:
    path = folder / "distilled.safetensors"
    path.write_bytes(path.read_bytes()[:-8])


def promise_more(folder: Path) -> None:
    rewrite(folder, lambda about: about["expected_accuracy"].update(mean=0.99), sealed=False)


def without_own_checksum(folder: Path) -> None:
    def change(about: About) -> None:
        del about["sha256"]
        about["evaluation"]["epochs"] = 3

    rewrite(folder, change, sealed=False)


def setting(*path: str, value: Any) -> Callable[[Path], None]:
    """Make a tampering that sets one entry of the card."""

    def change(about: About) -> None:
        for name in path[:-1]:
            about = about[name]
        about[path[-1]] = value

    return lambda folder: rewrite(folder, change)


def tensor(name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Path], None]:
    """Make a tampering that changes one tensor."""
    return lambda folder: retensor(folder, lambda tensors: tensors.update({name: change(tensors[name])}))


TAMPERED: list[tuple[Callable[[Path], object], str]] = [
    (flip_a_bit, "distilled.safetensors does not match its checksum"),
    (truncate, "is not a readable safetensors file"),
    (lambda folder: (folder / "distilled.safetensors").unlink(), "distilled.safetensors is missing"),
    (promise_more, "card.json does not match its own checksum"),
    (without_own_checksum, "card.json: evaluation is "),
    (lambda folder: retensor(folder, lambda tensors: tensors.pop("labels")), "holds the tensors ['images'], expected"),
    (tensor("images", lambda images: images[:, :, :4]), "the images have the shape [10, 1, 4, 8], but the card says"),
    (tensor("images", lambda images: images.double()), "the images are torch.float64"),
    (tensor("images", lambda images: images * torch.nan), "some pixels are not finite"),
    (tensor("images", lambda images: images / 2), "the pixels reach from"),
    (tensor("labels", lambda labels: labels[:9]), "[9, 10], expected torch.float32 [10, 10]"),
    (tensor("labels", lambda labels: labels.argmax(1)), "the labels (probabilities) are torch.int64 [10]"),
    (tensor("labels", lambda labels: labels * 2), "the labels are not probabilities"),
    (setting("labels", "kind", value="logits"), "the labels are 'logits', expected one of"),
    (setting("labels", "kind", value="scores"), "on which the loss 'cross_entropy' cannot train"),
    (setting("images", "file", value="../distilled.safetensors"), "is not the name of a file beside the card"),
    (setting("images", "shape", value=[10, 64]), "the images must be NCHW with 4 sizes"),
    (setting("classes", value=["0", "1"]), "there are 10 images, but the card says 1 for each of 2 classes"),
    (setting("transform", "kind", value="whitened"), "the transform is 'whitened'"),
    (setting("transform", "std", value=[0.0]), "deviations above 0"),
    (setting("transform", value={}), "transform cannot be used: there is no 'kind'"),
    (setting("evaluation", "optimizer", value="sdg"), "unknown evaluation optimizer 'sdg': did you mean 'sgd'?"),
    (setting("network", "name", value="convnet7"), "unknown network 'convnet7'"),
    (setting("network", "name", value="convnet5"), "convnet5 is too deep for images of 8 x 8"),
    (setting("step_size", value=-0.1), "step_size must be a number above 0 or null"),
    (setting("step_size", value=None), "neither step_size nor evaluation.lr"),
    (setting("formation", value={"factor": "two"}), "formation.factor must be a whole number"),
    (setting("expected_accuracy", "low", value=0.999), "which cannot be"),
    (setting("expected_accuracy", "n", value=0), "expected_accuracy has n = 0"),
]


@pytest.mark.parametrize(("tamper", "message"), TAMPERED, ids=[message[:40] for _, message in TAMPERED])
def test_what_was_tampered_with_is_named(card: Path, tamper: Callable[[Path], object], message: str) -> None:
    tamper(card)
    found = problems(card, read_about(card))
    assert any(message in problem for problem in found), found
    with pytest.raises(CorruptFileError, match="is damaged"):
        read_card(card)


def test_a_card_as_it_was_written_has_no_problems(finished: Path) -> None:
    assert problems(finished, read_about(finished)) == []
    card = read_card(finished)
    assert card.training.labels.shape == (10, 10)
    assert card.training.step_size == card.about["step_size"]


def test_every_entry_may_be_missing_or_of_any_type(card: Path) -> None:
    """Nothing but a list of problems comes of it."""
    whole = json.loads((card / "card.json").read_text())
    about = {name: value for name, value in whole.items() if name != "sha256"}
    needed = {"images", "labels", "transform", "evaluation", "network", "expected_accuracy", "classes", "ipc", "pixels"}
    for name in sorted(about):
        gone = {key: value for key, value in about.items() if key != name}
        assert bool(problems(card, gone)) >= (name in needed), name
        for value in (None, 7, "text", [], {}, [[1]], {"a": None}, float("nan")):
            assert isinstance(problems(card, {**about, name: value}), list)


@pytest.fixture
def whitened(tmp_path: Path) -> Path:
    """A card with matrices, of what it takes to check them."""
    data = prepare(load("digits"), PrepareConfig(subset=200, zca=True))
    folder = tmp_path / "one" / "trials" / "a"
    about = {
        "ipc": 1,
        "step_size": None,
        "network": {"name": "convnet1", "width": 4},
        "evaluation": {"lr": 0.1, "augment": None},
        "expected_accuracy": {"split": "test", "mean": 0.5, "low": None, "high": None, "n": 1},
    }
    write_card(folder, data.train_images[:10], torch.arange(10), data, about)
    return folder


def test_whitening_matrices_are_checked(whitened: Path) -> None:
    assert problems(whitened, read_about(whitened)) == []
    path = whitened / "zca.safetensors"
    tensors, _ = read_tensors(path)
    write_tensors(path, tensors | {"whiten": tensors["whiten"].roll(1, 0)})
    assert "zca.safetensors does not match its checksum" in problems(whitened, read_about(whitened))[0]
    rewrite(whitened, lambda about: about["transform"].pop("sha256"))
    assert problems(whitened, read_about(whitened)) == ["the transform and its inverse do not undo each other"]
    write_tensors(path, tensors | {"whiten": tensors["whiten"][:5]})
    assert "[[64], [5, 64], [64, 64]]" in problems(whitened, read_about(whitened))[0]
    path.unlink()
    assert problems(whitened, read_about(whitened)) == ["zca.safetensors is missing"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is not a card: it holds no card.json"),
        ("{", "it cannot be read as JSON"),
        ("[]", "it must be a mapping with format_version and images"),
        ('{"images": {}}', "it must be a mapping with format_version and images"),
        ('{"images": {}, "format_version": 2}', "has format_version 2, but this ddnl-ray reads 1"),
    ],
)
def test_what_is_no_card_is_said_to_be_none(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "card.json").write_text(content)
    with pytest.raises(RequestError, match="card") as caught:
        read_about(tmp_path)
    assert message in str(caught.value)


def test_a_run_is_no_card_but_has_some(finished: Path) -> None:
    with pytest.raises(RequestError, match=f"it is a run with 1 cards; name one, for example {finished}"):
        read_about(finished.parents[1])
