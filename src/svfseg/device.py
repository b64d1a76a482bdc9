"""Choose the device to compute on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from svfseg.errors import InputError

if TYPE_CHECKING:
    import torch

DEVICES = ("auto", "cpu", "cuda", "mps")


def resolve(name: str = "auto") -> torch.device:
    """Give the device of a name; nothing else in the process changes.

    Args:
        name: "cpu", "cuda", "mps", or "auto" for the first of CUDA, MPS and the CPU that is there.

    Raises:
        InputError: the name is unknown, or torch finds no such device.
    """
    import torch

    name = str(name)  # a torch.device as well
    if name not in DEVICES:
        raise InputError(f"device is {name}: expected one of {', '.join(DEVICES)}")
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return torch.device(next((n for n, is_there in available.items() if is_there), "cpu"))
    if not available.get(name, True):
        raise InputError(f"device is {name}, but torch finds none here: use auto or cpu")
    return torch.device(name)
