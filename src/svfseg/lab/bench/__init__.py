"""Benchmarks of what svfseg costs: each gives rows (plain dicts) with the values aimed at."""
