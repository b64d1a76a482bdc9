"""Store a fitted task as one zip file: settings, features of the supports, tuned weights."""

import errno
import hashlib
import io
import json
import tempfile
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from svfseg.data.index import Sample
from svfseg.errors import InputError, MissingFileError
from svfseg.files import parse_json, write_bytes
from svfseg.models import Backbone, Head
from svfseg.models.decoder import Decoder
from svfseg.segmenter.adaptation import AdaptationResult, tunable_copy, tuning_of
from svfseg.segmenter.calibration import ClassThresholds
from svfseg.segmenter.inference import Predictor
from svfseg.segmenter.parameters import LARGEST, LEAST
from svfseg.svf import load_adapter, save_adapter
from svfseg.tuning.state import has_factored, tuned_tensors

FORMAT = 2
# Format 1 has no decoder, and compares by another rule.
READABLE = (1, FORMAT)
METADATA, FEATURES, TUNED, ADAPTER, DECODER = (
    "task.json",
    "views.safetensors",
    "tuned.safetensors",
    "adapter",
    "decoder.safetensors",
)


# Bounds of what is unpacked, in bytes; fully tuned networks are the largest.
MOST_UNPACKED, MOST_JSON = 1_000_000_000, 20_000_000
# A whole number of hundreds of digits is larger than any that computations have.
LARGEST_NUMBER = 1e300
# What every task says of itself.
_KEYS = (
    "model",
    "fingerprint",
    "classes",
    "size",
    "parameters",
    "rules",
    "strategy",
    "steps",
    "lr",
)


_RULE = {each.name for each in fields(ClassThresholds)}
# What reading a damaged zip file of JSON and tensors raises.
_DAMAGES = (
    zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, KeyError,
    ValueError, safetensors.SafetensorError,
)  # fmt: skip


@dataclass(frozen=True)
class TaskFile:
    """What a file of a fitted task holds.

    Attributes:
        metadata: settings and figures, plain data.
        features: class id -> one dict of tensors per support.
        strategy: what the backbone was tuned with; None if it was not.
        steps: number of steps of that tuning.
        lr: learning rate of that tuning.
        decoder: weights of the decoder that was fitted; empty where none was.
    """

    metadata: dict[str, Any]
    features: dict[int, list[dict[str, Tensor]]]
    strategy: str | None = None
    steps: int = 0
    lr: float = 0.0
    decoder: dict[str, Tensor] = field(default_factory=dict)


def save_task(
    path: Path,
    metadata: Mapping[str, Any],
    features: Mapping[int, Sequence[Any]],
    adaptation: AdaptationResult | None,
    decoder: Decoder | None = None,
) -> Path:
    """Write a task; a file that is there is replaced as a whole.

    Args:
        path: path of the file.
        metadata: plain data.
        features: class id -> the features of its supports (named tuples of tensors); 0 -> those
            of images that show no class.
        adaptation: what was tuned.
        decoder: what was fitted to the supports.

    Raises:
        OSError: writing failed; what was at the path is still there.
    """
    halves = {
        f"{class_id}/{number}/{name}": tensor.detach().cpu().half().contiguous()
        for class_id, shots in features.items()
        for number, shot in enumerate(shots)
        for name, tensor in shot._asdict().items()
    }
    parts = {FEATURES: save_tensors(halves)}
    if decoder is not None:
        weights = {n: t.detach().cpu().half() for n, t in decoder.state_dict().items()}
        parts[DECODER] = save_tensors(weights)
    if adaptation is not None:
        parts |= _tuned_files(adaptation.head.backbone)
    content_of_json = {
        "format": FORMAT,
        **metadata,
        "files": {name: _digest(data) for name, data in parts.items()},
        "strategy": None if adaptation is None else adaptation.config.strategy,
        "steps": 0 if adaptation is None else adaptation.steps,
        "lr": 0.0 if adaptation is None else adaptation.lr,
    }
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(METADATA, json.dumps(content_of_json, indent=1) + "\n")
        for name, data in parts.items():
            file.writestr(name, data)
    write_bytes(path, content.getvalue())
    return path


def rename_classes(path: Path, names: Sequence[str]) -> None:
    """Give the classes of a task other names, in their order; all else stays as it is.

    Raises:
        MissingFileError: no such file.
        InputError: another number of classes.
    """
    task = read_task(path)
    old = task.metadata["classes"]
    if len(old) != len(names):
        raise InputError(f"{path} has {len(old)} classes, not {len(names)}")
    shots = task.metadata["supports"]
    supports = {new: shots[name] for name, new in zip(old, names, strict=True)}
    metadata = {**task.metadata, "classes": list(names), "supports": supports}
    content = io.BytesIO()
    with zipfile.ZipFile(path) as file, zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as to:
        for part in file.namelist():
            data = json.dumps(metadata, indent=1) + "\n" if part == METADATA else file.read(part)
            to.writestr(part, data)
    write_bytes(path, content.getvalue())


