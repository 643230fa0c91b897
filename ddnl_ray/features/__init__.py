"""Features learnt from images without labels: SimCLR, its views, and the extractor that it leaves."""

from ddnl_ray.features.extractor import Extractor
from ddnl_ray.features.simclr import SimclrConfig, nt_xent, train_simclr
from ddnl_ray.features.views import ViewDraw, apply_views, draw_views

__all__ = ["Extractor", "SimclrConfig", "ViewDraw", "apply_views", "draw_views", "nt_xent", "train_simclr"]
