"""The workflows, the hooks and the Makefile run the same commands, which exist."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
WORKFLOW = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
STEPS = [step["run"] for job in WORKFLOW["jobs"].values() for step in job["steps"] if "run" in step]


def test_workflows_call_the_targets_of_the_makefile_and_the_gate_does_too() -> None:
    text = "\n".join(STEPS)
    gate = (ROOT / ".ci/run").read_text(encoding="utf-8")
    for target in ("lint", "docs", "test"):
        assert f"make {target}" in text
        assert f"make {target}" in gate
        assert f"\n{target}: " in MAKEFILE


def test_workflows_cover_the_ends_of_the_supported_range() -> None:
    matrix = WORKFLOW["jobs"]["test"]["strategy"]["matrix"]
    assert {system.partition("-")[0] for system in matrix["os"]} == {"ubuntu", "windows", "macos"}
    lowest = PROJECT["project"]["requires-python"].removeprefix(">=")
    assert min(matrix["python"], key=lambda v: tuple(map(int, v.split(".")))) == lowest
    assert any("--resolution lowest-direct" in step for step in STEPS)


def test_extras_and_groups_that_are_installed_exist() -> None:
    extras = set(PROJECT["project"]["optional-dependencies"])
    (line,) = re.findall(r"^EXTRAS := (.*)$", MAKEFILE, re.MULTILINE)
    assert set(line.split()) <= extras
    text = "\n".join(STEPS)
    assert set(re.findall(r"--extra (\S+)", text)) <= extras
    assert set(re.findall(r"--group (\w+)", text + MAKEFILE)) <= set(PROJECT["dependency-groups"])


def test_every_requirement_has_a_lower_bound() -> None:
    """So that the job with the lowest direct versions means something."""
    project = PROJECT["project"]
    groups = [
        project["dependencies"],
        *project["optional-dependencies"].values(),
        *PROJECT["dependency-groups"].values(),
    ]
    free = [r for group in groups for r in group if ">=" not in r and not r.startswith("svfseg[")]
    assert free in ([], ["colorama", "attrs"])  # of the extra labelstudio, which goes away


@pytest.mark.parametrize("path", sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("[!c]*.yml")))
def test_forms_ask_something(path: Path) -> None:
    form = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert {"name", "description", "body"} <= set(form)
    kinds = [field["type"] for field in form["body"]]
    assert set(kinds) <= {"markdown", "textarea", "input", "checkboxes", "dropdown"}
    named = [field["id"] for field in form["body"] if field["type"] != "markdown"]
    assert len(named) == len(set(named)) > 0


def test_the_changelog_keeps_its_form() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.findall(r"^# (.*)$", text, re.MULTILINE) == ["Changelog"]
    releases = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert releases[0] == "[Unreleased]"
    for release in releases[1:]:
        assert re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", release)
    kinds = re.findall(r"^### (.*)$", text, re.MULTILINE)
    assert set(kinds) <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
