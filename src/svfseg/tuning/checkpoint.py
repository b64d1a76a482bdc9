"""A run on disk: what trained, bound to the base weights that it trained on.

    RUN/config.yaml         every setting, resolved
    RUN/environment.json    versions, machine, command, commit
    RUN/metrics.jsonl       losses and scores by step
    RUN/best, RUN/last      a checkpoint each:
        checkpoint.json     format, step, score, fingerprint of the base backbone
        model.safetensors   the head, and what else trained but for the singular values
        adapter/            the singular values (strategies with svf)
        training.pt         optimizer and random state, to resume (last only)

With random base weights (weights: none), which nobody can load again, and with those of a base
learner (model.base), model.safetensors holds the whole model and there is no adapter.
"""

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import safetensors
import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from svfseg.config import ModelConfig, TrainConfig, from_dict, read_config
from svfseg.errors import InputError, MissingFileError
from svfseg.files import replace_folder
from svfseg.models import BAM, Backbone, PSPNet, build_model
from svfseg.models.convert import import_published
from svfseg.models.weights import backbone_fingerprint, read_weights
from svfseg.svf import load_adapter, save_adapter
from svfseg.svf.layers import factored_layers
from svfseg.tuning.strategies import finish_svf, merge_tuned, tune

FORMAT = 1
ADAPTER = "adapter"


def save_checkpoint(
    folder: Path,
    model: nn.Module,
    config: TrainConfig,
    fingerprint: str,
    info: dict[str, Any],
    training: dict[str, Any] | None = None,
) -> None:
    """Write a checkpoint, whole or not at all: on a failure the previous one stays.

    Args:
        folder: RUN/best or RUN/last.
        model: as trained, factored where the strategy is so.
        config: of the run.
        fingerprint: `backbone_fingerprint` before tuning.
        info: step and scores, for the reader.
        training: state of optimizer and schedule, to resume.

    Raises:
        OSError: writing failed.
    """
    with replace_folder(folder) as fresh:
        tensors = trained_state(model, config)
        (fresh / "model.safetensors").write_bytes(save_tensors(tensors))
        if _has_adapter(config):
            save_adapter(cast(nn.Module, model.backbone), fresh / ADAPTER)
        if training is not None:
            buffer = io.BytesIO()
            torch.save(training, buffer)
            (fresh / "training.pt").write_bytes(buffer.getvalue())
        about = {"format": FORMAT, "backbone": fingerprint, **info}
        (fresh / "checkpoint.json").write_text(json.dumps(about, indent=1) + "\n")


def load_run(run: str | Path, checkpoint: str = "best") -> tuple[nn.Module, TrainConfig]:
    """A run's model in eval mode, what was trained merged: plain layers but for adapters.

    Raises:
        MissingFileError: no run, or no checkpoint in it.
        InputError: the checkpoint is damaged, or the base weights are not those of the run.
    """
    run = Path(run)
    config = run_config(run)
    model = restore_model(run / checkpoint, config)
    merge_tuned(cast(nn.Module, model.backbone))
    return model.eval(), config


def load_head(run: str | Path, checkpoint: str = "best") -> tuple[nn.Module, TrainConfig]:
    """`load_run` of a run whose head takes episodes.

    Raises:
        MissingFileError: see `load_run`.
        InputError: the run is a base learner's; or see `load_run`.
    """
    model, config = load_run(run, checkpoint)
    if "image" in getattr(model, "inputs", ()):
        raise InputError(
            f"{run} is a {config.model.head} run: it learns base classes, and has its score on "
            "them in its metrics.jsonl; give a run of another head"
        )
    return model, config


def run_config(run: Path) -> TrainConfig:
    """The settings of a run folder.

    Raises:
        MissingFileError: not a run folder.
        InputError: damaged settings.
    """
    if not (run / "config.yaml").is_file():
        raise MissingFileError(f"{run} is not a run: it has no config.yaml; give a folder of train")
    return from_dict(TrainConfig, read_config(run / "config.yaml"))


