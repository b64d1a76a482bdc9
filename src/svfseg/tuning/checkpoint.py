"""Save and load a run: the trained weights, bound to the base weights they trained on.

    RUN/config.yaml         every setting, resolved
    RUN/environment.json    versions, machine, command, commit
    RUN/metrics.jsonl       losses and scores by step
    RUN/best, RUN/last      a checkpoint each:
        checkpoint.json     format, step, score, fingerprint of the base backbone
        model.safetensors   the head, and what else trained but for the singular values
        adapter/            the singular values (strategies with svf)
        training.pt         optimizer and random state, to resume (last only)

With random base weights (weights: none), which cannot be loaded again, and with those of a base
learner (model.base_learner), model.safetensors holds the whole model and there is no adapter.
"""

import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from svfseg.config import ModelConfig, TrainConfig, from_dict, read_config
from svfseg.errors import InputError, MissingFileError
from svfseg.files import read_json, replace_folder, settle_folder
from svfseg.models import (
    BAM,
    Head,
    PSPNet,
    build_base_learner,
    build_model,
    takes_images,
)
from svfseg.models.convert import import_published
from svfseg.models.weights import backbone_fingerprint, read_weights
from svfseg.svf import load_adapter, save_adapter
from svfseg.tuning.state import has_factored
from svfseg.tuning.strategies import find_strategy, merge, tune

FORMAT = 1
ADAPTER = "adapter"
_DIGESTED = ("model.safetensors", "training.pt")


def save_checkpoint(
    folder: Path,
    head: Head,
    config: TrainConfig,
    fingerprint: str,
    info: Mapping[str, Any],
    training: Mapping[str, Any] | None = None,
) -> None:
    """Write a checkpoint, whole or not at all: on a failure the previous one stays.

    What is saved follows from the layers of the model, not from the strategy's name.

    Args:
        folder: RUN/best or RUN/last.
        head: as trained, factored where the strategy is so.
        config: configuration of the run.
        fingerprint: `backbone_fingerprint` before tuning.
        info: step and scores, for the reader.
        training: state of optimizer and schedule, to resume.

    Raises:
        OSError: writing failed.
    """
    tensors = trained_state(head, config)
    broken = next((name for name, t in tensors.items() if not bool(t.isfinite().all())), None)
    if broken is not None:
        raise InputError(
            f"the weights {broken} are not finite at step {info.get('step')}: lower optim.lr or "
            "tuning.lr, or set optim.clip"
        )
    with replace_folder(folder) as fresh:
        (fresh / "model.safetensors").write_bytes(save_tensors(tensors))
        if has_factored(head.backbone) and not _is_self_contained(config.model):
            save_adapter(head.backbone, fresh / ADAPTER)
        if training is not None:
            buffer = io.BytesIO()
            torch.save(training, buffer)
            (fresh / "training.pt").write_bytes(buffer.getvalue())
        digests = {name: _digest(fresh / name) for name in _DIGESTED if (fresh / name).is_file()}
        metadata = {"format": FORMAT, "backbone": fingerprint, **info, "files": digests}
        (fresh / "checkpoint.json").write_text(json.dumps(metadata, indent=1) + "\n")


def load_run(run: str | Path, checkpoint: str = "best") -> tuple[Head, TrainConfig]:
    """Load a run's model in eval mode, what was trained merged: plain layers but for adapters.

    Raises:
        MissingFileError: no run, or no checkpoint in it.
        InputError: the checkpoint is damaged, or the base weights are not those of the run.
    """
    run = Path(run)
    config = run_config(run)
    head = restore_model(run / checkpoint, config)
    merge(head.backbone, find_strategy(config.tuning.strategy))
    return head.eval(), config


def load_head(run: str | Path, checkpoint: str = "best") -> tuple[Head, TrainConfig]:
    """Load a run whose head takes episodes: see `load_run`.

    Raises:
        MissingFileError: see `load_run`.
        InputError: the run is a base learner's; or see `load_run`.
    """
    head, config = load_run(run, checkpoint)
    if takes_images(head):
        raise InputError(
            f"{run} is a {config.model.head} run: it learns base classes, and has its score on "
            "them in its metrics.jsonl; give a run of another head"
        )
    return head, config


def run_config(run: Path) -> TrainConfig:
    """Read the settings of a run folder.

    Raises:
        MissingFileError: not a run folder.
        InputError: damaged settings.
    """
    if not (run / "config.yaml").is_file():
        raise MissingFileError(f"{run} is not a run: it has no config.yaml; give a folder of train")
    return from_dict(TrainConfig, _upgraded(read_config(run / "config.yaml")))


# Settings that runs of 0.1.0 wrote under other names: (section, then, now).
_RENAMED = (
    ("selection", "on", "monitor"),
    ("selection", "curve", "curve_episodes"),
    ("data", "fit", "resize_longest"),
    ("data", "few", "on_small_class"),
    ("data", "images", "num_images"),
    ("data", "scale", "scale_range"),
    ("tuning", "train", "factors"),
    ("tuning", "scale", "parametrization"),
    ("model", "base", "base_learner"),
)


def _upgraded(settings: dict[str, Any]) -> dict[str, Any]:
    """Give the settings of a run folder by their names of today."""
    renamed = dict(settings)
    for section, then, now in _RENAMED:
        values = renamed.get(section)
        if isinstance(values, dict) and then in values and now not in values:
            renamed[section] = {now if k == then else k: v for k, v in values.items()}
    return renamed


