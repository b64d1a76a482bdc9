"""The device's name is looked up without any effect on the rest of the process."""

import subprocess
import sys

import pytest
import torch

from svfseg.device import resolve
from svfseg.lab.runtime import make_accelerator


def test_the_names() -> None:
    assert resolve("cpu") == torch.device("cpu")
    assert resolve("auto").type in ("cpu", "cuda", "mps")
    with pytest.raises(ValueError, match="expected one of auto, cpu"):
        resolve("gpu")
    for odd in ("cuda:", "cuda:x", "cuda:-1", "cpu:1", "auto:0"):
        with pytest.raises(ValueError, match=f"device is {odd}: expected one of"):
            resolve(odd)
    with pytest.raises(ValueError, match="but torch finds"):
        resolve("cuda:97")
    with pytest.raises(ValueError, match="set CUDA_VISIBLE_DEVICES"):
        make_accelerator("cuda:1")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="torch finds none here"):
            resolve("cuda")


@pytest.mark.slow
def test_a_host_program_keeps_its_accelerate() -> None:
    """It may train in bf16 and ask for masks on its way; evaluation and training alike."""
    script = """
import numpy as np, torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from svfseg import FewShotSegmenter
from svfseg.lab.runtime import make_accelerator
host = Accelerator(cpu=True, mixed_precision="bf16", gradient_accumulation_steps=3)
image = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
mask = np.zeros((64, 64), np.uint8); mask[8:40, 8:40] = 1
FewShotSegmenter(size=65).fit(image, mask).predict(image)
assert AcceleratorState().mixed_precision == host.mixed_precision == "bf16"
try:
    make_accelerator("cpu", "fp16")
except ValueError as error:
    assert "mixed precision" in str(error).replace("_", " ").lower(), error
else:
    raise AssertionError("another precision was taken without a word")
make_accelerator("cpu", "bf16")
make_accelerator("cpu", "bf16")
assert AcceleratorState().mixed_precision == host.mixed_precision == "bf16"
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_ours_changes_from_call_to_call() -> None:
    script = """
from accelerate.state import AcceleratorState
from svfseg.lab.runtime import make_accelerator
for precision in ("no", "bf16", "no"):
    make_accelerator("cpu", precision)
    assert AcceleratorState().mixed_precision == precision
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