def _tuned_files(backbone: Backbone) -> dict[str, bytes]:
    """Give the files of what was tuned, by the layers that are found in the backbone."""
    files: dict[str, bytes] = {}
    if has_factored(backbone):
        with tempfile.TemporaryDirectory() as folder:
            adapter = save_adapter(backbone, Path(folder) / ADAPTER)
            files = {f"{ADAPTER}/{file.name}": file.read_bytes() for file in adapter.iterdir()}
    tensors = tuned_tensors(backbone)
    if tensors:
        files[TUNED] = save_tensors(tensors)
    return files


def read_task(path: Path) -> TaskFile:
    """Read the settings and features of a task file.

    Raises:
        MissingFileError: no such file.
        InputError: not a task, damaged, or of another format.
    """
    if not path.is_file():
        raise MissingFileError(f"no task at {path}: expected a file of 'svfseg fit'")
    try:
        with zipfile.ZipFile(path) as file:
            _check_unpacked(file)
            parts = {name: file.read(name) for name in file.namelist()}
            metadata = parse_json(parts.pop(METADATA))
            _check_digests(parts, metadata)
            tensors = load_tensors(parts[FEATURES])
            decoder = load_tensors(parts[DECODER]) if DECODER in parts else {}
    except (*_DAMAGES, OSError) as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # of a place before 0
            raise
        raise InputError(
            f"{path} is not a task of svfseg, or is damaged ({' '.join(str(error).split())})"
        ) from error
    if not isinstance(metadata, dict):
        raise InputError(f"{path} is not a task of svfseg, or is damaged ({METADATA} is a list)")
    if metadata.get("format") not in READABLE:
        raise InputError(
            f"{path} has task format {metadata.get('format')}, expected 1 or {FORMAT}: "
            "update svfseg"
        )
    missing = [key for key in _KEYS if key not in metadata]
    if missing:
        raise InputError(f"{path} is damaged: {METADATA} has no {', '.join(missing)}")
    problem = _problem(metadata)
    if problem:
        raise InputError(f"{path} is damaged: {METADATA} has {problem}")
    features: dict[int, list[dict[str, Tensor]]] = {}
    for name, tensor in (*tensors.items(), *decoder.items()):
        if not tensor.is_floating_point() or not bool(tensor.isfinite().all()):
            raise InputError(f"{path} is damaged: {name} in it holds what are not finite numbers")
    keys = {key: key.split("/") for key in tensors}
    if not all(len(p) == 3 and p[0].isdigit() and p[1].isdigit() for p in keys.values()):
        raise InputError(f"{path} is damaged: {FEATURES} holds tensors of other names")
    for key in sorted(tensors, key=lambda k: tuple(map(int, keys[k][:2]))):
        class_id, number, name = keys[key]
        shots = features.setdefault(int(class_id), [])
        if len(shots) <= int(number):
            shots.append({})
        shots[-1][name] = tensors[key].float()
    if sorted(features.keys() - {0}) != list(range(1, len(metadata["classes"]) + 1)):
        raise InputError(f"{path} is damaged: {FEATURES} has features of other classes")
    weights = {name: tensor.float() for name, tensor in decoder.items()}
    return TaskFile(
        metadata, features, metadata["strategy"], metadata["steps"], metadata["lr"], weights
    )


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _check_unpacked(file: zipfile.ZipFile) -> None:
    """Raise InputError before anything is unpacked if that would fill the memory."""
    sizes = {info.filename: info.file_size for info in file.infolist()}
    if sizes.get(METADATA, 0) > MOST_JSON or sum(sizes.values()) > MOST_UNPACKED:
        raise InputError(
            f"it unpacks to {sum(sizes.values()) / 1e6:,.0f} MB, expected at most "
            f"{MOST_UNPACKED / 1e6:,.0f}, and {MOST_JSON / 1e6:,.0f} of {METADATA}"
        )


def _check_digests(parts: Mapping[str, bytes], metadata: object) -> None:
    """Raise InputError if a part is not the one that was written with the settings."""
    digests = metadata.get("files") if isinstance(metadata, dict) else None
    if digests is None:  # files of 0.2.0 have none
        return
    if not isinstance(digests, dict) or sorted(digests) != sorted(parts):
        raise InputError("it holds other parts than its settings name")
    for name, data in parts.items():
        if _digest(data) != digests[name]:
            raise InputError(f"the digest of {name} in it differs")


def _problem(metadata: Mapping[str, Any]) -> str:
    """Say which setting cannot be one, and why; nothing where all can."""
    classes, rules, parameters = (metadata[n] for n in ("classes", "rules", "parameters"))
    if not isinstance(classes, list) or not classes or not all(isinstance(c, str) for c in classes):
        return "no list of names as classes"
    if not isinstance(parameters, dict) or "empty" not in parameters:
        return "no parameters"
    if not _is_number(metadata["size"]) or not LEAST <= metadata["size"] <= LARGEST:
        return f"the size {metadata['size']!r}"
    if not _is_number(metadata.get("share", 1.0)) or not 0 <= metadata.get("share", 1.0) <= 1:
        return f"the share {metadata['share']!r}"
    if not isinstance(rules, list) or len(rules) != len(classes):
        return "not one rule for each class"
    for rule in rules:
        if not isinstance(rule, dict) or not rule.keys() <= _RULE:
            return f"the rule {rule!r}"
        if not all(value is None or _is_number(value) for value in rule.values()):
            return f"the rule {rule!r}"
        threshold, spread = rule.get("threshold"), rule.get("spread", 1.0)
        if not (_is_number(threshold) and _is_number(spread)):
            return f"the rule {rule!r}"
        if not 0 <= float(threshold or 0) <= 1 or not float(spread) > 0:
            return f"the rule {rule!r}"
    return _odd_type(metadata)