def start_model(config: ModelConfig) -> Head:
    """Build a head on its backbone as a training starts, with a base learner where it has one.

    Raises:
        MissingFileError: weights or the base learner's run are not there.
        InputError: they do not fit; see `svfseg.models.build_model`.
    """
    if not config.base_learner:
        return build_model(config)
    plain = replace(config, base_learner="", backbone=replace(config.backbone, weights="none"))
    head = build_model(plain)
    if not isinstance(head, BAM):
        raise InputError(f"model.base_learner is for bam, not for {config.head}: leave it empty")
    path = Path(config.base_learner)
    if path.is_dir():
        base, _ = load_run(path)
        if not isinstance(base, PSPNet):
            raise InputError(f"{path} is not a base learner: train one with model.head pspnet")
    else:
        base = build_base_learner(plain)
        import_published(base, read_weights(path), str(path))
    head.take_base(base)
    return head


def restore_model(folder: Path, config: TrainConfig) -> Head:
    """Build the model of a checkpoint as it was saved: tuned, and factored where it was so.

    Raises:
        MissingFileError: no checkpoint.
        InputError: see `load_run`.
    """
    metadata = read_metadata(folder)
    head = build_model(_buildable(config.model))
    if not _is_self_contained(config.model):
        fingerprint = backbone_fingerprint(head.backbone)
        if fingerprint != metadata["backbone"]:
            raise InputError(
                f"{folder} was trained on other {config.model.backbone.weights} weights of "
                f"{config.model.backbone.name}: found fingerprint {fingerprint}, expected "
                f"{metadata['backbone']}; set up the weights it was trained on"
            )
    tune(head, config.tuning)
    if (folder / ADAPTER).is_dir():
        load_adapter(head.backbone, folder / ADAPTER)
    path = folder / "model.safetensors"
    _check_digest(path, metadata)
    try:
        tensors = load_tensors(path.read_bytes())
    except safetensors.SafetensorError as error:
        raise InputError(f"{path} is damaged ({error}): copy the run again") from error
    expected = trained_state(head, config)
    differing = sorted(set(expected) ^ set(tensors)) or [
        k for k in expected if expected[k].shape != tensors[k].shape
    ]
    if differing:
        raise InputError(f"{path} does not fit {config.model.head}: {', '.join(differing[:3])}")
    head.load_state_dict(tensors, strict=False)
    return head


def read_metadata(folder: Path) -> dict[str, Any]:
    """Read checkpoint.json of a checkpoint.

    Raises:
        MissingFileError: no checkpoint there.
        InputError: damaged, or of another format.
    """
    settle_folder(folder)
    path = folder / "checkpoint.json"
    if not path.is_file():
        raise MissingFileError(
            f"{folder.parent} has no checkpoint '{folder.name}': train it first, or to the end"
        )
    metadata = read_json(path)
    if not isinstance(metadata, dict) or "format" not in metadata:
        raise InputError(f"{path} is damaged: it has no format; copy the run again")
    if metadata["format"] != FORMAT:
        raise InputError(
            f"{path} has format {metadata['format']}, expected {FORMAT}: update svfseg"
        )
    step, fingerprint = metadata.get("step"), metadata.get("backbone")
    whole = type(step) is int and step >= 0 and isinstance(fingerprint, str)
    if not whole or not isinstance(metadata.get("files", {}), dict):
        raise InputError(f"{path} is damaged: it has no step or no backbone; copy the run again")
    return metadata


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_digest(path: Path, metadata: Mapping[str, Any]) -> None:
    """Raise InputError if a file of a checkpoint is not the one that was written with it."""
    expected = metadata.get("files", {}).get(path.name)  # checkpoints of 0.2.0 have none
    if not path.is_file():
        raise MissingFileError(f"{path} is missing: copy the run again")
    if expected is not None and _digest(path) != expected:
        raise InputError(f"{path} is damaged (its digest differs): copy the run again")


def load_training(folder: Path) -> dict[str, Any]:
    """Read optimizer, schedule and random state of a checkpoint.

    Raises:
        MissingFileError: it has none.
        InputError: it is damaged.
    """
    path = folder / "training.pt"
    if not path.is_file():
        raise MissingFileError(f"{folder} cannot be resumed: it has no training.pt")
    _check_digest(path, read_metadata(folder))
    damaged = f"{path} is damaged: start the training anew, or copy the run again"
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling fails in many ways
        raise InputError(damaged) from error
    names = {"optimizer", "schedule", "random", "best", "anchors"}
    if not isinstance(state, dict) or not names <= state.keys():
        raise InputError(damaged)
    return state


def trained_state(head: Head, config: TrainConfig) -> dict[str, Tensor]:
    """Give what model.safetensors holds: all that differs from the base but the adapter."""
    state = {k: v.detach().cpu().clone().contiguous() for k, v in head.state_dict().items()}
    if _is_self_contained(config.model):
        return state
    own = {k: v for k, v in state.items() if not k.startswith("backbone.")}
    tuned = find_strategy(config.tuning.strategy).state(head.backbone)
    return own | {f"backbone.{name}": tensor for name, tensor in tuned.items()}


def _is_self_contained(config: ModelConfig) -> bool:
    return config.backbone.weights == "none" or bool(config.base_learner)


def _buildable(config: ModelConfig) -> ModelConfig:
    """Give the same network without weights that a self-contained checkpoint brings itself."""
    if not _is_self_contained(config):
        return config
    return replace(config, backbone=replace(config.backbone, weights="none"))
