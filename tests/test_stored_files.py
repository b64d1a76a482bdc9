"""Files that release 0.1.0 wrote are still read, and mean what they meant."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from svfseg import FewShotSegmenter, load_adapter
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
    assert (mask != expected).mean() < 0.002


@pytest.mark.parametrize("name", ["dense_svf", "dense_norm", "dense_own_weights"])
def test_a_run(make, name: str) -> None:
    model, _ = load_run(FOLDER / name)
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., 16:40, 16:40] = 1
    query = make.pixels(64)
    with torch.no_grad():
        again = model(query, query[:, None].flip(-1), mask)[:, :, ::4, ::4].numpy()
    assert np.allclose(again, EXPECTED[f"run {name}"], atol=1e-3)
