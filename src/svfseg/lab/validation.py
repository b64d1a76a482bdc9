"""What a training is judged by on its way: base classes, the test fold, or nothing."""

from collections.abc import Callable
from typing import Any

from accelerate import Accelerator
from torch import nn

from svfseg.config import TrainConfig
from svfseg.data import (
    Episode,
    Split,
    draw_episode,
    draw_test_list,
    novel_split,
    test_index,
)
from svfseg.errors import InputError
from svfseg.lab.evaluation import score, score_classes
from svfseg.models import takes_images

# Validation episodes must not move with the training seed, or runs would not be comparable.
VALIDATION_SEED = 0

Judge = Callable[[], dict[str, Any]]


def make_judge(
    config: TrainConfig, model: nn.Module, held_out: Split, accelerator: Accelerator, batch: int
) -> Judge:
    """A function that scores the model as it is now.

    It gives "miou" and "fb_iou" of what the checkpoint is chosen on (nothing with "last"), and
    with selection.curve "novel_miou" of the test fold, which no choice sees.

    Args:
        config: of the run.
        model: in training; it is left in eval mode.
        held_out: base-class images that do not train.
        accelerator: where to compute.
        batch: episodes or images at once.

    Raises:
        InputError: too few held-out images.
    """
    size, workers = config.data.size, config.workers
    if takes_images(model):
        chosen = config.selection.on != "last"
        if config.selection.on == "test" or config.selection.curve:
            raise InputError(
                f"{config.model.head} learns base classes and cannot be scored on novel ones: set "
                "selection.on to base-validation or last, and selection.curve to 0"
            )

        def judge_classes() -> dict[str, Any]:
            model.eval()
            if not chosen:
                return {}
            meter = score_classes(model, held_out, size, accelerator, batch, workers)
            return {"miou": meter.miou(), "fb_iou": meter.fb_iou()}

        return judge_classes

    source, episodes = selection_episodes(config, held_out)
    novel, curve = source, list[Episode]()
    if config.selection.curve:
        novel = novel_split(test_index(config.data), config.data.fold)
        novel = novel.require(config.shot, config.data.few)
        curve = draw_test_list(novel, config.shot, VALIDATION_SEED, config.selection.curve)

    def judge() -> dict[str, Any]:
        model.eval()
        found: dict[str, Any] = {}
        for prefix, split, asked in (("", source, episodes), ("novel_", novel, curve)):
            if asked:
                (meter,) = score(
                    model, split, [asked], size, accelerator, "square", batch, workers
                )  # fmt: skip
                found |= {f"{prefix}miou": meter.miou(), f"{prefix}fb_iou": meter.fb_iou()}
        return found

    return judge


def selection_episodes(config: TrainConfig, held_out: Split) -> tuple[Split, list[Episode]]:
    """Where the checkpoint is chosen: held-out base-class images, the test fold, or nowhere."""
    count = config.selection.episodes
    if config.selection.on == "test":
        source = novel_split(test_index(config.data), config.data.fold)
        source = source.require(config.shot, config.data.few)
        return source, draw_test_list(source, config.shot, config.seed, count)
    if config.selection.on == "last":
        return held_out, []
    source = held_out.with_enough(config.shot)
    if not source.classes:
        raise InputError(
            f"{held_out.index.name} holds out {len(held_out.queries)} images, too few for "
            f"{config.shot}-shot episodes of any class: raise --data.validation-fraction, or do "
            "not choose a checkpoint (--selection.on last)"
        )
    return source, [draw_episode(source, config.shot, VALIDATION_SEED, i) for i in range(count)]
