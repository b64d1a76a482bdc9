"""Make classes at run time, so that an existing object changes what it does."""

from typing import Any

from torch import nn

# One class for each pair, so that equal modules have equal types.
_CLASSES: dict[tuple[type[nn.Module], type[nn.Module]], type[nn.Module]] = {}


def mixed(kind: type[nn.Module], base: type[nn.Module], prefix: str) -> type[nn.Module]:
    """Make a class of a ``base`` object that does what ``kind`` adds; named prefix + base."""
    if (kind, base) not in _CLASSES:
        names = {"__module__": base.__module__}
        _CLASSES[kind, base] = type(f"{prefix}{base.__name__}", (kind, base), names)
    return _CLASSES[kind, base]


def set_class(module: nn.Module, kind: type[nn.Module]) -> None:
    """Make a module one of another class, in place."""
    module.__class__ = kind


def rebuild(kind: type[nn.Module], base: type[nn.Module], prefix: str) -> nn.Module:
    """Make an empty object of a class whose own name cannot be imported, from its parts."""
    made: Any = mixed(kind, base, prefix)
    empty: nn.Module = made.__new__(made)
    return empty
