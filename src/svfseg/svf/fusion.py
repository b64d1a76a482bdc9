"""Fold frozen normalisation into factored layers, and let ReLU keep bits instead of floats."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from svfseg.svf.class_swap import mixed, rebuild, set_class
from svfseg.svf.computed import transforming
from svfseg.svf.layers import FactoredLayer, can_fold

# Classes that add something after the normalisation, by name, so that their library is not
# needed: the children that they apply. timm's runs an activation.
_TAILS = {"BatchNormAct2d": ("drop", "act")}
_PACK, _BITS = 0x0102040810204080, 0x8040201008040201 - 2**64
_ONES = 0x0101010101010101


class LeanReLU(nn.Module):
    """What `fuse` makes of a ReLU or ReLU6: the same numbers; one bit per value is kept."""

    svf_base: type[nn.Module]

    def forward(self, input: Tensor) -> Tensor:
        """Rectify, in place where the module was made so."""
        plain = torch.compiler.is_compiling() or transforming()
        if plain or not (torch.is_grad_enabled() and input.requires_grad):
            output: Tensor = self.svf_base.forward(self, input)
            return output
        top = 6.0 if issubclass(self.svf_base, nn.ReLU6) else None
        y: Tensor = _Rectified.apply(input, top, self.inplace)
        return y

    def __reduce_ex__(self, protocol: Any) -> Any:
        return rebuild, (LeanReLU, self.svf_base, LeanReLU.__name__), self.__dict__


class FoldedNorm(nn.Module):
    """What `fuse` makes of a normalisation whose work the layer in front of it can do."""

    svf_base: type[nn.Module]
    svf_conv: tuple[nn.Module, str]

    def forward(self, input: Tensor) -> Tensor:
        """Normalise, unless the layer in front has done so."""
        parent, name = self.svf_conv
        layer = parent._modules.get(name)
        folded = can_fold(self) and isinstance(layer, FactoredLayer) and layer.folded_norm() is self
        if not folded:
            output: Tensor = self.svf_base.forward(self, input)
            return output
        for child in _tail(self.svf_base) or ():
            input = getattr(self, child)(input)
        return input

    def __reduce_ex__(self, protocol: Any) -> Any:
        return rebuild, (FoldedNorm, self.svf_base, FoldedNorm.__name__), self.__dict__


def fuse(model: nn.Module) -> int:
    """Make the passes around factored layers cheap, in place; outputs and gradients stay.

    Behind each factored layer whose output goes to one BatchNorm2d or 3d and nowhere else
    (found by ``torch.fx``), the normalisation is folded into the layer's U and bias for as long
    as it is in eval mode with frozen weights and neither has a forward or backward hook: the
    layer's output is then the normalised one. ReLU and ReLU6 modules keep one bit a value for
    the backward pass. `merge_svf` and `unfuse` give every module its own class back.

    Args:
        model: after `apply_svf`. Parts that ``torch.fx`` cannot trace keep their normalisations.

    Returns:
        Number of normalisations that can be folded.

    Example:
        >>> import torch
        >>> from svfseg import apply_svf, fuse
        >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8))
        >>> net = net.requires_grad_(False).eval()
        >>> _ = apply_svf(net)
        >>> fuse(net)
        1
    """
    names = Counter(id(m) for _, m in model.named_modules(remove_duplicate=False))
    pairs = [p for p in _pairs(model) if all(names[id(o._modules[n])] == 1 for o, n in p)]
    for (owner, name), (other, norm_name) in pairs:
        layer: Any = owner._modules[name]
        norm: Any = other._modules[norm_name]
        layer.svf_norm = (other, norm_name)
        norm.svf_conv = (owner, name)
        _change(norm, FoldedNorm)
    for module in list(model.modules()):
        if type(module) in (nn.ReLU, nn.ReLU6):
            _change(module, LeanReLU)
    return len(pairs)


def unfuse(model: nn.Module) -> nn.Module:
    """Undo `fuse`."""
    for module in list(model.modules()):
        if isinstance(module, FactoredLayer):
            module.__dict__.pop("svf_norm", None)
        elif isinstance(module, (FoldedNorm, LeanReLU)):
            set_class(module, module.svf_base)
            for name in ("svf_base", "svf_conv"):
                module.__dict__.pop(name, None)
    return model


class _Rectified(torch.autograd.Function):
    """max(x, 0), or min(max(x, 0), top); keeps a bit a value: whether the slope is 1."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, top: float | None, inplace: bool) -> Tensor:
        if inplace:
            ctx.mark_dirty(x)
        if top is None:
            y = x.relu_() if inplace else x.relu()
            passes = y.to(torch.bool)  # several times as fast as a comparison
        else:
            passes = (x > 0) & (x < top)
            y = x.clamp_(0, top) if inplace else x.clamp(0, top)
        ctx.layout = (passes.shape, passes.stride())
        ctx.save_for_backward(pack(passes))
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None, None]:
        (bits,) = ctx.saved_tensors
        # a product of two types is slow: convert first, then multiply in place
        return unpack(bits, *ctx.layout).to(dy.dtype).mul_(dy), None, None


