"""Command-line words into a typed object: the one way in which every command reads them."""

from collections.abc import Sequence
from typing import Any, TypeVar

import tyro

A = TypeVar("A")


def parse(kind: type[A], command: str, words: Sequence[str], default: A | None = None) -> A:
    """Fill a dataclass from words; prints help or what is wrong with them, and exits."""
    given: dict[str, Any] = {} if default is None else {"default": default}
    parsed: A = tyro.cli(
        kind,
        prog=f"svfseg {command}",
        args=list(words),
        config=(tyro.conf.FlagCreatePairsOff,),
        **given,
    )
    return parsed
