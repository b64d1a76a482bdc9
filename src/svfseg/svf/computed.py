"""The weight of a factored layer as a tensor that cannot be written to without a word."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from svfseg.errors import InputError

ADVICE = (
    "the weight of a factored layer is computed from its factors: call merge_svf first, or change "
    "the factors"
)
# Names that end like a write and are none, and writes that do not.
_READS = ("requires_grad_", "retain_grad", "is_")
_WRITES = ("__setitem__", "__set__", "set_data")


class ComputedWeight(torch.Tensor):
    """A weight made at each look; a write to it would vanish, so it is refused.

    What is made of it is a plain tensor, but for views of it that share its values.
    """

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Refuse writes; pass all else on."""
        name = getattr(func, "__name__", "")
        written = args[0] if args else next(iter((kwargs or {}).values()), None)
        if isinstance(written, ComputedWeight) and _writes(name):
            raise InputError(ADVICE)
        with torch._C.DisableTorchFunctionSubclass():
            result = func(*args, **(kwargs or {}))
        owner = getattr(getattr(func, "__self__", None), "__name__", "")
        shares = name == "detach" or (name, owner) == ("__get__", "data")
        return result.as_subclass(ComputedWeight) if shares else result


def guarded(weight: Tensor) -> Tensor:
    """Give a weight that refuses writes; within compilers and transforms it stays plain."""
    if torch.compiler.is_compiling() or transforming() or torch._C._get_tracing_state() is not None:
        return weight
    return weight.as_subclass(ComputedWeight)


def transforming() -> bool:
    """Whether a transform of ``torch.func`` (grad, vmap, jvp) runs."""
    return bool(torch._C._are_functorch_transforms_active())


def _writes(name: str) -> bool:
    if name in _WRITES:
        return True
    if name.startswith("__i") and name.endswith("__") and name not in ("__invert__", "__index__",
                                                                      "__int__"):  # fmt: skip
        return True
    return name.endswith("_") and not name.endswith("__") and name not in _READS
