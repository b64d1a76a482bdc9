"""Save and load the trained factors alone, bound to the base weights they belong to."""

import hashlib
import json
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from svfseg.errors import InputError, MissingFileError
from svfseg.files import parse_json, replace_folder, settle_folder
from svfseg.svf.apply import (
    Target,
    factorize_targets,
    install_targets,
    refuse_wrapped,
    select_layers,
    svf_summary,
)
from svfseg.svf.factorize import Factors, recompose
from svfseg.svf.layers import FactoredLayer, Scale, factored_layers, trained_names

FORMAT = 1
TENSORS, TABLE = "adapter.safetensors", "adapter.json"
# A probe further off than this means other singular vectors: float32 rounding of the saved
# values stays below 1e-6.
TOLERANCE = 1e-4


def save_adapter(model: nn.Module, path: str | Path) -> Path:
    """Save the trained factors of a model as a folder of two files, replaced as a whole.

    ``adapter.safetensors`` holds the trained tensors alone ("layer.s", ...), ``adapter.json`` the
    format version, the configuration, a table of the layers, and a fingerprint of each base
    weight. A probe of each trained weight lets `load_adapter` prove that it rebuilt the function.

    Args:
        model: a model with factored layers, all with the same ``train`` and ``scale``.
        path: the folder to write; an adapter that is there is replaced.

    Returns:
        The folder.

    Raises:
        InputError: no factored layer, layers of different configurations, a wrapped model
            (DataParallel, torch.compile), or the path holds something other than an adapter.
        OSError: writing failed; what was at the path is still there.

    Example:
        >>> import torch
        >>> from svfseg import apply_svf, save_adapter
        >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.Conv2d(8, 4, 1))
        >>> _ = apply_svf(net)
        >>> folder = save_adapter(net, "adapter")
        >>> sorted(file.name for file in folder.iterdir())
        ['adapter.json', 'adapter.safetensors']
    """
    path = Path(path)
    refuse_wrapped(model)
    summary = svf_summary(model)
    layers = list(factored_layers(model))
    settings = {(layer.svf_train, layer.svf_scale) for _, layer in layers}
    if len(settings) > 1:
        raise InputError(f"one adapter has one configuration: found {sorted(settings)}")
    if path.exists() and not (path / TABLE).is_file():
        raise InputError(f"{path} exists and is not an adapter: choose another path")
    ((train, scale),) = settings
    tensors = {
        f"{name}.{part}" if name else part: getattr(layer, part).detach().cpu().contiguous()
        for name, layer in layers
        for part in trained_names(train, scale)
    }
    content = save_tensors(tensors)
    rows = [
        {
            "name": row.name,
            "type": row.type,
            "shape": list(row.shape),
            "groups": row.groups,
            "base": layer.svf_fingerprint,
            "probe": float(f"{_probe(layer.factors()):.9g}"),
        }
        for row, (_, layer) in zip(summary.layers, layers, strict=True)
    ]
    table = {
        "format": FORMAT,
        "method": "svf",
        "train": train,
        "scale": scale,
        "tensors": hashlib.sha256(content).hexdigest(),
        "layers": rows,
    }
    head = json.dumps({k: v for k, v in table.items() if k != "layers"}, indent=1)
    lines = ",\n  ".join(json.dumps(row) for row in rows)
    text = f'{head[:-2]},\n "layers": [\n  {lines}\n ]\n}}\n'
    with replace_folder(path) as folder:
        (folder / TENSORS).write_bytes(content)
        (folder / TABLE).write_text(text)
    return path


