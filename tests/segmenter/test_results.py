"""Results of large images: of one strip at once, and the same as of the whole."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from svfseg import FewShotSegmenter
from svfseg.segmenter import results
from svfseg.segmenter.calibration import ClassThresholds, expected_iou, probabilities
from svfseg.segmenter.inference import ClassMaps
from svfseg.segmenter.thresholds import assign_classes
from tests.segmenter.scenes import scene


@pytest.mark.parametrize("strip", [1, 700, 5000])
def test_strips_change_nothing(strip: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "STRIP", strip)
    logits = 3 * torch.randn(2, 61, 80, generator=torch.Generator().manual_seed(0))
    rules = {1: ClassThresholds(0.4, presence=-9.0), 2: ClassThresholds(0.3, presence=9.0)}
    found = results.segment(ClassMaps(logits, (0.0, 0.0)), rules, ["a", "b"], True)
    whole = probabilities(logits, [(1.0, 0.0), (1.0, 0.0)])
    assert np.array_equal(found.probabilities, whole.half().numpy())
    assert np.array_equal(found.mask, assign_classes(whole, [0.4, 0.3], [True, False]).numpy())
    assert found.present == {"a": True, "b": False}
    assert found.confidence["a"] == round(expected_iou(whole[0], whole[0] > 0.4), 4)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc for the most that was held")
def test_memory_grows_with_the_pixels_by_little() -> None:
    """Twelve bytes a pixel for the picture and the result, and a few for what lies between."""
    one = scene(0)
    segmenter = FewShotSegmenter(size=96, seconds=0.0, device="cpu").fit([one.image], [one.mask])
    segmenter.predict(one.image)
    side = 4000
    process = os.fork()
    if not process:
        torch.set_num_threads(1)
        before = _status("VmRSS")
        segmenter.predict(np.zeros((side, side, 3), np.uint8))
        taken = _status("VmHWM") - before
        os._exit(0 if taken < 24 * side**2 else min(255, taken // side**2))
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    assert status == 0, f"{status} bytes a pixel"


def _status(key: str) -> int:
    """Bytes that the process holds (VmRSS), or has held (VmHWM)."""
    return int(Path("/proc/self/status").read_text().partition(f"{key}:")[2].split()[0]) * 1024
