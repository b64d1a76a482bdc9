"""Measure what an installation takes on disk: svfseg with its dependencies, before and now.

    python results/install_size.py

Sums the files that the distributions of this environment record, over the closure of the
requirements of pyproject.toml: at commit BEFORE with the extra "demo", without which the default
model had neither weights nor images to compare a class with, and in the working tree without any
extra. The second figure leaves out PyTorch and the distributions of CUDA that it needs on Linux.
"""

import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.packaging.closure import closure  # noqa: E402

BEFORE = "f9c3044"
# The beginnings of the names of what PyTorch brings on Linux, beside itself.
ACCELERATORS = ("triton", "nvidia-", "cuda-")


def requirements(text: str, *extras: str) -> list[str]:
    """Read the requirements of a pyproject.toml with some of its extras."""
    project = tomllib.loads(text)["project"]
    optional = project["optional-dependencies"]
    return project["dependencies"] + [r for extra in extras for r in optional[extra]]


def megabytes(distributions: dict[str, metadata.Distribution]) -> float:
    """Add up the recorded files of distributions, in MB of 10^6 bytes."""
    sizes = (file.size or 0 for each in distributions.values() for file in each.files or ())
    return sum(sizes) / 1e6


def main() -> None:
    old = subprocess.run(
        ["git", "show", f"{BEFORE}:pyproject.toml"],
        cwd=ROOT, capture_output=True, check=True, text=True,
    ).stdout  # fmt: skip
    new = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    found = {"before": closure(requirements(old, "demo")), "now": closure(requirements(new))}
    for when, distributions in found.items():
        light = {
            name: distribution
            for name, distribution in distributions.items()
            if name != "torch" and not name.startswith(ACCELERATORS)
        }
        print(
            f"{when}: {len(distributions)} distributions, {megabytes(distributions):,.0f} MB; "
            f"without PyTorch and CUDA {len(light)}, {megabytes(light):,.0f} MB"
        )
    for sign, one, other in (("-", "before", "now"), ("+", "now", "before")):
        for name in sorted(set(found[one]) - set(found[other])):
            print(f"  {sign} {name} {megabytes({name: found[one][name]}):,.1f} MB")


if __name__ == "__main__":
    main()
