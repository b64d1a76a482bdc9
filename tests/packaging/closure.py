"""The distributions that an installation of svfseg consists of, read from the environment."""

import re
from collections.abc import Iterable, Iterator
from importlib import metadata

from packaging.requirements import Requirement


def closure(requirements: Iterable[str]) -> dict[str, metadata.Distribution]:
    """Follow requirements through the installed distributions.

    Args:
        requirements: as in pyproject.toml, with extras and markers.

    Returns:
        Normalized name -> distribution, of all that the requirements need on this machine.

    Raises:
        PackageNotFoundError: one of them is not installed.
    """
    found: dict[str, metadata.Distribution] = {}
    followed: set[tuple[str, str]] = set()
    pending = [(Requirement(text), "") for text in requirements]
    while pending:
        requirement, extra = pending.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = normalize(requirement.name)
        distribution = found.setdefault(name, metadata.distribution(name))
        for wanted in ("", *requirement.extras):
            if (name, wanted) not in followed:
                followed.add((name, wanted))
                pending += [(Requirement(r), wanted) for r in distribution.requires or ()]
    return found


def normalize(name: str) -> str:
    """Write a distribution's name as package indexes do."""
    return re.sub(r"[-_.]+", "-", name).lower()


def modules(distribution: metadata.Distribution) -> Iterator[str]:
    """Yield the top-level modules and packages of a distribution."""
    for file in distribution.files or ():
        first = file.parts[0]
        if not first.endswith((".dist-info", ".pth")) and first not in ("..", "__pycache__"):
            yield first.split(".")[0]