def pack(mask: Tensor) -> Tensor:
    """Pack eight booleans per byte, in the order of memory.

    Args:
        mask: bool, dense in memory (as comparisons make it), any shape and strides.

    Returns:
        uint8, (numel / 8 rounded up,).
    """
    flat = mask.as_strided((mask.numel(),), (1,))
    if len(flat) % 8:
        flat = F.pad(flat, (0, -len(flat) % 8))
    # eight bytes of 0 and 1 as one word: the product gathers its bits in the top byte
    words = flat.view(torch.int64)
    return ((words * _PACK) >> 56).bitwise_and_(255).to(torch.uint8)


def unpack(bits: Tensor, shape: torch.Size, stride: tuple[int, ...]) -> Tensor:
    """Undo `pack`: uint8 of 0 and 1, of a shape and strides."""
    words = (bits.to(torch.int64) * _ONES).bitwise_and_(_BITS)
    return words.view(torch.uint8).clamp_max(1)[: shape.numel()].as_strided(shape, stride)


Place = tuple[nn.Module, str]


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        leaf = isinstance(m, (FactoredLayer, _BatchNorm))
        return leaf or super().is_leaf_module(m, module_qualified_name)


def _pairs(model: nn.Module) -> Iterator[tuple[Place, Place]]:
    """(layer, normalisation) pairs as (parent, name) each, from every part that can be traced."""
    if not any(isinstance(m, FactoredLayer) for m in model.modules()):
        return
    try:
        graph = _Tracer().trace(model)
    except Exception:  # what cannot be traced: fx raises of many kinds, the model's own among them
        for child in model.children():
            yield from _pairs(child)
        return
    calls = Counter(node.target for node in graph.nodes if node.op == "call_module")
    for node in graph.nodes:
        if node.op != "call_module" or len(node.users) != 1:
            continue
        (user,) = node.users
        if user.op != "call_module" or calls[node.target] != 1 or calls[user.target] != 1:
            continue
        layer, norm = model.get_submodule(node.target), model.get_submodule(user.target)
        if (
            isinstance(layer, FactoredLayer)
            and not layer.svf_own_forward
            # of the others, which dimension is the channels' depends on the input
            and isinstance(norm, (nn.BatchNorm2d, nn.BatchNorm3d))
            and _tail(type(norm)) is not None
        ):
            yield _place(model, node.target), _place(model, user.target)


def _place(model: nn.Module, name: str) -> Place:
    parent, _, last = name.rpartition(".")
    return model.get_submodule(parent), last


def _tail(kind: type[nn.Module]) -> tuple[str, ...] | None:
    """Children that a normalisation's class applies after normalising; None if not known."""
    if kind.forward is _BatchNorm.forward:
        return ()
    return next((_TAILS[k.__name__] for k in kind.__mro__ if k.__name__ in _TAILS), None)


def _change(module: nn.Module, kind: type[nn.Module]) -> None:
    base = type(module)
    if issubclass(base, kind):
        return
    module.svf_base = base  # type: ignore[assignment]
    module.__class__ = mixed(kind, base, kind.__name__)