def load_adapter(model: nn.Module, path: str | Path) -> nn.Module:
    """Factor the layers of a model as a saved adapter says, and give them its values.

    Every check comes before the first change: on an error the model is as it was.

    Args:
        model: the base model with the base weights the adapter was trained on; plain, or factored
            with the adapter's own settings, its singular values as they were at the start.
        path: a folder written by `save_adapter`.

    Returns:
        The same model, factored.

    Raises:
        MissingFileError: no adapter at the path.
        InputError: the files are damaged or of another format version, the architecture or the
            base weights differ, or the trained function could not be rebuilt here.

    Example:
        >>> import copy
        >>> import torch
        >>> from svfseg import apply_svf, load_adapter, save_adapter, svf_parameters
        >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.Conv2d(8, 4, 1))
        >>> base = copy.deepcopy(net)
        >>> _ = apply_svf(net)
        >>> with torch.no_grad():
        ...     _ = next(iter(svf_parameters(net))).mul_(2)
        >>> _ = load_adapter(base, save_adapter(net, "adapter"))
        >>> image = torch.rand(1, 3, 16, 16)
        >>> torch.allclose(base(image), net(image), atol=1e-4)
        True
    """
    refuse_wrapped(model)
    path = Path(path)
    table, tensors = read_adapter(path)
    names = [row["name"] for row in table["layers"]]
    modules = dict(model.named_modules())
    missing = [name for name in names if name not in modules]
    if missing:
        raise InputError(
            f"{path} belongs to another architecture: {type(model).__name__} has no layer "
            f"{missing[0]!r} ({len(missing)} of {len(names)} are missing)"
        )
    for row in table["layers"]:
        layer = modules[row["name"]]
        shape, groups = _geometry(layer)
        if (shape, groups) != (tuple(row["shape"]), row["groups"]):
            raise InputError(
                f"{path} belongs to another architecture: layer {row['name']!r} has weight "
                f"{shape} in {groups} group(s), expected {tuple(row['shape'])} in "
                f"{row['groups']}"
            )
    rows = {row["name"]: row for row in table["layers"]}
    train: str = table["train"]
    scale: Scale = table["scale"]
    factored = {name: layer for name, layer in factored_layers(model) if name in rows}
    if factored:
        targets = _factored_targets(path, factored, rows, train, scale)
    else:
        chosen = [(n, m) for n, m in select_layers(model, names) if n in rows]
        if len(chosen) != len(names):
            raise InputError(f"{path} names a layer of {type(model).__name__} twice")
        targets = factorize_targets(chosen)
    for target in targets:
        _check_target(path, target, rows[target.name], tensors, train, scale)
    if not factored:
        install_targets(targets, train, scale)
    with torch.no_grad():
        for target in targets:
            for part in trained_names(train, scale):
                getattr(target.layer, part).copy_(tensors[_key(target.name, part)])
    return model


