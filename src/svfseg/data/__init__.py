"""Benchmarks as indices from class to images, and the episodes drawn from them."""

from collections.abc import Callable

from svfseg.config import DataConfig, look_up
from svfseg.data.coco import coco20i
from svfseg.data.episodes import (
    ClassCrops,
    Episode,
    TestBatches,
    TestEpisodes,
    TrainEpisodes,
    WholeImages,
    collate,
    draw_episode,
    draw_test_list,
    read_episodes,
    write_episodes,
)
from svfseg.data.folder import folder
from svfseg.data.index import Index, Sample, Split, base_split, novel_split, take
from svfseg.data.pascal import pascal5i
from svfseg.data.synthetic import stickers
from svfseg.errors import InputError

__all__ = [
    "BENCHMARKS",
    "ClassCrops",
    "Episode",
    "Index",
    "Sample",
    "Split",
    "TestBatches",
    "TestEpisodes",
    "TrainEpisodes",
    "WholeImages",
    "base_split",
    "build_splits",
    "coco20i",
    "collate",
    "draw_episode",
    "draw_test_list",
    "folder",
    "novel_split",
    "pascal5i",
    "read_episodes",
    "stickers",
    "take",
    "test_index",
    "train_index",
    "write_episodes",
]


# Each gets the settings and whether the images to test on are wanted.
BENCHMARKS: dict[str, Callable[[DataConfig, bool], Index]] = {
    "pascal5i": lambda c, test: pascal5i(c.root, _lists(c, test)),
    "coco20i": lambda c, test: coco20i(c.root, _lists(c, test), c.convention),
    "stickers": lambda c, test: (
        stickers(0, max(1, c.num_images // 2), "test")
        if test
        else stickers(0, c.num_images, "train")
    ),
    "folder": lambda c, test: folder(c.root),
}


def _lists(config: DataConfig, test: bool) -> tuple[str, ...]:
    return (config.test_list,) if test else config.train_lists


def train_index(config: DataConfig) -> Index:
    """Index all training images of a config, before the rule of the fold.

    Raises:
        InputError: an unknown benchmark.
    """
    return _index(config, test=False)


def test_index(config: DataConfig) -> Index:
    """Index all test images of a config, before the rule of the fold.

    Raises:
        InputError: an unknown benchmark.
    """
    return _index(config, test=True)


def _index(config: DataConfig, test: bool) -> Index:
    index: Index = look_up(config.name, BENCHMARKS, "benchmark")(config, test)
    return index


def build_splits(config: DataConfig) -> tuple[Split, Split]:
    """Split a fold into training and base-class validation images, disjoint in images.

    Raises:
        InputError: the fold is out of range, or the fraction is not in [0, 1).
    """
    if not 0 <= config.validation_fraction < 1:
        raise InputError(
            f"data.validation_fraction is {config.validation_fraction}: expected 0 to below 1"
        )
    index = train_index(config)
    train, validation = (
        base_split(index, config.fold, config.train_images, part, config.validation_fraction)
        for part in ("train", "validation")
    )
    return (take(train, config.train_count) if config.train_count else train), validation
