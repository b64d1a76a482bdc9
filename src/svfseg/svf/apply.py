"""Factor the layers of a model, list what trains, and merge them back."""

import difflib
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.utils import parametrize

from svfseg.errors import InputError
from svfseg.svf.factorize import Factors
from svfseg.svf.fusion import unfuse
from svfseg.svf.layers import (
    SCALES,
    SUBSPACES,
    SUPPORTED,
    FactoredLayer,
    Scale,
    factored_layers,
    factorize_layer,
    fingerprint,
    groups_of,
    install,
    is_transposed,
    trained_names,
    uninstall,
    weight_of,
)

Selection = str | Sequence[str] | None
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class LayerSummary:
    """One factored layer: its weight's shape, one decomposition per group, what trains."""

    name: str
    type: str
    shape: tuple[int, ...]
    groups: int
    rank: int
    trained: int


@dataclass(frozen=True)
class Summary:
    """What `apply_svf` did; prints as a table.

    Attributes:
        layers: the factored layers.
        left_out: names of weights that are matrices and cannot be factored, and of layers that
            another method put in, where every layer was asked for.
    """

    layers: tuple[LayerSummary, ...]
    left_out: tuple[str, ...] = ()

    @property
    def trained(self) -> int:
        """Number of trained values in all layers."""
        return sum(layer.trained for layer in self.layers)

    def __len__(self) -> int:
        return len(self.layers)

    def __iter__(self) -> Iterator[LayerSummary]:
        return iter(self.layers)

    def __str__(self) -> str:
        head = ("layer", "type", "weight", "groups", "rank", "trained")
        rows = [
            (
                layer.name or "(root)",
                layer.type,
                "x".join(map(str, layer.shape)),
                str(layer.groups),
                str(layer.rank),
                f"{layer.trained:,}",
            )
            for layer in self.layers
        ]
        rows.append(("total", f"{len(self.layers)} layers", "", "", "", f"{self.trained:,}"))
        widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
        lines = []
        for row in (head, *rows):
            left = [cell.ljust(width) for cell, width in zip(row[:3], widths[:3], strict=True)]
            right = [cell.rjust(width) for cell, width in zip(row[3:], widths[3:], strict=True)]
            lines.append("  ".join(left + right).rstrip())
        if self.left_out:
            more = f" and {len(self.left_out) - 6} more" if len(self.left_out) > 6 else ""
            lines.append(f"left as they are: {', '.join(self.left_out[:6])}{more}")
        return "\n".join(lines)


class Target(NamedTuple):
    """A selected plain layer and all that is needed to install its factors."""

    name: str
    layer: nn.Module
    factors: Factors
    fingerprint: str


def apply_svf(
    model: nn.Module,
    target_modules: Selection = None,
    exclude_modules: Selection = None,
    train: str | Iterable[str] = "S",
    scale: Scale = "direct",
    progress: Progress | None = None,
) -> Summary:
    """Factor the selected layers of a model in place, so that only chosen factors train.

    Each weight becomes U diag(s) Vᵀ (Sun et al., NeurIPS 2022): the model computes the same
    function as before, U, V and the bias are frozen, and s trains. What is not selected stays as
    it was, trainable or not: freeze it yourself where the recipe asks for it. Load the base
    weights before, build the optimizer after. Nothing changes if the call raises.

    Args:
        model: any module; convolutions (1d to 3d, transposed, grouped) and linear layers in it
            can be factored, the module itself too if it is one.
        target_modules: which layers: a regular expression matched on the whole dotted name, or a
            list of names or of last parts of names; None takes every supported layer.
        exclude_modules: layers to leave out, in the same way.
        train: which factors train: letters of "S" (singular values), "U", "V".
        scale: "direct" trains s itself; "relative" freezes it and trains a factor on it that
            starts at 1 (the paper's S = S_frozen · S_trainable).
        progress: called with (layers factored, layers in all) after each.

    Returns:
        A summary of the layers; ``print`` shows it as a table.

    Raises:
        InputError: nothing matches; a selected layer is factored already (merge first), is
            parametrized or shares its weight tensor with another layer; the model is wrapped
            (DataParallel, torch.compile); an argument is out of range.

    Example:
        >>> import torch
        >>> from svfseg import apply_svf, svf_parameters
        >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.Conv2d(8, 4, 1))
        >>> net = net.requires_grad_(False)  # what is not factored stays as it was
        >>> summary = apply_svf(net, target_modules=["0"])
        >>> summary.trained
        8
        >>> optimizer = torch.optim.SGD(svf_parameters(net), lr=0.01)
    """
    letters = _letters(train)
    if scale not in SCALES:
        raise InputError(f"scale is {scale!r}: expected one of {', '.join(SCALES)}")
    chosen = select_layers(model, target_modules, exclude_modules)
    left_out = left_as_they_are(model) if target_modules is None else ()
    install_targets(factorize_targets(chosen, progress), letters, scale)
    return replace(svf_summary(model, dict(chosen)), left_out=left_out)


