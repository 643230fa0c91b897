"""What every source of expert trajectories keeps (see :class:`ddnl_ray.experts.Experts`), as tests to inherit."""

from __future__ import annotations

from abc import ABC, abstractmethod

import pytest
import torch

from ddnl_ray.experts.buffer import Experts
from ddnl_ray.testing.bits import bits, require_same


class ExpertsContract(ABC):
    """The tests of a source of experts.

    Subclass it and return one from :meth:`experts`::

        class TestMine(ExpertsContract):
            def experts(self) -> Experts:
                return MyExperts(...)
    """

    @abstractmethod
    def experts(self) -> Experts:
        """Return experts that hold epoch 0 and the final epoch, equal at every call."""

    def test_has_experts_and_a_final_epoch(self) -> None:
        """There is at least one expert, and training took at least one epoch."""
        experts = self.experts()
        assert len(experts) >= 1, "there must be an expert"
        final = experts.final_epoch
        assert type(final) is int, f"final_epoch must be an int, but is {final!r}"
        assert final >= 1, f"training takes at least one epoch, but final_epoch is {final}"

    def test_snapshots_are_float32_vectors(self) -> None:
        """All snapshots are finite float32 vectors of one length, in whatever precision they are kept."""
        experts = self.experts()
        snapshots = [experts.snapshot(*place) for place in _places(experts)]
        for snapshot in snapshots:
            assert snapshot.dtype == torch.float32, f"a snapshot is float32, but got {snapshot.dtype}"
            assert snapshot.dim() == 1, f"a snapshot is a vector, but got shape {tuple(snapshot.shape)}"
            assert bool(snapshot.isfinite().all()), "a snapshot must be finite"
        sizes = {len(snapshot) for snapshot in snapshots}
        assert len(sizes) == 1, f"all snapshots have one length, but got {sorted(sizes)}"

    def test_epochs_and_experts_differ(self) -> None:
        """Epoch 0 lies before training, and each expert has a trajectory of its own."""
        experts = self.experts()
        seen = {tuple(experts.snapshot(*place).flatten().tolist()): place for place in _places(experts)}
        assert len(seen) == len(_places(experts)), "two snapshots are equal: were they copied when they were taken?"

    def test_reading_again_gives_the_same_bits(self) -> None:
        """What a snapshot holds depends on expert and epoch alone, not on what was read before."""
        experts, again = self.experts(), self.experts()
        first = {str(place): experts.snapshot(*place) for place in _places(experts)}
        for source in (experts, again):
            backwards = {str(place): source.snapshot(*place) for place in reversed(_places(experts))}
            require_same(bits(backwards), bits(first), "a snapshot that is read again must be the same")

    def test_snapshots_are_private(self) -> None:
        """Editing a snapshot in place changes no other reading of it, and it may take part in a graph."""
        experts = self.experts()
        for place in _places(experts):
            kept, edited = experts.snapshot(*place), experts.snapshot(*place)
            before = bits({"weights": kept})
            edited.neg_().sub_(1)
            require_same(bits({"weights": kept}), before, "editing a snapshot changed another reading of it")
            found = bits({"weights": experts.snapshot(*place)})
            require_same(found, before, "editing a snapshot changed what is read later")
        leaf = experts.snapshot(0, 0).requires_grad_()
        torch.autograd.grad(leaf.square().sum(), leaf)

    def test_what_is_not_held_is_an_error(self) -> None:
        """An expert or an epoch that is not there is an error, never another one's weights."""
        experts = self.experts()
        for place in ((len(experts), 0), (0, experts.final_epoch + 1)):
            with pytest.raises((LookupError, ValueError)):
                experts.snapshot(*place)


def _places(experts: Experts) -> list[tuple[int, int]]:
    """Return the snapshots that every source holds: the first and the last of every expert."""
    return [(expert, epoch) for expert in range(len(experts)) for epoch in (0, experts.final_epoch)]
