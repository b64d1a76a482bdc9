"""Make a run folder of a published checkpoint."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

from svfseg.config import (
    BackboneConfig,
    DataConfig,
    ModelConfig,
    TrainConfig,
    TuningConfig,
    did_you_mean,
    write_config,
)
from svfseg.errors import InputError
from svfseg.models import build_model
from svfseg.models.convert import PUBLISHED, base_learner_sizes, import_published
from svfseg.models.weights import backbone_fingerprint, read_weights
from svfseg.tuning.checkpoint import save_checkpoint


def published_config(
    out: Path,
    head: str | None = None,
    backbone: str = "resnet50_deep",
    dilation: Literal["uniform", "stepwise"] | None = None,
    bins: tuple[float, ...] = (60, 30, 15, 8),
    size: int = 473,
) -> TrainConfig:
    """Give the configuration that a published checkpoint was trained with.

    Args:
        out: run folder.
        head: one of `svfseg.models.convert.PUBLISHED`; None takes the first.
        backbone: resnet50_deep, resnet101_deep, vgg16 or vgg16_bn.
        dilation: None takes that of the head's authors.
        bins: sides of PFENet's levels.
        size: side of the test images, in pixels.

    Raises:
        InputError: no checkpoints of such a head are known.
    """
    head = next(iter(PUBLISHED)) if head is None else head
    if head not in PUBLISHED:
        raise InputError(
            f"there are no published checkpoints of {head}{did_you_mean(head, PUBLISHED)}"
        )
    stride = 16 if backbone.startswith("vgg") else 8
    habit = PUBLISHED[head] if dilation is None else dilation
    return TrainConfig(
        out=str(out),
        data=DataConfig(size=size),
        model=ModelConfig(
            head=head, bins=bins, backbone=BackboneConfig(backbone, "none", stride, habit)
        ),
        tuning=TuningConfig(strategy="frozen"),
    )


def import_checkpoint(file: str | Path, config: TrainConfig) -> Path:
    """Write a run that `evaluate` and `FewShotSegmenter` take, from a checkpoint of the field.

    Args:
        file: a .pth or .safetensors of PFENet, BAM, BAM's PSPNet, or the SVF authors' baseline.
        config: names the head, the backbone (weights "none": all come from the file), and out.

    Raises:
        MissingFileError: no such file.
        InputError: the tensors do not fit, or the run folder is taken; nothing is written.
    """
    run = Path(config.out)
    if (run / "config.yaml").exists():
        raise InputError(f"{run} holds a run already: choose another folder", settings=("out",))
    tensors = read_weights(file)
    head = build_model(config.model)
    if head.base_classes is not None:
        classes, shots = base_learner_sizes(tensors)
        model_config = replace(config.model, base_classes=classes, weighted_shots=shots)
        config = replace(config, model=model_config, shot=shots)
        head = build_model(config.model)
    import_published(head, tensors, str(file))
    fingerprint = backbone_fingerprint(head.backbone)
    run.mkdir(parents=True, exist_ok=True)
    info = {"step": 0, "imported_from": Path(file).name}
    save_checkpoint(run / "best", head, config, fingerprint, info)
    write_config(run / "config.yaml", config)
    return run