def svf_parameters(model: nn.Module) -> list[nn.Parameter]:
    """List the trained parameters of all factored layers, for an optimizer's own group.

    Raises:
        InputError: the model has no factored layer.

    Example:
        >>> import torch
        >>> from svfseg import apply_svf, svf_parameters
        >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.Conv2d(8, 4, 1))
        >>> _ = apply_svf(net)
        >>> sum(parameter.numel() for parameter in svf_parameters(net))
        12
    """
    return [
        getattr(layer, name)
        for _, layer in _require_factored(model)
        for name in trained_names(layer.svf_train, layer.svf_scale)
    ]


def plan_svf(
    model: nn.Module,
    target_modules: Selection = None,
    exclude_modules: Selection = None,
    train: str | Iterable[str] = "S",
) -> Summary:
    """Show what `apply_svf` would do with the same arguments; nothing is factored or changed.

    Example:
        >>> import torch
        >>> from svfseg import plan_svf
        >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.Conv2d(8, 4, 1))
        >>> plan_svf(net).trained  # one singular value per row or column, whichever are fewer
        12
        >>> plan_svf(net, ["1"]).trained
        4
    """
    letters = _letters(train)
    rows = []
    for name, layer in select_layers(model, target_modules, exclude_modules):
        shape, groups = tuple(weight_of(layer).shape), groups_of(layer)
        height = shape[1] if is_transposed(layer) else shape[0] // groups
        width = math.prod(shape) // groups // height
        rank = min(height, width)
        sizes = {"S": rank, "U": height * rank, "V": rank * width}
        trained = groups * sum(sizes[letter] for letter in letters)
        rows.append(LayerSummary(name, type(layer).__name__, shape, groups, rank, trained))
    return Summary(tuple(rows), left_as_they_are(model) if target_modules is None else ())


def svf_summary(model: nn.Module, only: Iterable[str] | None = None) -> Summary:
    """Summarise the factored layers of a model, or those named in ``only``.

    Raises:
        InputError: the model has no factored layer.

    Example:
        >>> import torch
        >>> from svfseg import apply_svf, svf_summary
        >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.Conv2d(8, 4, 1))
        >>> _ = apply_svf(net)
        >>> svf_summary(net, only=["0"]).trained
        8
    """
    names = None if only is None else set(only)
    return Summary(
        tuple(
            LayerSummary(
                name=name,
                type=layer.svf_base.__name__,
                shape=layer.svf_shape,
                groups=layer.s.shape[0],
                rank=layer.s.shape[1],
                trained=sum(
                    getattr(layer, part).numel()
                    for part in trained_names(layer.svf_train, layer.svf_scale)
                ),
            )
            for name, layer in _require_factored(model)
            if names is None or name in names
        )
    )


