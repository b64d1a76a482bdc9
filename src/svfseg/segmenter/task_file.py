"""A fitted task as one file: a zip of settings, the supports' views, and what was tuned."""

import io
import json
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import safetensors
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from svfseg.errors import InputError, MissingFileError
from svfseg.files import replace_file
from svfseg.segmenter.adaptation import Adapted, frozen_copy, start, tuning_of
from svfseg.svf import load_adapter, save_adapter
from svfseg.svf.layers import factored_layers

FORMAT = 1
ABOUT, VIEWS, TUNED, ADAPTER = "task.json", "views.safetensors", "tuned.safetensors", "adapter"


@dataclass(frozen=True)
class Task:
    """What a file holds.

    Attributes:
        about: settings and figures, plain data.
        views: class id -> one dict of tensors a support.
        strategy: what the backbone was tuned with; None if it was not.
        steps: of that tuning.
        lr: of it.
    """

    about: dict[str, Any]
    views: dict[int, list[dict[str, Tensor]]]
    strategy: str | None = None
    steps: int = 0
    lr: float = 0.0


def save_task(
    path: Path,
    about: Mapping[str, Any],
    views: Mapping[int, Sequence[Any]],
    adapted: Adapted | None,
) -> Path:
    """Write a task; a file that is there is replaced as a whole.

    Args:
        path: of the file.
        about: plain data.
        views: class id -> its supports' views (named tuples of tensors).
        adapted: what was tuned.

    Raises:
        OSError: writing failed; what was at the path is still there.
    """
    halves = {
        f"{class_id}/{number}/{name}": tensor.detach().cpu().half().contiguous()
        for class_id, shots in views.items()
        for number, view in enumerate(shots)
        for name, tensor in view._asdict().items()
    }
    tuned = None if adapted is None else adapted.config.strategy
    whole = {
        "format": FORMAT,
        **about,
        "strategy": tuned,
        "steps": 0 if adapted is None else adapted.steps,
        "lr": 0.0 if adapted is None else adapted.lr,
    }
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(ABOUT, json.dumps(whole, indent=1) + "\n")
        file.writestr(VIEWS, save_tensors(halves))
        if adapted is not None:
            for name, data in _tuned_files(adapted).items():
                file.writestr(name, data)
    with replace_file(path) as fresh:
        fresh.write_bytes(content.getvalue())
    return path


def rename_classes(path: Path, names: Sequence[str]) -> None:
    """Give the classes of a task other names, in their order; all else stays as it is.

    Raises:
        MissingFileError: no such file.
        InputError: another number of classes.
    """
    task = read_task(path)
    old = task.about["classes"]
    if len(old) != len(names):
        raise InputError(f"{path} has {len(old)} classes, not {len(names)}")
    shots = task.about["supports"]
    supports = {new: shots[name] for name, new in zip(old, names, strict=True)}
    about = {**task.about, "classes": list(names), "supports": supports}
    content = io.BytesIO()
    with zipfile.ZipFile(path) as file, zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as to:
        for part in file.namelist():
            kept = json.dumps(about, indent=1) + "\n" if part == ABOUT else file.read(part)
            to.writestr(part, kept)
    with replace_file(path) as fresh:
        fresh.write_bytes(content.getvalue())


def _tuned_files(adapted: Adapted) -> dict[str, bytes]:
    backbone = cast(nn.Module, adapted.model.backbone)
    if any(True for _ in factored_layers(backbone)):
        with tempfile.TemporaryDirectory() as folder:
            files = save_adapter(backbone, Path(folder) / ADAPTER)
            return {f"{ADAPTER}/{f.name}": f.read_bytes() for f in files.iterdir()}
    tensors = {
        name: parameter.detach().cpu().contiguous()
        for name, parameter in backbone.named_parameters()
        if parameter.requires_grad
    }
    return {TUNED: save_tensors(tensors)}


def read_task(path: Path) -> Task:
    """The settings and views of a task file.

    Raises:
        MissingFileError: no such file.
        InputError: not a task, damaged, or of another format.
    """
    if not path.is_file():
        raise MissingFileError(f"no task at {path}: expected a file of 'svfseg fit'")
    try:
        with zipfile.ZipFile(path) as file:
            about = json.loads(file.read(ABOUT))
            tensors = load_tensors(file.read(VIEWS))
    except (zipfile.BadZipFile, KeyError, ValueError, safetensors.SafetensorError) as error:
        raise InputError(
            f"{path} is no task of svfseg, or damaged ({' '.join(str(error).split())})"
        ) from error
    if about.get("format") != FORMAT:
        raise InputError(
            f"{path} has task format {about.get('format')}, expected {FORMAT}: update svfseg"
        )
    views: dict[int, list[dict[str, Tensor]]] = {}
    for key in sorted(tensors, key=lambda k: tuple(map(int, k.split("/")[:2]))):
        class_id, number, name = key.split("/")
        shots = views.setdefault(int(class_id), [])
        if len(shots) <= int(number):
            shots.append({})
        shots[-1][name] = tensors[key].float()
    return Task(about, views, about["strategy"], about["steps"], about["lr"])


def restore_adapted(path: Path, task: Task, base: nn.Module) -> Adapted | None:
    """The model of a task as it was tuned, from the base model.

    Raises:
        InputError: the file is damaged, or the base weights are not its own.
    """
    if task.strategy is None:
        return None
    try:
        with zipfile.ZipFile(path) as file, tempfile.TemporaryDirectory() as folder:
            if f"{ADAPTER}/adapter.json" in file.namelist():
                for name in ("adapter.json", "adapter.safetensors"):
                    file.extract(f"{ADAPTER}/{name}", folder)
                model = frozen_copy(base)
                load_adapter(cast(nn.Module, model.backbone), Path(folder) / ADAPTER)
            else:
                tensors = load_tensors(file.read(TUNED))
                model = start(base, task.strategy)
                own = dict(cast(nn.Module, model.backbone).named_parameters())
                if {k: v.shape for k, v in tensors.items()} != {
                    k: p.shape for k, p in own.items() if p.requires_grad
                }:
                    raise InputError("what was tuned does not fit the model")
                with torch.no_grad():
                    for name, tensor in tensors.items():
                        own[name].copy_(tensor)
    except (zipfile.BadZipFile, KeyError, safetensors.SafetensorError) as error:
        raise InputError(f"{path} is damaged ({error})") from error
    return Adapted(model.eval(), tuning_of(task.strategy), task.steps, task.lr)
