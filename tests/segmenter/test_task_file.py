"""A file that is not a task, in each way, is refused in one line."""

import json
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from svfseg import FewShotSegmenter
from svfseg.errors import InputError
from svfseg.segmenter import task_file
from svfseg.segmenter.task_file import read_task
from tests.segmenter.scenes import scene


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A task file, fitted once."""
    path = tmp_path_factory.mktemp("saved") / "task.svf"
    FewShotSegmenter(size=96, seconds=0.0, device="cpu").fit(*scene(0)).save(path)
    return path.read_bytes()


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
        {"size": 3},
        {"size": 10**9},
        {"rules": [{"threshold": 5.0}]},
        {"rules": [{"threshold": -1.0}]},
        {"parameters": {"empty": True, "overlap": 2}},
        {"parameters": {"empty": True, "batch": 0}},
        {"files": {}},
        {"files": {"views.safetensors": "0" * 64}},
        {"size": "x"},
        {"classes": []},
        {"classes": ["a", "b"]},
        {"parameters": []},
        {"parameters": {"empty": True, "colour": 1}},
        {"strategy": ["svf"]},
        {"model": 3},
        {"steps": "x"},
        {"shown": 5},
        {"advice": [1]},
        {"supports": {"disc": []}},
        {"supports": {"disc": 10**400}},
        {"steps": -(10**400)},
        {"lr": float("inf")},
    ],
)
def test_settings_that_cannot_be_are_refused(
    change: dict[str, object], saved: bytes, tmp_path: Path
) -> None:
    """One line that names the file, and no traceback."""
    path = tmp_path / "task.svf"
    path.write_bytes(saved)
    with zipfile.ZipFile(path) as file:
        parts = {name: file.read(name) for name in file.namelist()}
    metadata = json.loads(parts["task.json"]) | change
    with zipfile.ZipFile(path, "w") as file:
        for name, data in (parts | {"task.json": json.dumps(metadata).encode()}).items():
            file.writestr(name, data)
    with pytest.raises(InputError, match=re.escape(str(path))):
        FewShotSegmenter.load(path, device="cpu")


CHANGED = {
    "flipped": lambda t: t * torch.where(torch.arange(t.numel()).reshape(t.shape) == 3, -1, 1),
    "not a number": lambda t: t * float("nan"),
    "whole numbers": lambda t: t.to(torch.int64),
    "cut": lambda t: t[:-1].contiguous(),
    "another dimension": lambda t: t[None],
    "empty": lambda t: t[:0].contiguous(),
}


@pytest.mark.parametrize(
    ("way", "digests"),
    # without a digest nothing tells a changed sign
    [(way, digests) for way in CHANGED for digests in (True, False) if digests or way != "flipped"],
)
def test_changed_tensors_are_refused(way: str, digests: bool, saved: bytes, tmp_path: Path) -> None:
    """By their digests; and those of older files, which have none, by what they hold."""
    path = tmp_path / "task.svf"
    path.write_bytes(saved)
    with zipfile.ZipFile(path) as file:
        parts = {name: file.read(name) for name in file.namelist()}
    tensors = load(parts["views.safetensors"])
    parts["views.safetensors"] = save({k: CHANGED[way](t) for k, t in tensors.items()})
    if not digests:
        metadata = json.loads(parts["task.json"])
        del metadata["files"]
        parts["task.json"] = json.dumps(metadata).encode()
    with zipfile.ZipFile(path, "w") as file:
        for name, data in parts.items():
            file.writestr(name, data)
    with pytest.raises(InputError, match=re.escape(str(path))):
        FewShotSegmenter.load(path, device="cpu")


@pytest.mark.parametrize(("name", "size"), [("views.safetensors", 2e7), ("task.json", 3e6)])
def test_what_would_fill_the_memory_is_not_unpacked(
    name: str, size: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task_file, "MOST_UNPACKED", 10_000_000)
    monkeypatch.setattr(task_file, "MOST_JSON", 2_000_000)
    path = tmp_path / "bomb.svf"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file, file.open(name, "w") as part:
        for _ in range(int(size / 1e6)):
            part.write(bytes(1_000_000))
    with pytest.raises(InputError, match="unpacks to"):
        read_task(path)


def test_no_damage_of_bytes_is_a_traceback(saved: bytes, tmp_path: Path) -> None:
    """Refused in one line, or still readable."""
    path = tmp_path / "task.svf"
    path.write_bytes(saved)
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


def test_a_list_of_parts_that_lies_before_the_file_is_damage(saved: bytes, tmp_path: Path) -> None:
    """The system then refuses the place, which is not a fault of the disk."""
    path = tmp_path / "task.svf"
    end = saved.rindex(b"PK\x05\x06")
    later = int.from_bytes(saved[end + 16 : end + 20], "little") + 50
    for data in (
        saved[10:],
        saved[:30] + saved[60:],
        saved[: end + 16] + later.to_bytes(4, "little") + saved[end + 20 :],
        saved[: end - 20] + saved[end:],
    ):
        path.write_bytes(data)
        with pytest.raises(InputError, match="or is damaged"):
            read_task(path)


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
