"""A file that is not a task, in each way, is refused in one line."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save

from svfseg.errors import InputError
from svfseg.segmenter.task_file import read_task


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