def start_model(config: ModelConfig) -> nn.Module:
    """A head on its backbone as a training starts from it, with a base learner where it has one.

    Raises:
        MissingFileError: weights or the base learner's run are not there.
        InputError: they do not fit; see `svfseg.models.build_model`.
    """
    if not config.base:
        return build_model(config)
    plain = replace(config, base="", backbone=replace(config.backbone, weights="none"))
    model = build_model(plain)
    if not isinstance(model, BAM):
        raise InputError(f"model.base is for bam, not for {config.head}: leave it empty")
    path = Path(config.base)
    if path.is_dir():
        base, _ = load_run(path)
        if not isinstance(base, PSPNet):
            raise InputError(f"{path} is no base learner: train one with model.head pspnet")
    else:
        base = import_published(
            build_model(replace(plain, head="pspnet")), read_weights(path), str(path)
        )
    model.take_base(cast(PSPNet, base))
    return model


def restore_model(folder: Path, config: TrainConfig) -> nn.Module:
    """The model of a checkpoint as it was saved: tuned, and factored where the strategy is so.

    Raises:
        MissingFileError: no checkpoint.
        InputError: see `load_run`.
    """
    about = read_about(folder)
    model = build_model(_buildable(config.model))
    backbone = cast(Backbone, model.backbone)
    if not _self_contained(config.model):
        found = backbone_fingerprint(backbone)
        if found != about["backbone"]:
            raise InputError(
                f"{folder} was trained on other {config.model.backbone.weights} weights of "
                f"{config.model.backbone.name}: found fingerprint {found}, expected "
                f"{about['backbone']}; set up the weights it was trained on"
            )
    if _has_adapter(config):
        backbone.requires_grad_(False)
        load_adapter(backbone, folder / ADAPTER)
        finish_svf(backbone, config.tuning)
    else:
        tune(model, config.tuning)
    path = folder / "model.safetensors"
    try:
        tensors = load_tensors(path.read_bytes())
    except safetensors.SafetensorError as error:
        raise InputError(f"{path} is damaged ({error}): copy the run again") from error
    expected = trained_state(model, config)
    differing = sorted(set(expected) ^ set(tensors)) or [
        k for k in expected if expected[k].shape != tensors[k].shape
    ]
    if differing:
        raise InputError(f"{path} does not fit {config.model.head}: {', '.join(differing[:3])}")
    model.load_state_dict(tensors, strict=False)
    return model


def read_about(folder: Path) -> dict[str, Any]:
    """checkpoint.json of a checkpoint.

    Raises:
        MissingFileError: no checkpoint there.
        InputError: damaged, or of another format.
    """
    path = folder / "checkpoint.json"
    if not path.is_file():
        raise MissingFileError(
            f"{folder.parent} has no checkpoint '{folder.name}': train it first, or to the end"
        )
    try:
        about = json.loads(path.read_text())
        version = about["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged: {error!r}") from error
    if version != FORMAT:
        raise InputError(f"{path} has format {version}, expected {FORMAT}: update svfseg")
    return cast(dict[str, Any], about)


def load_training(folder: Path) -> dict[str, Any]:
    """Optimizer, schedule and random state of a checkpoint.

    Raises:
        MissingFileError: it has none.
    """
    path = folder / "training.pt"
    if not path.is_file():
        raise MissingFileError(f"{folder} cannot be resumed: it has no training.pt")
    return cast(dict[str, Any], torch.load(path, map_location="cpu", weights_only=True))


def trained_state(model: nn.Module, config: TrainConfig) -> dict[str, Tensor]:
    """What model.safetensors holds: all that differs from the base backbone but the adapter."""
    state = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    if _self_contained(config.model):
        return state
    backbone = cast(Backbone, model.backbone)
    factored = {f"backbone.{name}." for name, _ in factored_layers(backbone)}
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    moving = {id(layer) for layer in backbone.moving_norms()}
    for name, module in model.named_modules():
        if id(module) in moving:
            trained |= {f"{name}.{buffer}" for buffer, _ in module.named_buffers()}

    def kept(key: str) -> bool:
        if not key.startswith("backbone."):
            return True
        return key in trained and not any(key.startswith(f) for f in factored)

    return {key: tensor for key, tensor in state.items() if kept(key)}


def _self_contained(config: ModelConfig) -> bool:
    return config.backbone.weights == "none" or bool(config.base)


def _buildable(config: ModelConfig) -> ModelConfig:
    """The same network without weights that a self-contained checkpoint brings itself."""
    if not _self_contained(config):
        return config
    return replace(config, backbone=replace(config.backbone, weights="none"))


def _has_adapter(config: TrainConfig) -> bool:
    return config.tuning.strategy in ("svf", "svf+norm") and not _self_contained(config.model)
