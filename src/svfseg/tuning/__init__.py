"""What trains: one strategy per file, and what a run leaves on disk."""

from svfseg.tuning.checkpoint import load_run
from svfseg.tuning.strategies import STRATEGIES, merge, tune
from svfseg.tuning.strategy import Strategy

__all__ = ["STRATEGIES", "Strategy", "load_run", "merge", "tune"]
