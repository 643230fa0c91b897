"""Expert trajectories: their recipe, their training, the content-addressed store, archives, and views on them."""

from ddnl_ray.experts.archive import Moved, export_buffers, import_archive
from ddnl_ray.experts.buffer import ArrayExperts, Experts
from ddnl_ray.experts.build import build_experts, groups, training_labels
from ddnl_ray.experts.identity import BufferId
from ddnl_ray.experts.recipe import ExpertRecipe
from ddnl_ray.experts.store import ExpertStore, StoredBuffer
from ddnl_ray.experts.train import TrainingState, Trajectory, train_expert, train_experts

__all__ = [
    "ArrayExperts",
    "BufferId",
    "ExpertRecipe",
    "ExpertStore",
    "Experts",
    "Moved",
    "StoredBuffer",
    "TrainingState",
    "Trajectory",
    "build_experts",
    "export_buffers",
    "groups",
    "import_archive",
    "train_expert",
    "train_experts",
    "training_labels",
]
