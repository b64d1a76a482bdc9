"""A file that is not a task, in each way, is refused in one line."""

import json
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save

from svfseg import FewShotSegmenter
from svfseg.errors import InputError
from svfseg.segmenter.task_file import read_task
from tests.segmenter.scenes import scene


@pytest.mark.parametrize(
    ("metadata", "words"),
    [([1], "is a list"), ({"format": 1}, "has no model"), ({"format": 3}, "has task format 3")],
)
def test_metadata_of_something_else(metadata: object, words: str, tmp_path: Path) -> None:
    path = tmp_path / "a.svf"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("task.json", json.dumps(metadata))
        file.writestr("views.safetensors", save({"1/0/keys": torch.from_numpy(np.ones((2, 2)))}))
    with pytest.raises(InputError, match=words):
        read_task(path)


@pytest.mark.parametrize(
    "change",
    [
        {"rules": []},
        {"rules": [{"threshold": "x"}]},
        {"rules": [{"threshold": 0.5, "level": 1}]},
        {"rules": [{"threshold": 0.5, "spread": 0}]},
        {"share": "x"},
        {"share": float("nan")},
        {"size": 0},
        {"size": "x"},
        {"classes": []},
        {"classes": ["a", "b"]},
        {"parameters": []},
        {"parameters": {"empty": True, "colour": 1}},
    ],
)
def test_settings_that_cannot_be_are_refused(change: dict[str, object], tmp_path: Path) -> None:
    """One line that names the file, and no traceback."""
    path = (
        FewShotSegmenter(size=96, seconds=0.0, device="cpu")
        .fit(*scene(0))
        .save(tmp_path / "task.svf")
    )
    with zipfile.ZipFile(path) as file:
        parts = {name: file.read(name) for name in file.namelist()}
    metadata = json.loads(parts["task.json"]) | change
    with zipfile.ZipFile(path, "w") as file:
        for name, data in (parts | {"task.json": json.dumps(metadata).encode()}).items():
            file.writestr(name, data)
    with pytest.raises(InputError, match=re.escape(str(path))):
        FewShotSegmenter.load(path, device="cpu")


def test_no_damage_of_bytes_is_a_traceback(tmp_path: Path) -> None:
    """Refused in one line, or still readable."""
    path = (
        FewShotSegmenter(size=96, seconds=0.0, device="cpu")
        .fit(*scene(0))
        .save(tmp_path / "task.svf")
    )
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    refused = 0
    for _ in range(40):
        damaged = bytearray(whole)
        for at in rng.integers(0, len(whole), 8):
            damaged[at] = int(rng.integers(256))
        path.write_bytes(bytes(damaged))
        try:
            FewShotSegmenter.load(path, device="cpu")
        except InputError:
            refused += 1
    assert refused > 20


def test_a_size_given_as_a_float_is_read_again(tmp_path: Path) -> None:
    """Whatever number a fit takes, its file can be loaded."""
    path = (
        FewShotSegmenter(size=96.0, seconds=0.0, device="cpu")
        .fit(*scene(0))
        .save(  # type: ignore[arg-type]
            tmp_path / "task.svf"
        )
    )
    assert FewShotSegmenter.load(path, device="cpu").predictor_.size == 96
