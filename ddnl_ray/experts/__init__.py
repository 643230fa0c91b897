"""Expert trajectories: their recipe, their training, the content-addressed store, and views on them."""

from ddnl_ray.experts.buffer import ArrayExperts, Experts, window
from ddnl_ray.experts.build import build_expert
from ddnl_ray.experts.recipe import ExpertRecipe
from ddnl_ray.experts.store import BufferId, ExpertStore, StoredBuffer
from ddnl_ray.experts.train import Trajectory, train_expert

__all__ = [
    "ArrayExperts",
    "BufferId",
    "ExpertRecipe",
    "ExpertStore",
    "Experts",
    "StoredBuffer",
    "Trajectory",
    "build_expert",
    "train_expert",
    "window",
]
