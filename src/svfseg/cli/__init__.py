"""The command line: one module per group of commands."""

from svfseg.cli.commands import main

__all__ = ["main"]
