"""Benchmarks as indices from class to images, and the episodes drawn from them."""

from svfseg.config import DataConfig
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
from svfseg.data.index import Index, Split, base_split, novel_split, take
from svfseg.data.pascal import pascal5i
from svfseg.data.stickers import stickers

__all__ = [
    "ClassCrops",
    "Episode",
    "Index",
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


def train_index(config: DataConfig) -> Index:
    """All images a config trains on, before the fold's rule."""
    if config.name == "pascal5i":
        return pascal5i(config.root, config.train_lists)
    if config.name == "coco20i":
        return coco20i(config.root, config.train_lists, config.convention)
    if config.name == "stickers":
        return stickers(0, config.images, "train")
    return folder(config.root)


def test_index(config: DataConfig) -> Index:
    """All images a config tests on, before the fold's rule."""
    if config.name == "pascal5i":
        return pascal5i(config.root, (config.test_list,))
    if config.name == "coco20i":
        return coco20i(config.root, (config.test_list,), config.convention)
    if config.name == "stickers":
        return stickers(0, max(1, config.images // 2), "test")
    return folder(config.root)


def build_splits(config: DataConfig) -> tuple[Split, Split]:
    """(training, base-class validation) images of a fold, disjoint in images.

    Raises:
        ValueError: the fold is out of range, or the fraction is not in [0, 1).
    """
    if not 0 <= config.validation_fraction < 1:
        raise ValueError(
            f"data.validation_fraction is {config.validation_fraction}: expected 0 to below 1"
        )
    index = train_index(config)
    train, validation = (
        base_split(index, config.fold, config.train_images, part, config.validation_fraction)
        for part in ("train", "validation")
    )
    return (take(train, config.train_count) if config.train_count else train), validation
