import os
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from svfseg.segmenter import learning

# two workers share two cores
torch.set_num_threads(1)
# fitting to supports takes three steps, not hundreds; tests/segmenter/test_learning.py really fits
learning.FOLD_STEPS = learning.STEPS = 3
learning.VIEWS = 4
# a busy machine is no failure
settings.register_profile("busy", deadline=None)
settings.load_profile("busy")

SHARED = Path(__file__).resolve().parents[2] / "shared"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked shared and posix run where they can, and say so where they cannot."""
    if sys.platform == "win32":
        no_fork = pytest.mark.skip(reason="Windows has neither fork nor limits of processes")
        for item in items:
            if "posix" in item.keywords:
                item.add_marker(no_fork)
    if SHARED.is_dir():
        return
    skip = pytest.mark.skip(reason="the shared folder is not beside this checkout")
    for item in items:
        if "shared" in item.keywords:
            item.add_marker(skip)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pixel counts are remembered for the test run, not in the user's home."""
    monkeypatch.setenv("SVFSEG_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture
def voc() -> Path:
    """The VOC2012 tree of the shared folder."""
    return SHARED / "data" / "VOC2012"


@pytest.fixture
def coco_mini() -> Path:
    """200 images of COCO in its own layout."""
    return SHARED / "data" / "coco_mini"


@pytest.fixture
def parity() -> Path:
    """Inputs and outputs of the reference networks."""
    return SHARED / "parity"


os.environ.setdefault("COLUMNS", "100")
