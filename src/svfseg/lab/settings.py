"""Check that the settings of a run fit together, with its data and with its head."""

from dataclasses import replace
from pathlib import Path

from svfseg.config import TrainConfig, look_up
from svfseg.data import BENCHMARKS, Split
from svfseg.errors import InputError
from svfseg.models import HEADS, Head, takes_images
from svfseg.tuning.checkpoint import run_config
from svfseg.tuning.strategies import find_strategy


def check_settings(config: TrainConfig) -> None:
    """Raise InputError for settings that no run can have."""
    find_strategy(config.tuning.strategy)
    look_up(config.model.head, HEADS, "head")
    look_up(config.data.name, BENCHMARKS, "benchmark")
    positive = {
        "shot": config.shot,
        "optim.steps": config.optim.steps,
        "optim.batch": config.optim.batch,
        "optim.lr": config.optim.lr,
        "selection.every": config.selection.every,
        "model.hidden": config.model.hidden,
    }
    for name, value in positive.items():
        if not value > 0:
            raise InputError(f"{name} is {value}: expected more than 0")
    if config.data.size < 32:
        raise InputError(f"data.size is {config.data.size}: expected at least 32 pixels")
    if config.workers < 0:
        raise InputError(f"workers is {config.workers}: expected 0 or more")
    if config.selection.monitor == "base-validation" and config.data.validation_fraction == 0:
        raise InputError(
            "selection.monitor is base-validation, but data.validation_fraction is 0: hold out "
            "some images, or set selection.monitor to last"
        )


def check_head(config: TrainConfig, head: Head, source: Split) -> None:
    """Raise InputError where a head's base classes or shots are not those of the run."""
    if head.base_classes is not None and head.base_classes != len(source.classes):
        raise InputError(
            f"model.base_classes is {head.base_classes}: fold {config.data.fold} of "
            f"{source.index.name} has {len(source.classes)}"
        )
    if head.trained_shots is not None and head.trained_shots != config.shot:
        raise InputError(
            f"model.weighted_shots is {head.trained_shots} and shot is {config.shot}: the "
            "weighting learns from episodes of its own number of shots"
        )


def check_resumed(folder: Path, config: TrainConfig) -> None:
    """Raise InputError where a run was begun with other settings."""
    before = run_config(folder)
    same = replace(config, device=before.device, workers=before.workers, out=before.out)
    if same != before:
        raise InputError(
            f"{folder} was trained with other settings: resume with those of its config.yaml"
        )


def trainable_split(source: Split, head: Head, config: TrainConfig) -> Split:
    """Give the split, with images enough for episodes where the head takes those.

    Raises:
        InputError: too few images, or a class is left out that the head numbers.
    """
    if takes_images(head):
        return source
    sufficient = source.require(config.shot, config.data.on_small_class)
    if head.base_classes is not None and sufficient.classes != source.classes:
        raise InputError(
            f"{config.model.head} numbers the base classes as its base learner does: none can be "
            "left out with data.on_small_class drop; add images, or ask for fewer shots"
        )
    return sufficient


def episodes_per_process(config: TrainConfig, head: Head, processes: int) -> int:
    """Give the episodes, or images, of a batch in one process.

    Raises:
        InputError: the batch does not divide by the number of processes, or is too small for the
            head to normalise over.
    """
    if config.optim.batch % processes:
        raise InputError(
            f"optim.batch is {config.optim.batch}: expected a multiple of the {processes} processes"
        )
    share = config.optim.batch // processes
    if share < head.smallest_batch:
        raise InputError(
            f"optim.batch is {config.optim.batch} in {processes} process(es): expected "
            f"{head.smallest_batch} images or more in each, as {config.model.head} normalises "
            "over them"
        )
    return share
