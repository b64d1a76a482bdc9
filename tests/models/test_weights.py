"""Checkpoints as their authors saved them, read without running what is in them."""

import argparse
from pathlib import Path

import numpy as np
import pytest
import torch

from svfseg.errors import InputError
from svfseg.models.weights import read_weights

TENSORS = {"layer0.0.weight": torch.ones(3)}


@pytest.mark.parametrize("key", ["", "state_dict", "model", "model_state", "net", "params"])
@pytest.mark.parametrize(
    "beside",
    [
        {},
        {"best_miou": np.float64(0.5), "steps": np.int64(3), "rates": np.float32(0.1)},
        {"args": argparse.Namespace(lr=0.1, layers=[1, 2])},
    ],
)
def test_the_state_dict_is_found(tmp_path: Path, key: str, beside: dict) -> None:
    content = {key: TENSORS, **beside} if key else {**TENSORS, **beside}
    torch.save(content, tmp_path / "a.pth")
    found = read_weights(tmp_path / "a.pth")
    assert found.keys() == TENSORS.keys()
    assert torch.equal(found["layer0.0.weight"], TENSORS["layer0.0.weight"])


class Trap:
    def __reduce__(self) -> tuple:
        return (Path.touch, (Path("trapped"),))


def test_nothing_in_a_file_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": TENSORS, "trap": Trap()}, "a.pth")
    with pytest.raises(InputError, match="cannot be read safely|can be read safely"):
        read_weights("a.pth")
    assert not Path("trapped").exists()