def merge_svf(model: nn.Module) -> nn.Module:
    """Turn every factored layer back into a plain one of its original class, in place.

    Names, hooks, mode and ``requires_grad`` of weight and bias are those from before
    `apply_svf`; ``model.state_dict()`` loads into an untouched copy of the architecture.

    Returns:
        The same model.

    Raises:
        InputError: the model has no factored layer.

    Example:
        >>> import torch
        >>> from svfseg import apply_svf, merge_svf
        >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.Conv2d(8, 4, 1))
        >>> _ = apply_svf(net)
        >>> merge_svf(net)
        Sequential(
          (0): Conv2d(3, 8, kernel_size=(3, 3), stride=(1, 1))
          (1): Conv2d(8, 4, kernel_size=(1, 1), stride=(1, 1))
        )
    """
    layers = _require_factored(model)
    unfuse(model)
    for _, layer in layers:
        uninstall(layer)
    return model


def select_layers(
    model: nn.Module, target: Selection = None, exclude: Selection = None
) -> list[tuple[str, nn.Module]]:
    """List (dotted name, layer) of the plain layers that a selection picks, each layer once.

    Raises:
        InputError: see `apply_svf`.
    """
    refuse_wrapped(model)
    # a shared layer has several names and may be meant by any of them
    every = [
        (name, module)
        for name, module in model.named_modules(remove_duplicate=False)
        if isinstance(module, SUPPORTED)
    ]
    if not every:
        raise InputError(
            f"{type(model).__name__} has no layer that SVF can factor "
            "(convolutions, transposed convolutions, linear layers)"
        )
    if target is None:
        matched = [(n, m) for n, m in every if not _is_insert(n)]
    else:
        matched = [(n, m) for n, m in every if _matches(n, target)]
    if not matched:
        raise InputError(f"target_modules={target!r} matches no layer{_nearest(target, every)}")
    excluded = {id(m) for n, m in every if exclude is not None and _matches(n, exclude)}
    if exclude and not excluded:
        raise InputError(f"exclude_modules={exclude!r} matches no layer{_nearest(exclude, every)}")
    chosen = {id(m): (n, m) for n, m in reversed(matched) if id(m) not in excluded}
    if not chosen:
        raise InputError(f"exclude_modules={exclude!r} leaves none of the selected layers")
    selected = list(reversed(chosen.values()))
    _refuse_unfit(model, selected)
    return selected


def left_as_they_are(model: nn.Module) -> tuple[str, ...]:
    """Name the matrices that `apply_svf` leaves out where every layer is asked for.

    They are those of attention's fused projections, of recurrent and other layers that are not
    supported, and the layers that low-rank adapters put in. Tables of embeddings are no matrices.
    """
    names = []
    for place, module in model.named_modules():
        if isinstance(module, (*SUPPORTED, nn.Embedding, nn.EmbeddingBag)):
            if isinstance(module, SUPPORTED) and _is_insert(place):
                names.append(place)
            continue
        names += [
            f"{place}.{name}" if place else name
            for name, parameter in module._parameters.items()
            if parameter is not None and parameter.dim() == 2 and "weight" in name
        ]
    return tuple(names)


def _is_insert(name: str) -> bool:
    """Whether a layer is a part of a low-rank addition, as peft names them."""
    return any(part.startswith(("lora_", "vera_", "ia3_")) for part in name.split("."))


def factorize_targets(
    layers: Sequence[tuple[str, nn.Module]], progress: Progress | None = None
) -> list[Target]:
    """Factor plain layers without changing them."""
    targets: list[Target] = []
    for name, layer in layers:
        try:
            targets.append(Target(name, layer, factorize_layer(layer), fingerprint(layer)))
        except InputError as error:
            raise InputError(f"layer {name!r}: {error}") from error
        if progress is not None:
            progress(len(targets), len(layers))
    return targets


def install_targets(targets: Iterable[Target], train: str, scale: Scale) -> None:
    """Put the factors in place of the weights."""
    for target in targets:
        install(target.layer, target.factors, train, scale, target.fingerprint)


