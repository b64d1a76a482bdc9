"""Compute a factored layer: the operations of each route, and the function that stores z.

Three routes give the same output and the same gradients:

- factored: y = U (s * (V x)), through a function of its own that keeps only z = V x for the
  backward pass. U and V are frozen, so no layer input is needed for a weight's gradient, and
  dL/ds = sum over positions of z * (Uᵀ dL/dy);
- recomposed: W = U diag(s) Vᵀ is built, and the plain layer runs on it;
- differentiable: the three operations of the paper in plain PyTorch, which trains U and V too,
  and has second derivatives.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from svfseg.svf.factorize import Factors, recompose, unfold

Route = Literal["auto", "factored", "recomposed", "differentiable"]
ROUTES: tuple[Route, ...] = ("auto", "factored", "recomposed", "differentiable")

_CONV: dict[int, Callable[..., Tensor]] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TRANSPOSED: dict[int, Callable[..., Tensor]] = {
    1: F.conv_transpose1d,
    2: F.conv_transpose2d,
    3: F.conv_transpose3d,
}


class Geometry(NamedTuple):
    """The layer around V: what a convolution needs besides its input and weight.

    Attributes:
        kind: "linear", "conv" or "transposed".
        shape: shape of the layer's weight.
        groups: number of groups of the layer, and so of its factors.
        stride: for each dimension; like the others, unused for a linear layer.
        padding: zeros at both ends of each dimension.
        dilation: for each dimension.
        output_padding: output padding of a transposed convolution, for each dimension.
    """

    kind: Literal["linear", "conv", "transposed"]
    shape: tuple[int, ...]
    groups: int = 1
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    output_padding: tuple[int, ...] = ()

    @property
    def kernel(self) -> tuple[int, ...]:
        """Size of the kernel; empty for a linear layer."""
        return self.shape[2:]


def run_plain(x: Tensor, weight: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """Run the plain layer on a weight in its own layout."""
    g, dims = geometry, len(geometry.kernel)
    if g.kind == "linear":
        return F.linear(x, weight, bias)
    if g.kind == "transposed":
        arguments = (g.output_padding, g.groups, g.dilation)
        return _TRANSPOSED[dims](x, weight, bias, g.stride, g.padding, *arguments)
    return _CONV[dims](x, weight, bias, g.stride, g.padding, g.dilation, g.groups)


def project(x: Tensor, Vh: Tensor, geometry: Geometry) -> Tensor:
    """Give z = V x: the layer itself, with Vh (groups, rank, in / groups * kernel) as its weight.

    Returns:
        (batch, groups * rank, *size), or (..., rank) for a linear layer.
    """
    return run_plain(x, _as_weight(Vh, geometry), None, geometry)


def project_back(t: Tensor, Vh: Tensor, geometry: Geometry, size: tuple[int, ...]) -> Tensor:
    """Compute Vᵀ t: the transpose of `project`, for an input of ``size``."""
    V = _as_weight(Vh, geometry)
    return t @ V if geometry.kind == "linear" else _input_gradient(t, V, geometry, size)


def _input_gradient(t: Tensor, weight: Tensor, g: Geometry, size: tuple[int, ...]) -> Tensor:
    """A convolution's gradient for its input: torch's own kernel, which needs no input."""
    dims = len(g.kernel)
    # only its size and layout are read; on a CPU, memory that is never touched costs nothing
    last = torch.channels_last if dims == 2 else torch.channels_last_3d
    layout = last if dims > 1 and t.is_contiguous(memory_format=last) else torch.contiguous_format
    input = torch.empty(size, dtype=t.dtype, device=t.device, memory_format=layout)
    rest = list(g.output_padding) or [0] * dims
    dx: Tensor = torch.ops.aten.convolution_backward(
        t, input, weight, None, list(g.stride), list(g.padding), list(g.dilation),
        g.kind == "transposed", rest, g.groups, [True, False, False],
    )[0]  # fmt: skip
    return dx


def _as_weight(Vh: Tensor, geometry: Geometry) -> Tensor:
    groups, rank = Vh.shape[:2]
    if geometry.kind == "linear":
        return Vh[0]
    if geometry.kind == "transposed":
        shape = (geometry.shape[0], rank, *geometry.kernel)
        return unfold(Vh, shape, transposed=True)
    return Vh.reshape(groups * rank, *geometry.shape[1:])


def expand(z: Tensor, U: Tensor, bias: Tensor | None, geometry: Geometry) -> Tensor:
    """Compute U z + bias, position by position, with U (groups, out / groups, rank)."""
    groups, out, rank = U.shape
    if geometry.kind == "linear":
        return F.linear(z, U[0], bias)
    ones = [1] * len(geometry.kernel)
    if out == rank == 1:  # depthwise: a number a channel
        scaled = z * U.reshape(-1, *ones)
        return scaled if bias is None else scaled.add_(bias.reshape(-1, *ones))
    return _CONV[len(ones)](z, U.reshape(groups * out, rank, *ones), bias, groups=groups)


def expand_back(dy: Tensor, U: Tensor, geometry: Geometry) -> Tensor:
    """Compute Uᵀ dy: the transpose of `expand`."""
    groups, out, rank = U.shape
    if geometry.kind == "linear":
        return dy @ U[0]
    ones = [1] * len(geometry.kernel)
    if out == rank == 1:
        return dy * U.reshape(-1, *ones)
    weight = U.reshape(groups * out, rank, *ones)
    dims = len(ones)
    pointwise = Geometry("conv", tuple(weight.shape), groups, (1,) * dims, (0,) * dims, (1,) * dims)
    size = (dy.shape[0], groups * rank, *dy.shape[2:])
    return _input_gradient(dy, weight, pointwise, size)


def precise(U: Tensor, s: Tensor, Vh: Tensor) -> Tensor:
    """Compute `recompose` in the factors' own precision, under autocast too."""
    with torch.autocast(autocast_device(U), enabled=False):
        return recompose(Factors(U, s, Vh))


