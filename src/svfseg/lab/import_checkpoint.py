"""Make a run folder of a published checkpoint."""

from dataclasses import replace
from pathlib import Path

from svfseg.config import TrainConfig, write_config
from svfseg.errors import InputError
from svfseg.models import build_model
from svfseg.models.convert import base_learner_sizes, import_published
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
