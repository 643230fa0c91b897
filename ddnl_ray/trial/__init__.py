"""One trial: from a configuration to a scored, exported distilled set. The unit that everything runs; needs no Ray."""

from ddnl_ray.trial.config import Options, TrialConfig, TrialInputs
from ddnl_ray.trial.run import run_trial

__all__ = ["Options", "TrialConfig", "TrialInputs", "run_trial"]
