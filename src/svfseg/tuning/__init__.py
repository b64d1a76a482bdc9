"""What trains: one strategy per file, and what a run leaves on disk."""

from svfseg.tuning.checkpoint import load_run
from svfseg.tuning.strategies import STRATEGIES, merge_tuned, tune

__all__ = ["STRATEGIES", "load_run", "merge_tuned", "tune"]
