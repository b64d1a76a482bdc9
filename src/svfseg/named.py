"""What a config names: a row of a dict, or something of your own by its dotted path."""

import importlib
from collections.abc import Mapping
from typing import Any

from svfseg.config import nearest


def look_up(name: str, known: Mapping[str, Any], what: str) -> Any:
    """The row of that name, else the object at a dotted path such as ``my_module.Head``.

    Args:
        name: as a config has it.
        known: what svfseg has.
        what: "head", "strategy" ..., for messages.

    Raises:
        ValueError: no such row, and no such object.
    """
    if name in known:
        return known[name]
    module, _, attribute = name.rpartition(".")
    if not module:
        advice = nearest(name, known)
        more = "" if advice.endswith("?") else ", or the dotted path of your own"
        raise ValueError(f"unknown {what} {name}{advice}{more}")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{what} {name} cannot be imported: {error}") from error
