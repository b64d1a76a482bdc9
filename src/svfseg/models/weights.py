"""Read weight files safely, and load them into a network only if they fit it."""

import argparse
import codecs
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from svfseg.errors import InputError, MissingFileError

# What a classifier file holds beyond the stages; everything else unexpected is an error.
_CLASSIFIER = ("fc.", "classifier.", "head.", "conv_head.", "bn2.", "norm_head.", "head_", "aux")


# Where authors put the state dict among other things.
_INNER = (
    "state_dict", "model", "model_state_dict", "model_state", "net", "network", "params",
    "params_ema", "weights",
)  # fmt: skip
# How numpy makes a number of its bytes; the function has no public name.
_NUMBER = np.float64(0).__reduce__()[0]
# What else lies in published checkpoints and does nothing when it is read: scores as numpy's
# numbers, and the words of a command line.
_PLAIN: list[Any] = [
    argparse.Namespace,
    np.dtype,
    *(type(np.dtype(kind)) for kind in ("f2", "f4", "f8", "i4", "i8", "u1", "?")),
    _NUMBER,
    (_NUMBER, "numpy.core.multiarray.scalar"),
    (_NUMBER, "numpy._core.multiarray.scalar"),
    codecs.encode,
]


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Read the tensors of a .safetensors or .pth file; an inner state dict is found.

    Raises:
        MissingFileError: no such file.
        InputError: not a weight file.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(f"no weight file at {path}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with torch.serialization.safe_globals(_PLAIN):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise InputError(
            f"{path} is not a weight file that can be read safely ({type(error).__name__}): "
            "expected a state dict as .pth or .safetensors"
        ) from error
    for key in _INNER:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    tensors = {}
    for key, value in content.items() if isinstance(content, dict) else ():
        if isinstance(value, Tensor):
            tensors[str(key).removeprefix("module.")] = value
    if not tensors:
        raise InputError(f"{path} holds no tensors: expected a state dict")
    return tensors


class Stateful(Protocol):
    """What has tensors by name: a network, a head."""

    def state_dict(self) -> dict[str, Any]:
        """Give the tensors."""

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> Any:
        """Take the tensors."""


def load_weights(net: Stateful, tensors: dict[str, Tensor], source: str) -> None:
    """Load a classifier's tensors into a network without its classifier.

    Raises:
        InputError: a key is missing, unexpected or of another shape; the first ones are named.
    """
    expected = net.state_dict()
    needed = {k for k in expected if not k.endswith("num_batches_tracked")}
    missing = [k for k in expected if k in needed and k not in tensors]
    extra = [
        k
        for k in tensors
        if k not in expected
        and not k.startswith(_CLASSIFIER)
        and not k.endswith("num_batches_tracked")
    ]
    shapes = [k for k in needed if k in tensors and tensors[k].shape != expected[k].shape]
    problems = []
    if missing:
        problems.append(f"lacks {', '.join(missing[:3])}{_more(missing)}")
    if extra:
        problems.append(f"has the unknown {', '.join(extra[:3])}{_more(extra)}")
    if shapes:
        key = next(k for k in expected if k in shapes)
        actual, wanted = tuple(tensors[key].shape), tuple(expected[key].shape)
        problems.append(f"has {key} of shape {actual}, expected {wanted}{_more(shapes, 1)}")
    if problems:
        raise InputError(f"{source} does not fit the network: it {'; it '.join(problems)}")
    net.load_state_dict({k: tensors.get(k, v) for k, v in expected.items()})


def _more(keys: Sequence[str], shown: int = 3) -> str:
    return f" and {len(keys) - shown} more" if len(keys) > shown else ""


def backbone_fingerprint(backbone: Stateful) -> str:
    """Hash every tensor of a plain backbone, or of a head on it, to 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for name, tensor in backbone.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
