"""Run all of it, or some parts, and keep what came of it.

python -m tests.torture FOLDER [--quick] [PART ...]
python -m tests.torture table results/torture.json
"""

import json
import math
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).resolve().parents[2] / "results/torture.json"
# How much of each part: every how manyth operation of a command (each costs seconds) and of a
# change (each costs a tenth), files of each kind, requests of each operation of an API, seconds,
# connections.
FULL = {"command": 6, "change": 1, "files": 250, "examples": 60, "seconds": 120.0,
        "connections": 1100}  # fmt: skip
QUICK = {"command": 60, "change": 12, "files": 3, "examples": 3, "seconds": 4.0,
         "connections": 300}  # fmt: skip


def commands(folder: Path, much: dict[str, Any]) -> dict[str, Any]:
    """Stop fit, predict, train and study."""
    from tests.torture import commands as part

    return dict(part.sweep(folder, much["command"], list(part.COMMANDS)))


def page(folder: Path, much: dict[str, Any]) -> dict[str, Any]:
    """Stop the page's changes."""
    from tests.torture import page as part

    return {"the page": part.sweep(folder, much["change"])}


def labelstudio(folder: Path, much: dict[str, Any]) -> dict[str, Any]:
    """Stop the changes of the backend of Label Studio."""
    from tests.torture import labelstudio as part

    return {"Label Studio": part.sweep(folder, much["change"], list(part.CHANGES))}


def fuzz(folder: Path, much: dict[str, Any]) -> dict[str, Any]:
    """Read damaged files."""
    from tests.torture import fuzz as part

    return part.sweep(folder, much["files"], list(part.KINDS))


def service(folder: Path, much: dict[str, Any]) -> dict[str, Any]:
    """Send strangers to the service and the page."""
    from tests.torture import service as part

    return part.sweep(folder, much["examples"], much["seconds"], much["connections"])


PARTS: dict[str, Callable[[Path, dict[str, Any]], dict[str, Any]]] = {
    "commands": commands, "page": page, "labelstudio": labelstudio, "fuzz": fuzz,
    "service": service,
}  # fmt: skip


def in_a_process(name: str, folder: Path, quick: bool) -> dict[str, Any]:
    """Run a part in a process of its own: threads and memory of one do not touch another."""
    words = ["part", name, str(folder / name), *(["--quick"] if quick else [])]
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "tests.torture", *words], check=True, stdout=subprocess.PIPE
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {"minutes": round((time.perf_counter() - start) / 60, 1), "found": found}


def table(results: dict[str, Any]) -> str:
    """Give the tables of docs/reliability.md."""
    parts = {name: part["found"] for name, part in results["parts"].items()}
    stops = {**parts.get("commands", {}), **parts.get("page", {}), **parts.get("labelstudio", {})}
    lines = ["| stopped | kills | full disks | wrong |", "|---|---:|---:|---:|"]
    for name, row in stops.items():
        lines.append(f"| {name} | {row['kills']} | {row['full disks']} | {len(row['wrong'])} |")
    lines += ["", "| damaged files | tried | refused in one line | read | most memory | wrong |",
              "|---|---:|---:|---:|---:|---:|"]  # fmt: skip
    for name, row in parts.get("fuzz", {}).items():
        read, wrong = row["read"] + row["same"], len(row["wrong"])
        lines.append(
            f"| {name} | {read + row['refused'] + wrong} | {row['refused']} | {read} | "
            f"{row['bytes'] / 1e6:.0f} MB | {wrong} |"
        )
    served = parts.get("service", {})
    lines += ["", "| strangers | what came of it | wrong |", "|---|---|---:|"]
    lines += [f"| {name} | {text} | {wrong} |" for name, text, wrong in _served(served)]
    return "\n".join(lines)


def _served(found: dict[str, Any]) -> list[tuple[str, str, int]]:
    rows = []
    for where in ("service", "page"):
        if row := found.get(f"odd requests to the {where}"):
            count = sum(n for status, n in row["answers"].items() if status.isdigit())
            rows.append((f"odd requests to the {where}", f"{count} answered", len(row["wrong"])))
            bugs = found[f"tracebacks of the {where}"]
            rows.append((f"tracebacks in the log of the {where}", f"{bugs}", bugs))
    if row := found.get("a crowd"):
        text = (
            f"{sum(row['answers'].values()):,} requests in {row['seconds']:.0f} s; memory "
            f"{row['memory before'] / 1e6:,.0f} MB before, {row['memory after'] / 1e6:,.0f} after; "
            f"/health: 99 of 100 within {row['health p99 (s)']:.2f} s"
        )
        rows.append((f"{row['clients']} clients at once", text, len(row["wrong"])))
    if row := found.get("silent connections"):
        text = f"/health: 99 of 100 within {row['health p99 (s)']:.2f} s"
        if math.isinf(row["health p99 (s)"]):
            text = "/health: no answer in 30 s"
        elif row["late"]:
            text += f", {len(row['late'])} of {row['health asked']} after more than 1 s"
        rows.append((f"{row['at once']:,} silent connections", text, len(row["wrong"])))
    if row := found.get("large uploads"):
        most = max(each["megabytes"] for each in row["uploads"].values())
        rows.append(("the largest uploads", f"at most {most} MB for one", len(row["wrong"])))
    return rows


def main(words: list[str]) -> int:
    """Run the parts, or print the tables; status 1 if something was wrong."""
    quick = "--quick" in words
    words = [word for word in words if word != "--quick"]
    if words[0] == "table":
        print(table(json.loads(Path(words[1]).read_text())))
        return 0
    if words[0] == "part":
        place = Path(words[2]).resolve()
        place.mkdir(parents=True, exist_ok=True)
        torch.set_num_threads(1)  # a process that is forked has none of its parent's threads
        print(json.dumps(PARTS[words[1]](place, QUICK if quick else FULL)))
        return 0
    folder = Path(words[0]).resolve()
    target = folder / "torture.json" if quick else RESULTS
    results = json.loads(target.read_text()) if target.is_file() else {"parts": {}}
    revision = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    for name in words[1:] or list(PARTS):
        about = {"commit": revision, "date": f"{datetime.now(UTC):%Y-%m-%d}",
                 "python": platform.python_version()}  # fmt: skip
        results["parts"][name] = {**about, **in_a_process(name, folder, quick)}
        target.write_text(json.dumps(results, indent=1) + "\n")
        print(f"{name}: {results['parts'][name]['minutes']} minutes", file=sys.stderr)
    print(table(results))
    return int('wrong": [\n' in json.dumps(results, indent=1))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
