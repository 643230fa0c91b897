"""The nine estimators applied to what networks make of a run's data.

Which network each is of: I_clean, r and ``influence`` are of the reference network, trained on clean labels. Two
estimators of I_min are of the networks trained on distilled sets at the fewest images per class that beat chance
(``few_shot`` their predictions, ``pac_bayes`` their generalisation gap), and so is ``information_bottleneck`` where
there are any; otherwise it is of the reference network, whose latents hold more than a class needs. These are made for
each method at the least noise that the run has for it.

Everything is evaluated on held-out clean samples. r by clusters and by rank falls as the samples become more: what is
measured on S of them is not r of n, and ``samples`` stands beside it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from analysis.measure.record import Value
from analysis.theory import clean, information, redundancy
from analysis.theory.arrays import Integers
from analysis.theory.estimate import STANDARD, Estimate, Floats, Resampling
from ddnl_ray.errors import RequestError
from ddnl_ray.seeds import SeedTree

BATCH = 256
"""Pairs of an InfoNCE batch."""
MOST_PARAMETERS = 2048
"""Parameters of the last layer up to which its influences are exact; above, its inputs are reduced to components."""
NO_NETWORKS = "No distilled set was retrained"


@dataclass(frozen=True, kw_only=True)
class MethodEvidence:
    """What networks trained on the distilled sets of one method say.

    Attributes:
        noise: At which noise, in words.
        unit: What the seeds are: distilled sets, or networks of one set.
        accuracies: Test accuracies [R] by images per class, as the run has them.
        ipc: The fewest images per class that beat chance; None: none, and ``reason`` says why.
        retrained: Test accuracies [R] of the networks that were trained again at that number.
        confusions: Counts by true class (rows) and prediction of these [R, C, C].
        gaps: Their accuracy on the distilled set less that on the test set [R].
        images: Distilled images of one set.
        latents: Inputs of the last layer of the first network, on the held-out samples [S, d].
        reason: Why there are no networks; empty if there are.
    """

    noise: str = ""
    unit: str = ""
    accuracies: Mapping[int, Floats] = field(default_factory=dict)
    ipc: int | None = None
    retrained: Floats | None = None
    confusions: Floats | None = None
    gaps: Floats | None = None
    images: int = 0
    latents: Floats | None = None
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What the reference network makes of S held-out clean samples.

    Attributes:
        probabilities: Predictions [S, C], float64.
        latents: Inputs of the last layer [S, d].
        labels: Clean labels [S].
        gradient_norms: Norm of each sample's loss gradient, over all weights [S].
        parameters: How many weights there are.
        chance: Share of the largest class of the whole test set.
        methods: Networks of distilled sets, by method.
    """

    probabilities: Floats
    latents: Floats
    labels: Integers
    gradient_norms: Floats
    parameters: int
    chance: float
    methods: Mapping[str, MethodEvidence]


def measure(evidence: Evidence, seed: SeedTree, resampling: Resampling = STANDARD) -> tuple[Value, ...]:
    """Return what all nine estimators find, those of I_min once per method.

    Args:
        evidence: What the networks say.
        seed: Source of the resamples, the folds and the batches; every estimator has its own.
        resampling: How many resamples, and coverage.
    """
    maker = _Maker(evidence, seed, resampling)
    found: list[Value] = []
    for name, own in evidence.methods.items():
        found += [
            maker.made("i_min", "few_shot", name, partial(maker.few_shot, own)),
            maker.made("i_min", "pac_bayes", name, partial(maker.pac_bayes, own)),
            maker.made("i_min", "information_bottleneck", name, partial(maker.bottleneck, own)),
        ]
    if not evidence.methods:
        reason = "The run has no distilled set with a score on the test set."
        found += [Value("i_min", name, None, None, reason) for name in ("few_shot", "pac_bayes")]
        found.append(maker.made("i_min", "information_bottleneck", None, partial(maker.bottleneck, None)))
    return (
        *found,
        maker.made("i_clean", "contrastive", None, maker.contrastive),
        maker.made("i_clean", "teacher", None, maker.teacher),
        maker.made("i_clean", "gradient", None, maker.gradient),
        maker.made("redundancy", "clusters", None, maker.clusters),
        maker.made("redundancy", "effective_rank", None, maker.effective_rank),
        maker.made("redundancy", "influence", None, maker.influence),
    )


def describe(value: Value) -> str:
    """Return a value in words: number, interval and units, or why it is undefined."""
    found = value.estimate
    if found is None:
        return f"undefined. {value.reason}"
    units = {"nats": " nats", "fraction": "", "relative": " in relative units"}[found.units]
    return f"{found.value:.3g} [{found.low:.3g} to {found.high:.3g}]{units}, n = {found.n}"