def refuse_wrapped(model: nn.Module) -> None:
    """Raise InputError for a model inside a wrapper that has its own view of the parameters."""
    wrappers = (
        nn.DataParallel,
        nn.parallel.DistributedDataParallel,
        torch.optim.swa_utils.AveragedModel,
    )
    for name, module in model.named_modules():
        if isinstance(module, wrappers) or hasattr(module, "_orig_mod"):
            kind = type(module).__name__
            where = f"at {name!r}" if name else "as the model"
            inner = "_orig_mod" if hasattr(module, "_orig_mod") else "module"
            raise InputError(
                f"found a {kind} {where}: use SVF on the plain model (its .{inner}), "
                "and wrap or compile it afterwards"
            )


def _refuse_unfit(model: nn.Module, selected: list[tuple[str, nn.Module]]) -> None:
    owners: dict[int, list[tuple[str, nn.Module]]] = {}
    for name, module in model.named_modules():
        for parameter in module._parameters.values():
            owners.setdefault(id(parameter), []).append((name, module))
    for name, layer in selected:
        if isinstance(layer, FactoredLayer):
            raise InputError(f"layer {name!r} is factored already: call merge_svf first")
        weight = layer._parameters.get("weight")
        if parametrize.is_parametrized(layer) or weight is None:
            raise InputError(
                f"the weight of layer {name!r} is computed by a parametrization (weight or "
                "spectral norm?): remove it first (torch.nn.utils.parametrize."
                "remove_parametrizations), or name the layer in exclude_modules"
            )
        if isinstance(weight, nn.UninitializedParameter) or weight.is_meta:
            raise InputError(f"layer {name!r} has no weights yet: load or initialise them first")
        if not weight.is_floating_point():
            raise InputError(f"layer {name!r} has {weight.dtype} weights: expected floating point")
        others = [owner for owner, module in owners[id(weight)] if module is not layer]
        if others:
            raise InputError(
                f"layers {name!r} and {others[0]!r} share one weight tensor: factoring one would "
                "untie them; exclude both"
            )


def _matches(name: str, selection: str | Sequence[str]) -> bool:
    if isinstance(selection, str):
        try:
            return re.fullmatch(selection, name) is not None
        except re.error as error:
            raise InputError(f"{selection!r} is not a regular expression: {error}") from error
    return any(name == wanted or name.endswith(f".{wanted}") for wanted in selection)


def _nearest(selection: Selection, layers: list[tuple[str, nn.Module]]) -> str:
    names = [name for name, _ in layers]
    wanted = [selection] if isinstance(selection, str) else list(selection or ())
    for each in wanted:
        below = [name for name in names if name.startswith(f"{each}.")]
        if below:
            return f"; {each!r} holds {len(below)} layers: {each + '[.].*'!r} matches them all"
    plain = [re.sub(r"\\|\.\*|[\^$()?+*]", "", w) for w in wanted]
    parts = {part for n in names for part in (n, n.rpartition(".")[2], n.partition(".")[0])}
    close = [c for w in plain for c in difflib.get_close_matches(w, sorted(parts), 1, 0.4)]
    if close:
        return f"; the nearest name is {close[0]!r}"
    return f"; the first of {len(names)} layers that can be factored is {names[0]!r}"


def _letters(train: str | Iterable[str]) -> str:
    letters = "".join(train)
    if not letters or set(letters) - set(SUBSPACES):
        raise InputError(f"train is {train!r}: expected one or more of the letters S, U and V")
    return "".join(letter for letter in SUBSPACES if letter in letters)


def _require_factored(model: nn.Module) -> list[tuple[str, FactoredLayer]]:
    layers = list(factored_layers(model))
    if not layers:
        raise InputError(f"{type(model).__name__} has no factored layer: call apply_svf first")
    return layers


def singular_values(model: nn.Module) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Name -> (singular values now, at the start) of every factored layer, detached."""
    return {
        name: (layer.singular_values.detach(), layer.svf_start)
        for name, layer in _require_factored(model)
    }
