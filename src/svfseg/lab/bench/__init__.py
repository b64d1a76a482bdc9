"""What svfseg costs, measured: each benchmark gives rows (plain dicts) and says its bars."""