@dataclass(frozen=True)
class _Maker:
    """Applies estimators, each with random numbers of its own."""

    evidence: Evidence
    seed: SeedTree
    resampling: Resampling

    def made(
        self, quantity: str, estimator: str, method: str | None, make: Callable[[np.random.Generator], Estimate]
    ) -> Value:
        """Return the value, or the sentence of its refusal."""
        try:
            rng = self.seed.child(quantity, estimator, method or "").numpy()
            return Value(quantity, estimator, method, make(rng))
        except (ValueError, RequestError) as error:
            text = str(error)
            return Value(quantity, estimator, method, None, text[:1].upper() + text[1:].rstrip(".") + ".")

    def few_shot(self, own: MethodEvidence, rng: np.random.Generator) -> Estimate:
        """Information of the predictions of the networks that were trained again."""
        if own.ipc is None or own.retrained is None or own.confusions is None:
            raise ValueError(own.reason or NO_NETWORKS)
        accuracies = {**own.accuracies, own.ipc: own.retrained}
        confusions = {own.ipc: own.confusions}
        chance = self.evidence.chance
        found = information.few_shot(accuracies, confusions, chance, rng, resampling=self.resampling)
        apart = float(np.abs(own.retrained - own.accuracies[own.ipc]).max())
        return _with(found, noise=own.noise, unit=own.unit, retrained_differs_by=apart)

    def pac_bayes(self, own: MethodEvidence, rng: np.random.Generator) -> Estimate:
        """Divergence that explains the gap of these networks; refused where the confidence term alone exceeds it."""
        if own.gaps is None or own.ipc is None:
            raise ValueError(own.reason or NO_NETWORKS)
        classes = self.evidence.probabilities.shape[1]
        found = information.pac_bayes(own.gaps, own.images, classes, rng, resampling=self.resampling)
        if found.value <= 0:
            raise ValueError(
                f"the gap {found.inputs['gap']:.3g} of {own.images} distilled images is below what "
                "log(2 sqrt(m) / delta) alone allows, so no information follows from it; it takes more images"
            )
        return _with(found, noise=own.noise, ipc=own.ipc)

    def teacher(self, rng: np.random.Generator) -> Estimate:
        """Claims of the reference network."""
        return clean.teacher(self.evidence.probabilities, rng, resampling=self.resampling)

    def clusters(self, rng: np.random.Generator) -> Estimate:
        """Of its latents."""
        return redundancy.clusters(self.evidence.latents, rng, resampling=self.resampling)

    def contrastive(self, rng: np.random.Generator) -> Estimate:
        """InfoNCE, with the classifier bound beside it."""
        evidence = self.evidence
        batch = min(BATCH, len(evidence.labels))
        found = clean.contrastive(evidence.probabilities, evidence.labels, rng, batch=batch, resampling=self.resampling)
        least = Resampling(draws=20)
        other = clean.contrastive(evidence.probabilities, evidence.labels, rng, bound="classifier", resampling=least)
        return _with(found, classifier_bound=other.value)

    def gradient(self, rng: np.random.Generator) -> Estimate:
        """Norms of the gradients of all weights; a column of norms has the norms of its rows."""
        norms = self.evidence.gradient_norms[:, None]
        return _with(clean.gradient(norms, rng, resampling=self.resampling), parameters=self.evidence.parameters)

    def bottleneck(self, own: MethodEvidence | None, rng: np.random.Generator) -> Estimate:
        """Information of the latents of a distilled set's network, else of the reference network."""
        has_own = own is not None and own.latents is not None
        latents = own.latents if own is not None and own.latents is not None else self.evidence.latents
        labels = self.evidence.labels
        found = information.information_bottleneck(latents, labels, rng, resampling=self.resampling)
        try:
            beside = information.information_bottleneck(
                latents, labels, rng, density="neighbours", resampling=Resampling(draws=20)
            )
            found = _with(found, neighbours_estimate=beside.value)
        except ValueError:
            pass  # samples that coincide have no neighbour distances; the Gaussian value stands alone
        if own is not None and has_own:
            return _with(found, network="distilled", ipc=int(own.ipc or 0), noise=own.noise)
        return _with(found, network="reference")

    def effective_rank(self, rng: np.random.Generator) -> Estimate:
        """With fewer resamples where each costs a large spectrum."""
        latents = self.evidence.latents
        side = min(latents.shape)
        draws = min(self.resampling.draws, 1000 if side <= 256 else 200 if side <= 1024 else 40)
        own = dataclasses.replace(self.resampling, draws=draws)
        return _with(redundancy.effective_rank(latents, rng, resampling=own), draws=draws)

    def influence(self, rng: np.random.Generator) -> Estimate:
        """On the last layer; its inputs are reduced to principal components where they are many."""
        evidence = self.evidence
        width = MOST_PARAMETERS // evidence.probabilities.shape[1] - 1
        latents, reduced = evidence.latents, 0
        if latents.shape[1] > width:
            centred = latents - latents.mean(axis=0)
            axes = np.linalg.svd(centred, full_matrices=False)[2][:width]
            latents, reduced = centred @ axes.T, width
        found = redundancy.influence(latents, evidence.probabilities, evidence.labels, rng, resampling=self.resampling)
        return _with(found, components=reduced) if reduced else found


def _with(found: Estimate, **inputs: float | int | str) -> Estimate:
    return dataclasses.replace(found, inputs={**found.inputs, **inputs})
