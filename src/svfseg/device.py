"""Choose the device to compute on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from svfseg.errors import InputError

if TYPE_CHECKING:
    import torch

DEVICES = ("auto", "cpu", "cuda", "mps")  # and cuda:1 of several


def resolve(name: str = "auto") -> torch.device:
    """Give the device of a name; nothing else in the process changes.

    Args:
        name: "cpu", "cuda", "cuda:1" of several, "mps", or "auto" for the first of CUDA, MPS and
            the CPU that is there.

    Raises:
        InputError: the name is unknown, or torch finds no such device.
    """
    import torch

    name = str(name)  # a torch.device as well
    kind, _, number = name.partition(":")
    known = kind in DEVICES and (not number or (kind == "cuda" and number.isdecimal()))
    if not known or name.endswith(":"):
        raise InputError(
            f"device is {name}: expected one of {', '.join(DEVICES)}, or cuda:N, N a number"
        )
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return torch.device(next((n for n, is_there in available.items() if is_there), "cpu"))
    if not available.get(kind, True):
        raise InputError(f"device is {name}, but torch finds none here: use auto or cpu")
    if number and int(number) >= torch.cuda.device_count():
        raise InputError(
            f"device is {name}, but torch finds {torch.cuda.device_count()} of them, from cuda:0"
        )
    return torch.device(name)
