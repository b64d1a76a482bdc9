"""Files that release 0.1.0 wrote are still read, and mean what they meant."""

import importlib.util
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from svfseg import FewShotSegmenter, load_adapter
from svfseg.errors import InputError
from svfseg.tuning.checkpoint import load_run

FOLDER = Path(__file__).parent / "fixtures" / "format1"
EXPECTED = np.load(FOLDER / "expected.npz")


@pytest.fixture(scope="module")
def make():
    """The script that wrote the files."""
    spec = importlib.util.spec_from_file_location("make_format1", FOLDER / "make.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_an_adapter(make) -> None:
    model = make.network()
    model.requires_grad_(False)
    load_adapter(model, FOLDER / "adapter")
    with torch.no_grad():
        again = model(make.pixels()).numpy()
    assert np.allclose(again, EXPECTED["adapter"], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("adapt", ["none", "svf", "norm", "lora"])
def test_a_task(adapt: str) -> None:
    segmenter = FewShotSegmenter.load(FOLDER / f"{adapt}.svf", device="cpu")
    mask = segmenter.predict(FOLDER / "photo2.png").mask
    expected = EXPECTED[f"task {adapt}"]
    assert expected.mean() > 0.1
    # the same outline, no longer shifted to the upper left
    shared, joined = (mask & expected).sum(), (mask | expected).sum()
    assert shared / joined > 0.8
    assert mask.mean() == pytest.approx(expected.mean(), rel=0.05)


@pytest.mark.parametrize("name", ["dense_svf", "dense_norm", "dense_own_weights"])
def test_a_run(make, name: str) -> None:
    model, _ = load_run(FOLDER / name)
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., 16:40, 16:40] = 1
    query = make.pixels(64)
    with torch.no_grad():
        again = model(query, query[:, None].flip(-1), mask)[:, :, ::4, ::4].numpy()
    # the weights are those that were stored; the comparison is that of today
    expected = EXPECTED[f"run {name}"]
    assert np.corrcoef(again[:, 1].ravel(), expected[:, 1].ravel())[0, 1] > 0.7


def later_adapter(folder: Path) -> None:
    """An adapter of a format that this version does not know."""
    shutil.copytree(FOLDER / "adapter", folder / "adapter")
    path = folder / "adapter" / "adapter.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 99}))
    load_adapter(torch.nn.Conv2d(3, 4, 1), folder / "adapter")


def later_task(folder: Path) -> None:
    """A task of such a format."""
    path = folder / "later.svf"
    with zipfile.ZipFile(FOLDER / "none.svf") as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "task.json":
                content = json.dumps({**json.loads(content), "format": 99}).encode()
            new.writestr(name, content)
    FewShotSegmenter.load(path, device="cpu")


def later_run(folder: Path) -> None:
    """A run of such a format."""
    shutil.copytree(FOLDER / "dense_norm", folder / "run")
    path = folder / "run" / "best" / "checkpoint.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 99}))
    load_run(folder / "run")


@pytest.mark.parametrize("read", [later_adapter, later_task, later_run])
def test_a_file_of_an_unknown_format_is_refused_in_one_line(
    read: Callable[[Path], None], tmp_path: Path
) -> None:
    with pytest.raises(InputError) as error:
        read(tmp_path)
    message = str(error.value)
    assert "\n" not in message
    assert "format 99" in message  # what was found
    assert "1" in message.partition("format 99")[2]  # what was expected
    assert message.endswith("update svfseg")  # what to do
    assert str(tmp_path) in message
