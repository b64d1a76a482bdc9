"""A share of `make torture`: some stops of each kind, some damaged files, some strangers."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.torture.__main__ import in_a_process, table


@pytest.mark.slow
@pytest.mark.posix
def test_a_stopped_command_is_given_again_and_ends_well(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.torture.commands", str(tmp_path), "60", "predict", "train"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = json.loads(done.stdout.splitlines()[-1])
    assert wrongs(found) == []
    assert all(each["kills"] and each["full disks"] for each in found.values())


@pytest.mark.posix
@pytest.mark.parametrize("name", ["fuzz", pytest.param("service", marks=pytest.mark.slow)])
def test_nothing_goes_wrong(name: str, tmp_path: Path) -> None:
    part = in_a_process(name, tmp_path, quick=True)
    assert wrongs(part) == []
    assert table({"parts": {name: part}}).count("| 0 |") >= 3


def wrongs(found: Any) -> list[Any]:
    """All that went wrong, wherever it stands."""
    if not isinstance(found, dict):
        return []
    inner = [each for value in found.values() for each in wrongs(value)]
    return [*found.get("wrong", []), *inner]
