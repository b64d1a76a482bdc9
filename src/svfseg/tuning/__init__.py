"""Strategies, one per file, that choose what trains, and checkpoints of runs."""

from svfseg.tuning.checkpoint import load_run
from svfseg.tuning.strategies import STRATEGIES, merge, tune
from svfseg.tuning.strategy import Strategy

__all__ = ["STRATEGIES", "Strategy", "load_run", "merge", "tune"]
