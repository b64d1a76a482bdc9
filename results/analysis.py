"""Keep what `svfseg analyze` found in runs, without their layers and paths, in one file.

    python results/analysis.py "250 steps=analysis/250" "900 steps=analysis/321"

writes analysis_reduced.json beside this file: for each name what the folder's analysis.json says.
"""

import json
import sys
from pathlib import Path
from typing import Any

PATH = Path(__file__).parent / "analysis_reduced.json"


def keep(named: dict[str, Path]) -> None:
    found = {name: json.loads((path / "analysis.json").read_text()) for name, path in named.items()}
    for content in found.values():
        del content["layers"]
        content["environment"].pop("command")
    PATH.write_text(json.dumps(found, indent=1) + "\n")


def tables(path: Path = PATH) -> tuple[str, str]:
    """Markdown: how far each stage's values moved, and the foreground's share, a column a run."""
    found: dict[str, dict[str, Any]] = json.loads(path.read_text())
    first = next(iter(found.values()))
    moved = [["stage", "values", "5 %, median, 95 %, largest"]]
    moved[0] += [*(f"{n}: mean change, %" for n in found), *(f"{n}: largest, %" for n in found)]
    for row in sorted(first["stages"], key=lambda row: row["stage"]):
        same = [
            next(r for r in content["stages"] if r["stage"] == row["stage"])
            for content in found.values()
        ]
        sizes = ", ".join(f"{x:.2f}" for x in row["start"])
        means = [f"{100 * r['mean change']:.3f}" for r in same]
        largest = [f"{100 * r['largest change']:.1f}" for r in same]
        moved.append([f"layer{row['stage']}", f"{row['values']:,}", sizes, *means, *largest])
    focus = [["stage", "foreground / background before", *(f"{n}: change" for n in found)]]
    for i, row in enumerate(first["focus"]):
        changes = [content["focus"][i]["change"] for content in found.values()]
        if any(any(change) for change in changes):
            cells = ["{:+.4f} ({:+.4f} to {:+.4f})".format(*change) for change in changes]
            focus.append([row["stage"], f"{row['before'][0]:.3f}", *cells])
    return _markdown(moved), _markdown(focus)


def _markdown(rows: list[list[str]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]])


if __name__ == "__main__":
    keep({name: Path(folder) for name, folder in (word.split("=", 1) for word in sys.argv[1:])})
    print("\n\n".join(tables()))