def _odd_type(metadata: Mapping[str, Any]) -> str:
    """Say which setting is of another type than it is written as; nothing where none is."""
    for key in ("shown", "advice"):
        listed = metadata.get(key, [])
        if not isinstance(listed, list) or not all(isinstance(each, str) for each in listed):
            return f"no list of texts as {key}"
    texts = all(isinstance(metadata[key], str) for key in ("model", "fingerprint"))
    if not texts or not isinstance(metadata["strategy"], (str, type(None))):
        return "a model, fingerprint or strategy that is not a text"
    if not all(_is_number(metadata[key]) for key in ("steps", "lr")):
        return "steps or a rate that are not numbers"
    supports = metadata.get("supports", {})
    if not isinstance(supports, dict) or not all(map(_is_number, supports.values())):
        return "no numbers of supports"
    return ""


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and abs(value) < LARGEST_NUMBER


def restore_decoder(path: Path, task: TaskFile, head: Head) -> Decoder | None:
    """Rebuild the decoder of a task; None where it has none.

    Raises:
        InputError: the file is damaged.
    """
    if not task.decoder:
        return None
    decoder = Decoder(head.backbone.channels, len(task.metadata["classes"]))
    try:
        decoder.load_state_dict(task.decoder)
    except RuntimeError as error:
        raise InputError(f"{path} is damaged: its decoder does not fit the model") from error
    return decoder.requires_grad_(False).eval()


def restore_features(path: Path, task: TaskFile, head: Head, device: str) -> dict[int, list[Any]]:
    """Rebuild the features of the supports, by class; 0 for images that show none.

    Raises:
        InputError: the file is damaged, or of another head.
    """
    try:
        return {
            class_id: [
                head.support_features({n: t.to(device) for n, t in shot.items()}) for shot in shots
            ]
            for class_id, shots in task.features.items()
        }
    except TypeError as error:  # other names than the head's
        raise InputError(f"{path} is damaged: its features do not fit the model") from error


def check_fits(path: Path, predictor: Predictor, features: Mapping[int, Sequence[Any]]) -> None:
    """Answer a grey image with the features of a file, so that others than the model's are found.

    Args:
        path: path of the file, for the message.
        predictor: as it was restored.
        features: class id -> the features of its supports.

    Raises:
        InputError: they have other shapes than the model's.
    """
    side = LEAST if predictor.head.any_shape else predictor.size
    grey = torch.full((1, 3, side, side), 127.0, device=predictor.device)
    pixels = np.full((side, side, 3), 127, np.uint8)
    half = np.zeros((side, side), np.uint8)
    half[: side // 2] = 1
    (usual,) = replace(predictor, size=side).encode_supports([Sample(pixels, half)], [1])
    dimensions = [tensor.dim() for tensor in usual[1]]
    try:
        for shot in (shot for shots in features.values() for shot in shots):
            if [tensor.dim() for tensor in shot] != dimensions:
                raise ValueError("another number of dimensions")
        with torch.inference_mode():
            answer = predictor.logits(grey, list(features.values()))
        whole = bool(answer.logits.isfinite().all())
    except (RuntimeError, IndexError, ValueError, TypeError) as error:
        raise InputError(f"{path} is damaged: its features do not fit the model") from error
    if not whole:
        raise InputError(f"{path} is damaged: what it answers are not finite numbers")


def restore_adaptation(path: Path, task: TaskFile, base: Head) -> AdaptationResult | None:
    """Rebuild the model of a task as it was tuned, from the base model.

    Raises:
        InputError: the file is damaged, or the base weights are not its own.
    """
    if task.strategy is None:
        return None
    head = tunable_copy(base, task.strategy)
    try:
        with zipfile.ZipFile(path) as file, tempfile.TemporaryDirectory() as folder:
            names = file.namelist()
            if f"{ADAPTER}/adapter.json" in names:
                for name in ("adapter.json", "adapter.safetensors"):
                    file.extract(f"{ADAPTER}/{name}", folder)
                load_adapter(head.backbone, Path(folder) / ADAPTER)
            tensors = load_tensors(file.read(TUNED)) if TUNED in names else {}
    except (zipfile.BadZipFile, KeyError, safetensors.SafetensorError) as error:
        raise InputError(f"{path} is damaged ({error})") from error
    expected = {name: tensor.shape for name, tensor in tuned_tensors(head.backbone).items()}
    if {name: tensor.shape for name, tensor in tensors.items()} != expected:
        raise InputError(f"{path} is damaged: its tuned weights do not fit the model")
    head.backbone.load_state_dict(tensors, strict=False)
    return AdaptationResult(head.eval(), tuning_of(task.strategy), task.steps, task.lr)
