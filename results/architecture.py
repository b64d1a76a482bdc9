"""The import graph of the package: levels, arrows, and those that climb.

    make architecture

A unit is a package or a module directly below svfseg. An arrow is an import from one unit to
another, wherever in a file it stands; imports for type checkers alone do not count. A unit's level
is one above the highest unit that it imports; units that import each other share a level, and the
arrows among them are the ones that climb.
"""

import sys
from collections import defaultdict

import grimp


def units_of(graph: grimp.ImportGraph) -> dict[str, set[str]]:
    """Unit -> the units that it imports."""
    arrows: dict[str, set[str]] = defaultdict(set)
    for module in graph.modules:
        unit = unit_of(module)
        if unit:
            arrows[unit] |= {
                unit_of(other) for other in graph.find_modules_directly_imported_by(module)
            }
    return {unit: others - {unit, ""} for unit, others in arrows.items()}


def unit_of(module: str) -> str:
    return ".".join(module.split(".")[1:2])


def levels_of(arrows: dict[str, set[str]]) -> tuple[dict[str, int], set[tuple[str, str]]]:
    """Level of each unit, from 1; and the arrows inside of cycles."""
    reached = {unit: reachable(unit, arrows) for unit in arrows}
    cyclic = {(a, b) for a in arrows for b in arrows[a] if a in reached[b]}
    levels: dict[str, int] = {}

    def level(unit: str) -> int:
        if unit not in levels:
            group = {unit} | {other for other in reached[unit] if unit in reached[other]}
            below = {b for a in group for b in arrows[a]} - group
            value = 1 + max((level(other) for other in below), default=0)
            levels.update(dict.fromkeys(group, value))
        return levels[unit]

    for unit in sorted(arrows):
        level(unit)
    return levels, cyclic


def reachable(unit: str, arrows: dict[str, set[str]]) -> set[str]:
    seen: set[str] = set()
    waiting = list(arrows[unit])
    while waiting:
        other = waiting.pop()
        if other not in seen:
            seen.add(other)
            waiting += arrows[other]
    return seen


def main() -> None:
    graph = grimp.build_graph("svfseg", exclude_type_checking_imports=True, cache_dir=None)
    arrows = units_of(graph)
    levels, cyclic = levels_of(arrows)
    for number in sorted(set(levels.values()), reverse=True):
        for unit in sorted(u for u in levels if levels[u] == number):
            print(f"level {number}  {unit.ljust(12)} -> {' '.join(sorted(arrows[unit])) or '-'}")
    print(
        f"{len(arrows)} units on {max(levels.values())} levels, "
        f"{sum(map(len, arrows.values()))} arrows, {len(cyclic)} of which climb; "
        f"{len(graph.modules)} modules"
    )
    for a, b in sorted(cyclic):
        print(f"climbs: {a} -> {b}")
    sys.exit(bool(cyclic))


if __name__ == "__main__":
    main()
