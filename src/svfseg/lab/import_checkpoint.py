"""A run folder from a published checkpoint."""

from dataclasses import replace
from pathlib import Path
from typing import cast

from torch import nn

from svfseg.config import TrainConfig, write_config
from svfseg.errors import InputError
from svfseg.models import build_model
from svfseg.models.convert import import_published, sizes
from svfseg.models.weights import backbone_fingerprint, read_weights
from svfseg.tuning.checkpoint import save_checkpoint


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
        raise InputError(f"{run} holds a run already: choose another --out")
    tensors = read_weights(file)
    if config.model.head in ("bam", "pspnet"):
        classes, shots = sizes(tensors)
        model_config = replace(config.model, base_classes=classes, weighted_shots=shots)
        config = replace(config, model=model_config, shot=shots)
    model = import_published(build_model(config.model), tensors, str(file))
    fingerprint = backbone_fingerprint(cast(nn.Module, model.backbone))
    run.mkdir(parents=True, exist_ok=True)
    info = {"step": 0, "imported_from": Path(file).name}
    save_checkpoint(run / "best", model, config, fingerprint, info)
    write_config(run / "config.yaml", config)
    return run