def read_adapter(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read the table and the tensors of an adapter, checked against each other.

    Raises:
        MissingFileError: no adapter at the path.
        InputError: another format version, or files that are damaged or do not belong together.
    """
    settle_folder(path)
    if not (path / TABLE).is_file():
        raise MissingFileError(f"{path} holds no adapter ({TABLE}): give a folder of save_adapter")
    damaged = f"{path} is damaged: copy it again from where it was made"
    try:
        table = parse_json((path / TABLE).read_text())
        version = table["format"]
        rows = [
            (r["name"], r["shape"], r["groups"], r["base"], r["probe"]) for r in table["layers"]
        ]
        train, scale, digest = table["train"], table["scale"], table["tensors"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{damaged} ({TABLE} cannot be read: {error!r})") from error
    if not isinstance(train, str) or scale not in typing.get_args(Scale):
        raise InputError(f"{damaged} ({TABLE} has train {train!r:.40} and scale {scale!r:.40})")
    kinds: tuple[Any, ...] = (str, list, int, str, (int, float))  # of the five in a row
    for row in rows:
        if not all(isinstance(*pair) for pair in zip(row, kinds, strict=True)):
            raise InputError(f"{damaged} ({TABLE} has the layer {row!r:.60})")
    if version != FORMAT:
        raise InputError(
            f"{path} has adapter format {version}, this version of svfseg reads {FORMAT}: "
            "update svfseg"
        )
    if not (path / TENSORS).is_file():
        raise InputError(f"{damaged} ({TENSORS} is missing)")
    content = (path / TENSORS).read_bytes()
    if hashlib.sha256(content).hexdigest() != digest:
        raise InputError(f"{damaged} ({TENSORS} is not the file that {TABLE} describes)")
    try:
        tensors = load_tensors(content)
    except safetensors.SafetensorError as error:
        raise InputError(f"{damaged} ({error})") from error
    expected = {_key(row[0], part) for row in rows for part in trained_names(train, scale)}
    if set(tensors) != expected or not rows:
        differing = sorted(set(tensors) ^ expected)
        raise InputError(f"{damaged} ({TABLE} and {TENSORS} differ in {differing[:3]})")
    return table, tensors


def _geometry(layer: nn.Module) -> tuple[tuple[int, ...], int]:
    """Give the shape of a layer's weight and its number of groups; () for other modules."""
    if isinstance(layer, FactoredLayer):
        return layer.svf_shape, layer.s.shape[0]
    weight = layer.weight if "weight" in layer._parameters else None
    shape = tuple(weight.shape) if isinstance(weight, Tensor) else ()
    return shape, layer.groups if isinstance(layer, _ConvNd) else 1


def _factored_targets(
    path: Path,
    layers: Mapping[str, FactoredLayer],
    rows: Mapping[str, dict[str, Any]],
    train: str,
    scale: Scale,
) -> list[Target]:
    """Give layers that are factored already as `factorize_targets` gives plain ones.

    Raises:
        InputError: layers are missing, or have other settings than the adapter.
    """
    if set(layers) != set(rows):
        missing = sorted(set(rows) - set(layers))[0]
        raise InputError(f"{path} has layer {missing!r}, which is not factored in this model")
    for name, layer in layers.items():
        if (layer.svf_train, layer.svf_scale) != (train, scale):
            raise InputError(
                f"{path} trained {train!r} ({scale}), but layer {name!r} is factored to train "
                f"{layer.svf_train!r} ({layer.svf_scale})"
            )
    return [
        Target(name, layer, layer.factors(), layer.svf_fingerprint)
        for name, layer in layers.items()
    ]


def _check_target(
    path: Path,
    target: Target,
    row: dict[str, Any],
    tensors: dict[str, Tensor],
    train: str,
    scale: Scale,
) -> None:
    if target.fingerprint != row["base"]:
        raise InputError(
            f"{path} was trained on other base weights: layer {target.name!r} has fingerprint "
            f"{target.fingerprint}, expected {row['base']}; load the weights it was trained on"
        )
    values = {"U": target.factors.U, "s": target.factors.s, "Vh": target.factors.Vh}
    values["gain"] = torch.ones_like(target.factors.s)
    for part in trained_names(train, scale):
        tensor = tensors[_key(target.name, part)]
        if tensor.shape != values[part].shape:
            raise InputError(
                f"{path}: {_key(target.name, part)} has shape {tuple(tensor.shape)}, "
                f"expected {tuple(values[part].shape)}: the adapter is damaged"
            )
        values[part] = tensor.to(values[part])
    probe = _probe(Factors(values["U"], values["s"] * values["gain"], values["Vh"]))
    if not abs(probe - row["probe"]) <= TOLERANCE * max(1.0, abs(row["probe"])):
        raise InputError(
            f"{path}: layer {target.name!r} cannot be rebuilt here: its singular vectors come out "
            "otherwise than where the adapter was trained, or a value was changed; move the "
            "task as merged weights (merge_svf, state_dict) instead"
        )


def _probe(factors: Factors) -> float:
    """One number that depends on all of the trained weight: aᵀ W b over its spectral size.

    a and b are fixed pseudo-random vectors of unit length times sqrt(rank), so that a change of
    any singular triplet shows at its share of the weight.
    """
    U, s, Vh = (f.detach().cpu().double() for f in factors)
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(U.shape[:2], generator=generator, dtype=torch.float64)
    b = torch.randn(Vh.shape[0], Vh.shape[2], generator=generator, dtype=torch.float64)
    value = torch.einsum("go,goi,gi->", a, recompose(Factors(U, s, Vh)), b)
    size = s.norm().clamp_min(1e-300)
    return float(value / size)


def _key(name: str, part: str) -> str:
    return f"{name}.{part}" if name else part