def autocast_device(tensor: Tensor) -> str:
    """Name the device type to ask about autocast; tensors without data have none of their own."""
    kind = tensor.device.type
    return kind if torch.amp.is_autocast_available(kind) else "cpu"


def along_channels(values: Tensor, geometry: Geometry) -> Tensor:
    """Reshape a tensor of (groups, rank) so that it multiplies z along its channels."""
    return (
        values.flatten()
        if geometry.kind == "linear"
        else values.reshape(-1, *[1] * len(geometry.kernel))
    )


class Factored(torch.autograd.Function):
    """y = g * (U (s * (V x))) + shift, keeping z = V x and nothing else of the activations.

    Gradients reach x, s and shift. ``gain`` is a frozen normalisation's factor on each output
    channel, or None.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        s: Tensor,
        U: Tensor,
        Vh: Tensor,
        gain: Tensor | None,
        shift: Tensor | None,
        geometry: Geometry,
    ) -> Tensor:
        """Compute y; a cast to a lower precision (autocast) happens here, weight by weight."""
        dtype = x.dtype
        z = project(x, Vh.to(dtype), geometry)
        left = U * s.unsqueeze(1)
        if gain is not None:
            left.mul_(gain.reshape(*U.shape[:2], 1))
        shift = None if shift is None else shift.to(dtype)
        ctx.geometry, ctx.size = geometry, tuple(x.shape)
        ctx.save_for_backward(z if ctx.needs_input_grad[1] else None, s, U, Vh, gain)
        return expand(z, left.to(dtype), shift, geometry)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        """Give dL/dx and dL/ds."""
        if torch.is_grad_enabled():
            raise RuntimeError(
                "a second derivative (create_graph, torch.func.grad) through a factored layer: its "
                'function stores too little; call set_route(model, "differentiable") first'
            )
        z, s, U, Vh, gain = ctx.saved_tensors
        geometry: Geometry = ctx.geometry
        t = expand_back(dy, _gained(U, gain).to(dy.dtype), geometry)
        dx = ds = dshift = None
        if ctx.needs_input_grad[1]:
            ds = _per_channel(z.to(s.dtype) * t, geometry).reshape(s.shape)
        if ctx.needs_input_grad[5]:  # a bias that somebody trains as well
            dshift = _per_channel(dy.to(s.dtype), geometry)
        if ctx.needs_input_grad[0]:
            t.mul_(along_channels(s, geometry).to(t.dtype))
            dx = project_back(t, Vh.to(t.dtype), geometry, ctx.size)
        return dx, ds, None, None, None, dshift, None


def _per_channel(values: Tensor, geometry: Geometry) -> Tensor:
    """Sum over all but the channels."""
    channels = values.dim() - 1 if geometry.kind == "linear" else 1
    rest = [d for d in range(values.dim()) if d != channels]
    return values.sum(rest) if rest else values


def _gained(U: Tensor, gain: Tensor | None) -> Tensor:
    return U if gain is None else U * gain.reshape(*U.shape[:2], 1)


def positions(x: Tensor, geometry: Geometry) -> int:
    """Count the positions that the layer's output is computed for, batch included."""
    if geometry.kind == "linear":
        return x.numel() // max(1, x.shape[-1])
    count = x.shape[0]
    sizes = x.shape[-len(geometry.kernel) :]
    for had, s, p, d, k in zip(
        sizes, geometry.stride, geometry.padding, geometry.dilation, geometry.kernel, strict=True
    ):
        spread = d * (k - 1) + 1
        if geometry.kind == "conv":
            count *= (had + 2 * p - spread) // s + 1
        else:
            count *= (had - 1) * s - 2 * p + spread
    return count


def multiplications(
    height: int, width: int, positions: int, input_grad: bool, value_grad: bool
) -> dict[Route, int]:
    """Count the multiplications of one forward and backward pass by route, for one group.

    Args:
        height: outputs of the group.
        width: inputs of the group, times the kernel.
        positions: where the output is computed, batch included.
        input_grad: whether the input needs its gradient.
        value_grad: whether the singular values need theirs.
    """
    rank, elements = min(height, width), height * width
    backward = input_grad or value_grad
    factored = rank * (width + height + (height if backward else 0) + (width if input_grad else 0))
    recomposed = elements * (1 + input_grad + value_grad)
    building = rank * elements * (1 + value_grad)  # W, and dL/dW brought back to s
    return {
        "factored": positions * factored,
        "recomposed": positions * recomposed + building,
    }
