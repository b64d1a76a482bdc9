"""Choose the episodes that score a training in between: base classes, test fold, or none."""

from collections.abc import Callable

from accelerate import Accelerator

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
from svfseg.models import Head, takes_images

# Validation episodes must not move with the training seed, or runs would not be comparable.
VALIDATION_SEED = 0

# Gives the scores of the model as it is now, by name.
Judge = Callable[[], dict[str, float]]


def make_judge(
    config: TrainConfig, head: Head, held_out: Split, accelerator: Accelerator, batch: int
) -> Judge:
    """Make a function that scores the model as it is now.

    It gives "miou" and "fb_iou" of what the checkpoint is chosen on (nothing with "last"), and
    with selection.curve_episodes "novel_miou" of the test fold, which no choice sees.

    Args:
        config: configuration of the run.
        head: in training; it is left in eval mode.
        held_out: base-class images that do not train.
        accelerator: where to compute.
        batch: episodes or images at once.

    Raises:
        InputError: too few held-out images.
    """
    size, workers = config.data.size, config.workers
    if takes_images(head):
        chosen = config.selection.monitor != "last"
        if config.selection.monitor == "test" or config.selection.curve_episodes:
            raise InputError(
                f"{config.model.head} learns base classes and cannot be scored on novel ones: set "
                "selection.monitor to base-validation or last, and selection.curve_episodes to 0"
            )

        def judge_classes() -> dict[str, float]:
            head.eval()
            if not chosen:
                return {}
            meter = score_classes(head, held_out, size, accelerator, batch, workers)
            return {"miou": meter.miou(), "fb_iou": meter.fb_iou()}

        return judge_classes

    source, episodes = selection_episodes(config, held_out)
    novel, curve = source, list[Episode]()
    if config.selection.curve_episodes:
        novel = novel_split(test_index(config.data), config.data.fold)
        novel = novel.require(config.shot, config.data.on_small_class)
        curve = draw_test_list(novel, config.shot, VALIDATION_SEED, config.selection.curve_episodes)

    def judge() -> dict[str, float]:
        head.eval()
        scores: dict[str, float] = {}
        for prefix, split, listed in (("", source, episodes), ("novel_", novel, curve)):
            if listed:
                (meter,) = score(
                    head, split, [listed], size, accelerator, "square", batch, workers
                )  # fmt: skip
                scores |= {f"{prefix}miou": meter.miou(), f"{prefix}fb_iou": meter.fb_iou()}
        return scores

    return judge


def selection_episodes(config: TrainConfig, held_out: Split) -> tuple[Split, list[Episode]]:
    """Draw the episodes that choose the checkpoint: held-out base classes, test fold, or none."""
    count = config.selection.episodes
    if config.selection.monitor == "test":
        source = novel_split(test_index(config.data), config.data.fold)
        source = source.require(config.shot, config.data.on_small_class)
        return source, draw_test_list(source, config.shot, config.seed, count)
    if config.selection.monitor == "last":
        return held_out, []
    source = held_out.with_enough(config.shot)
    if not source.classes:
        raise InputError(
            f"{held_out.index.name} holds out {len(held_out.queries)} images, too few for "
            f"{config.shot}-shot episodes of any class: raise data.validation_fraction, or set "
            "selection.monitor to last"
        )
    return source, [draw_episode(source, config.shot, VALIDATION_SEED, i) for i in range(count)]
