"""Dataset distillation with noisy labels, swept on Ray."""

__version__ = "0.1.0"
