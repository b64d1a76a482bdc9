"""The factored layer: its weight is U diag(s) Vᵀ, of which chosen factors train.

A layer becomes factored in place, by a change of class (as in ``torch.nn.utils.parametrize``):
the object, its name, parents, hooks, mode and own attributes stay, so shared modules stay
shared and a root module can be factored too.
"""

import hashlib
from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from svfseg.errors import InputError
from svfseg.svf.cache import cached
from svfseg.svf.class_swap import mixed, rebuild, set_class
from svfseg.svf.computed import ADVICE, guarded, transforming
from svfseg.svf.factorize import Factors, factorize, recompose, unfold
from svfseg.svf.functional import (
    ROUTES,
    Factored,
    Geometry,
    Route,
    along_channels,
    autocast_device,
    expand,
    multiplications,
    positions,
    precise,
    project,
    run_plain,
)

Scale = Literal["direct", "relative"]
SCALES: tuple[Scale, ...] = ("direct", "relative")
SUBSPACES = ("S", "U", "V")

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
SUPPORTED: tuple[type[nn.Module], ...] = (*_CONVOLUTIONS, *_TRANSPOSED, nn.Linear)

_HALF = (torch.float16, torch.bfloat16)
_PREFIX = "SVF"


class FactoredLayer(nn.Module):
    """What a factored layer adds to the layer's own class (always combined with one).

    Parameters: ``U`` (groups, out / groups, rank), ``s`` (groups, rank), ``Vh`` (groups, rank,
    in / groups * kernel), and with scale "relative" ``gain`` like ``s``. The effective singular
    values are ``s`` ("direct") or ``s * gain`` with ``s`` frozen ("relative").

    The factors never lie below float32: a change of s by 1e-4 would vanish in bfloat16, and U
    and V rounded to it no longer multiply to W. A half-precision layer therefore recomposes W
    in float32 and rounds once, which gives back the weight that it had.
    """

    svf_base: type[nn.Module]
    svf_own_forward: bool
    svf_shape: tuple[int, ...]
    svf_train: str
    svf_scale: Scale
    svf_fingerprint: str
    svf_format: torch.memory_format
    svf_required_grad: dict[str, bool]
    svf_start: Tensor
    svf_route: Route = "auto"
    # (parent, name) of the normalisation behind the layer, looked up at each call: a module that
    # took its place is noticed. A tuple, so that it does not become a child of this layer.
    svf_norm: tuple[nn.Module, str] | None = None
    U: nn.Parameter
    s: nn.Parameter
    Vh: nn.Parameter
    gain: nn.Parameter
    bias: nn.Parameter | None
    groups: int

    @property
    def weight(self) -> Tensor:
        """The layer's weight U diag(s) Vᵀ in its own shape, dtype and device, differentiable.

        Code that reads ``layer.weight`` (attention blocks, weight standardisation, fused paths)
        works as before; a write to it raises, as it would change nothing.
        """
        matrices = precise(self.U, self.singular_values, self.Vh)
        matrix = unfold(matrices, self.svf_shape, is_transposed(self))
        return guarded(matrix.to(self._like.dtype))

    @property
    def singular_values(self) -> Tensor:
        """Effective singular values, (groups, rank)."""
        return self.s * self.gain if self.svf_scale == "relative" else self.s

    def forward(self, input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Compute the output of the base layer, by the route that `route_for` picks.

        A class with a forward of its own (dynamic padding, standardised weights) may use its
        weight in any way, and a half-precision layer rounds once: both get the recomposed one.
        """
        if self.svf_own_forward or self._like.dtype != self.U.dtype:
            output: Tensor = self.svf_base.forward(self, input, *args, **kwargs)
            return output
        unbatched = self.svf_shape[2:] and input.dim() == len(self.svf_shape) - 1
        x, geometry = self._prepared(input[None] if unbatched else input, *args, **kwargs)
        y = self._computed(x, geometry)
        return y[0] if unbatched else y

    def _computed(self, x: Tensor, geometry: Geometry) -> Tensor:
        norm = self.folded_norm()
        gain, shift = (None, self.bias) if norm is None else _affine(norm, self.bias)
        s = self.singular_values
        route = self.route_for(x, geometry)
        if route == "recomposed":
            weight = precise(self.U, s, self.Vh)
            if gain is not None:
                weight = weight * gain.reshape(*weight.shape[:2], 1)
            return run_plain(
                x, unfold(weight, geometry.shape, is_transposed(self)), shift, geometry
            )
        device = autocast_device(x)
        if torch.is_autocast_enabled(device):
            x = x.to(torch.get_autocast_dtype(device))
        if route == "differentiable":
            z = project(x, self.Vh, geometry) * along_channels(s, geometry)
            return expand(z, self.U, shift, geometry)
        with torch.autocast(device, enabled=False):
            y: Tensor = Factored.apply(x, s, self.U, self.Vh, gain, shift, geometry)
        return y

    def route_for(self, x: Tensor, geometry: Geometry) -> Route:
        """Choose the route for an input: the user's, or the one with the fewest multiplications.

        Trained U or V, compilers and exporters (which plan memory themselves) take the plain
        operations.
        """
        if self._needs_plain_operations():
            return "differentiable"
        if self.svf_route != "auto":
            return self.svf_route
        recording = torch.is_grad_enabled()
        counts = multiplications(
            self.U.shape[1],
            self.Vh.shape[2],
            positions(x, geometry),
            recording and x.requires_grad,
            recording and (self.s.requires_grad or self.svf_scale == "relative"),
        )
        return min(counts, key=counts.__getitem__)

    def folded_norm(self) -> nn.Module | None:
        """Give the normalisation that this layer computes along with its own output, if any.

        See `svfseg.svf.fusion.fuse`: both ask, and get the same answer.
        """
        if self.svf_norm is None or self._needs_plain_operations():
            return None
        parent, name = self.svf_norm
        norm = parent._modules.get(name)
        watched = (self._forward_hooks, self._backward_hooks, self._backward_pre_hooks)
        if norm is None or not can_fold(norm) or any(watched):
            return None
        return norm

    def _needs_plain_operations(self) -> bool:
        return (
            self.svf_route == "differentiable"
            or transforming()
            or self.U.requires_grad
            or self.Vh.requires_grad
            or torch.compiler.is_compiling()
        )

    def _prepared(
        self, input: Tensor, output_size: list[int] | None = None
    ) -> tuple[Tensor, Geometry]:
        """The input, padded where the layer's padding is not plain zeros, and the geometry."""
        layer: Any = self
        shape = self.svf_shape
        if isinstance(self, nn.Linear):
            return input, Geometry("linear", shape)
        if is_transposed(self):
            extra_padding = layer._output_padding(
                input,
                output_size,
                layer.stride,
                layer.padding,
                layer.kernel_size,
                len(shape) - 2,
                layer.dilation,
            )
            return input, Geometry(
                "transposed", shape, layer.groups, layer.stride, layer.padding, layer.dilation,
                tuple(extra_padding),
            )  # fmt: skip
        padding = layer.padding
        if layer.padding_mode != "zeros" or isinstance(padding, str):
            mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
            input = F.pad(input, layer._reversed_padding_repeated_twice, mode=mode)
            padding = (0,) * len(shape[2:])
        return input, Geometry("conv", shape, layer.groups, layer.stride, padding, layer.dilation)

    def register_parameter(self, name: str, param: nn.Parameter | None) -> None:
        """Add a parameter other than the weight: pruning and the like work on plain layers.

        Raises:
            InputError: the name is the weight's.
        """
        if name.startswith("weight"):
            raise InputError(ADVICE)
        super().register_parameter(name, param)

    def factors(self) -> Factors:
        """Give U, effective s and Vh, detached."""
        return Factors(self.U.detach(), self.singular_values.detach(), self.Vh.detach())

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        """Keep the factors at float32 or more under ``.half()``, ``.bfloat16()``, ``.to``."""
        own = [self._parameters[name] for name in factor_names(self)] + [self.svf_start]
        wide = {id(t) for p in own if p is not None for t in (p, p.grad) if t is not None}

        def move(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            if id(tensor) in wide and moved.dtype in _HALF:
                return tensor.to(moved.device)
            return moved

        return super()._apply(move, recurse)  # type: ignore[no-untyped-call]

    def extra_repr(self) -> str:
        """Describe the base layer and its factors."""
        groups, rank = self.s.shape
        base = self.svf_base.extra_repr(self)
        return f"{base}, groups of factors={groups}, rank={rank}, trained={self.svf_train}"

    def __reduce_ex__(self, protocol: Any) -> Any:
        # The class is made at run time and has no importable name; its base has one.
        return rebuild, (FactoredLayer, self.svf_base, _PREFIX), self.__dict__

    @property
    def _like(self) -> Tensor:
        """An empty tensor that carries the dtype and device of the weight through ``.to``."""
        like: Any = self._buffers["svf_like"]
        tensor: Tensor = like
        return tensor


def can_fold(norm: nn.Module) -> bool:
    """Whether a normalisation is, now, a fixed scale and shift per channel without hooks."""
    return (
        getattr(norm, "svf_conv", None) is not None
        and not norm.training
        and isinstance(norm.running_mean, Tensor)
        and not any(p.requires_grad for p in norm._parameters.values() if p is not None)
        and not (norm._forward_hooks or norm._forward_pre_hooks)
        and not (norm._backward_hooks or norm._backward_pre_hooks)
    )


def _affine(norm: nn.Module, bias: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    """A frozen normalisation of x + bias as gain * x + shift."""
    layer: Any = norm
    gain = (layer.running_var + layer.eps).rsqrt()
    if layer.weight is not None:
        gain = gain * layer.weight
    mean = layer.running_mean if bias is None else layer.running_mean - bias
    shift = -mean * gain if layer.bias is None else layer.bias - mean * gain
    return gain, shift


def weight_of(layer: nn.Module) -> Tensor:
    """Give the weight of a layer that has one.

    Raises:
        TypeError: it has none.
    """
    weight = layer.weight
    if not isinstance(weight, Tensor):
        raise TypeError(f"{type(layer).__name__} has no weight")
    return weight


def groups_of(layer: nn.Module) -> int:
    """Give the number of groups of a layer: 1 for all but grouped convolutions."""
    return layer.groups if isinstance(layer, _ConvNd) else 1


def is_transposed(layer: nn.Module) -> bool:
    """Whether the layer is a transposed convolution, whose weight is (in, out / groups, kernel)."""
    return isinstance(layer, _TRANSPOSED)


def factor_names(layer: FactoredLayer) -> tuple[str, ...]:
    """Name the parameters that stand for the weight."""
    return ("U", "s", "Vh", "gain") if layer.svf_scale == "relative" else ("U", "s", "Vh")


def trained_names(train: str, scale: Scale) -> tuple[str, ...]:
    """Name the parameters that ``train`` (letters of S, U, V) lets train."""
    names = {"S": "gain" if scale == "relative" else "s", "U": "U", "V": "Vh"}
    return tuple(names[letter] for letter in SUBSPACES if letter in train)


def factorize_layer(layer: nn.Module) -> Factors:
    """Factor the weight of a supported layer, one decomposition per group, for `install`.

    Computed in float64, rounded to the weight's precision but not below float32; those of a
    weight met before come from a cache on disk (see `svfseg.svf.cache.cached`).
    """
    weight, groups, transposed = weight_of(layer), groups_of(layer), is_transposed(layer)
    dtype = torch.float32 if weight.dtype in _HALF else weight.dtype
    setting = f"groups {groups} transposed {transposed}"
    return cached(weight, setting, dtype, lambda: factorize(weight, groups, transposed))


def fingerprint(layer: nn.Module) -> str:
    """Hash dtype, shape and every bit of the weight and bias to 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for name in ("weight", "bias"):
        tensor = layer._parameters.get(name)
        if tensor is not None:
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            flat = tensor.detach().cpu().contiguous().reshape(-1)
            digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def install(layer: nn.Module, factors: Factors, train: str, scale: Scale, digest: str) -> None:
    """Turn a plain layer into a factored one, in place.

    Args:
        layer: an instance of one of `SUPPORTED`.
        factors: factors of `factorize_layer`.
        train: the letters of the subspaces that train, of "S", "U", "V".
        scale: "direct" trains s, "relative" a gain on s that starts at 1.
        digest: the `fingerprint` of the layer as it was.
    """
    weight = layer._parameters.pop("weight")
    assert weight is not None
    bias = layer._parameters.get("bias")
    dtype = torch.float32 if weight.dtype in _HALF else weight.dtype
    values = {"U": factors.U, "s": factors.s, "Vh": factors.Vh}
    if scale == "relative":
        values["gain"] = torch.ones_like(factors.s)
    layer.svf_base = type(layer)  # type: ignore[assignment]
    layer.svf_own_forward = _has_own_forward(type(layer))  # type: ignore[assignment]
    layer.svf_shape = tuple(weight.shape)  # type: ignore[assignment]
    layer.svf_train = train  # type: ignore[assignment]
    layer.svf_scale = scale  # type: ignore[assignment]
    layer.svf_fingerprint = digest  # type: ignore[assignment]
    layer.svf_format = _format_of(weight)  # type: ignore[assignment]
    layer.svf_required_grad = {  # type: ignore[assignment]
        name: p.requires_grad for name, p in (("weight", weight), ("bias", bias)) if p is not None
    }
    trained = trained_names(train, scale)
    for name, value in values.items():
        tensor = value.to(device=weight.device, dtype=dtype).contiguous()
        layer.register_parameter(name, nn.Parameter(tensor, requires_grad=name in trained))
    # Both are functions of the base weight: not part of the state that is saved.
    start = factors.s.to(device=weight.device, dtype=dtype, copy=True)
    layer.register_buffer("svf_start", start, persistent=False)
    layer.register_buffer("svf_like", weight.detach().new_empty(0), persistent=False)
    if bias is not None:
        bias.requires_grad_(False)
    layer.__class__ = mixed(FactoredLayer, type(layer), _PREFIX)


def _format_of(weight: Tensor) -> torch.memory_format:
    """How a weight lies in memory, which is so again after the merge."""
    last = {4: torch.channels_last, 5: torch.channels_last_3d}.get(weight.dim())
    if last is None or weight.is_contiguous() or not weight.is_contiguous(memory_format=last):
        return torch.contiguous_format
    return last


def uninstall(layer: FactoredLayer) -> None:
    """Turn a factored layer back into a plain one of its original class, in place."""
    with torch.no_grad():
        factors = Factors(*(f.double() if f.device.type != "mps" else f for f in layer.factors()))
        weight = unfold(recompose(factors), layer.svf_shape, is_transposed(layer))
        weight = weight.to(device=layer._like.device, dtype=layer._like.dtype)
        weight = weight.contiguous(memory_format=layer.svf_format)
    required = layer.svf_required_grad
    bias = layer._parameters.pop("bias", None)
    for name in (*factor_names(layer), "svf_start", "svf_like"):
        delattr(layer, name)
    set_class(layer, layer.svf_base)
    for name in [n for n in vars(layer) if n.startswith("svf_")]:
        delattr(layer, name)
    # the plain layer's order: weight, then bias
    layer.register_parameter("weight", nn.Parameter(weight, requires_grad=required["weight"]))
    if bias is not None:
        bias.requires_grad_(required["bias"])
    layer.register_parameter("bias", bias)


def set_route(model: nn.Module, route: Route) -> nn.Module:
    """Choose how the factored layers of a model compute; see `svfseg.svf.functional`.

    Args:
        model: with factored layers, or one itself.
        route: "auto" counts the multiplications for each layer and input; "factored",
            "recomposed" and "differentiable" (second derivatives, ``torch.func``) are for all.

    Returns:
        The same model.

    Raises:
        InputError: no such route, or no factored layer.

    Example:
        >>> import torch
        >>> from svfseg import apply_svf, set_route
        >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.Conv2d(8, 4, 1))
        >>> _ = apply_svf(net)
        >>> set_route(net, "factored") is net
        True
    """
    if route not in ROUTES:
        raise InputError(f"route is {route!r}: expected one of {', '.join(ROUTES)}")
    layers = list(factored_layers(model))
    if not layers:
        raise InputError(f"{type(model).__name__} has no factored layer: call apply_svf first")
    for _, layer in layers:
        layer.svf_route = route
    return model


def factored_layers(model: nn.Module) -> Iterable[tuple[str, FactoredLayer]]:
    """List (dotted name, layer) of every factored layer, each once, in the model's order."""
    for name, module in model.named_modules():
        if isinstance(module, FactoredLayer):
            yield name, module


def _has_own_forward(base: type[nn.Module]) -> bool:
    standard = next(kind for kind in SUPPORTED if issubclass(base, kind))
    methods = ("forward",) if standard is nn.Linear else ("forward", "_conv_forward")
    if issubclass(base, _TRANSPOSED):
        methods = ("forward", "_output_padding")
    return any(getattr(base, m) is not getattr(standard, m) for m in methods)
