"""Index images by class and number of pixels, and split the classes into folds."""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple
from zlib import crc32

import numpy as np

from svfseg.data.images import Array
from svfseg.data.masks import read_mask
from svfseg.errors import InputError, MissingFileError
from svfseg.files import cache_folder, read_text, replace_file

IGNORE = 255
# An image stands for a class with at least this many pixels of it at full resolution (PFENet).
MIN_PIXELS = 2 * 32 * 32
# what to do where a benchmark's folder is not there
SET_ROOT = "set --data.root (--root of study, analyze and data)"

Pixels = dict[int, int]


class Sample(NamedTuple):
    """An image with its mask: (height, width, 3) and (height, width), uint8, ids with 255."""

    image: Array
    mask: Array


@dataclass(frozen=True)
class Index:
    """A list of annotated images with their classes and folds.

    Attributes:
        name: name of the benchmark and list, for messages and files.
        classes: names; the id of a class is its position + 1, background is 0.
        folds: the novel class ids of each fold.
        items: a name for each image.
        pixels: for each image, class id -> pixels in the full-resolution mask (0 and 255 left out).
        load: position -> image and mask.
        min_pixels: area from which an image counts for a class.
    """

    name: str
    classes: tuple[str, ...]
    folds: tuple[tuple[int, ...], ...]
    items: tuple[str, ...]
    pixels: tuple[Pixels, ...]
    load: Callable[[int], Sample]
    min_pixels: int = MIN_PIXELS

    def novel(self, fold: int) -> tuple[int, ...]:
        """List the class ids that a fold tests.

        Raises:
            InputError: no such fold.
        """
        if not 0 <= fold < len(self.folds):
            raise InputError(f"fold is {fold}: {self.name} has folds 0 to {len(self.folds) - 1}")
        return self.folds[fold]

    def base(self, fold: int) -> tuple[int, ...]:
        """List the class ids that a fold trains."""
        novel = self.novel(fold)
        return tuple(c for c in range(1, len(self.classes) + 1) if c not in novel)


@dataclass(frozen=True)
class Split:
    """The part of an index that episodes are drawn from.

    Attributes:
        index: where the images are.
        classes: ids that episodes may be about.
        queries: positions of images with at least one of the classes at `Index.min_pixels`.
        images: class id -> positions of the images that may be its supports.
    """

    index: Index
    classes: tuple[int, ...]
    queries: tuple[int, ...]
    images: dict[int, tuple[int, ...]]

    def names(self) -> dict[int, str]:
        """Map class ids to names."""
        return {c: self.index.classes[c - 1] for c in self.classes}

    def with_enough(self, shot: int) -> "Split":
        """Leave out the classes that have too few images for an episode."""
        images = {c: i for c, i in self.images.items() if len(i) > shot}
        positions = {i for group in images.values() for i in group}
        queries = tuple(i for i in self.queries if i in positions)
        return Split(self.index, tuple(images), queries, images)

    def require(self, shot: int, few: Literal["refuse", "drop"] = "refuse") -> "Split":
        """Check that every class has a query and ``shot`` other images; give the split itself.

        Args:
            shot: supports of an episode.
            few: "drop" leaves out classes with too few images; at least one must have enough.

        Raises:
            InputError: names the classes that have too few images.
        """
        if shot < 1:
            raise InputError(f"shot is {shot}: an episode needs at least 1 support")
        if few == "drop" and (enough := self.with_enough(shot)).classes:
            return enough
        short = [
            f"{self.index.classes[c - 1]} ({len(self.images[c])})"
            for c in self.classes
            if len(self.images[c]) < shot + 1
        ]
        if short:
            raise InputError(
                f"too few images in {self.index.name} for {shot} shot(s) and a query: "
                f"{', '.join(short)}; add images with at least {self.index.min_pixels} pixels of "
                "the class, ask for fewer shots, or set data.on_small_class to drop"
            )
        return self


def split(
    index: Index,
    classes: Iterable[int],
    keep: Callable[[int], bool] = lambda position: True,
) -> Split:
    """Select the images of an index that count for some of the classes.

    Args:
        index: all images.
        classes: ids that episodes may be about.
        keep: positions to take at all.
    """
    wanted = tuple(classes)
    large = [
        [c for c in wanted if pixels.get(c, 0) >= index.min_pixels] if keep(position) else []
        for position, pixels in enumerate(index.pixels)
    ]
    return Split(
        index=index,
        classes=wanted,
        queries=tuple(i for i, class_ids in enumerate(large) if class_ids),
        images={c: tuple(i for i, class_ids in enumerate(large) if c in class_ids) for c in wanted},
    )


def novel_split(index: Index, fold: int) -> Split:
    """Select the images of test episodes: those with enough of a novel class of the fold."""
    return split(index, index.novel(fold))


def base_split(
    index: Index,
    fold: int,
    rule: Literal["base-only", "all"] = "base-only",
    part: Literal["train", "validation", "both"] = "both",
    validation_fraction: float = 0.0,
) -> Split:
    """Select the images of training episodes.

    Args:
        index: all training images.
        fold: whose novel classes are left out.
        rule: "base-only" drops every image with any pixel of a novel class (BAM, SVF); "all"
            keeps them, the novel pixels being background (PFENet).
        part: "validation" takes the share of images that is held out of "train", chosen by a
            hash of the name: the same whatever the fold, list or order.
        validation_fraction: that share.
    """
    novel = set(index.novel(fold))

    def keep(position: int) -> bool:
        if rule == "base-only" and novel & index.pixels[position].keys():
            return False
        held_out = crc32(index.items[position].encode()) / 2**32 < validation_fraction
        return part == "both" or held_out == (part == "validation")

    return split(index, index.base(fold), keep)


def take(source: Split, count: int) -> Split:
    """Take ``count`` images, class by class in turn; a larger count includes a smaller one.

    Raises:
        InputError: the split has fewer images.
    """
    if not 0 < count <= len(source.queries):
        raise InputError(
            f"data.train_count is {count}: {source.index.name} has {len(source.queries)} images "
            "to train on"
        )
    waiting = {
        c: sorted(images, key=lambda i: crc32(f"part {source.index.items[i]}".encode()))
        for c, images in source.images.items()
    }
    chosen: dict[int, None] = {}
    while len(chosen) < count:
        for images in waiting.values():
            while images and images[0] in chosen:
                images.pop(0)
            if images and len(chosen) < count:
                chosen[images.pop(0)] = None
    return split(source.index, source.classes, chosen.__contains__)


_OF_CLASS = re.compile(r"__\d{1,2}$")  # HSNet's lists name an image and a class


def read_list(path: Path) -> list[str]:
    """Read the image names of a list file: one per line, or paths whose first stem is the name.

    Of VOC's lists of a class (a second column of 1, 0 and -1) the images that show it are taken,
    and of HSNet's the class behind each name is cut off.

    Raises:
        MissingFileError: no such list.
        InputError: an empty list.
    """
    if not path.is_file():
        raise MissingFileError(f"no image list at {path}")
    rows = [line.split() for line in read_text(path).splitlines() if line.strip()]
    if rows and all(len(row) == 2 and row[1] in ("-1", "0", "1") for row in rows):
        rows = [row for row in rows if row[1] != "-1"]  # of one class: these do not show it
    names = [Path(row[0]).stem for row in rows]
    if all(_OF_CLASS.search(name) for name in names):
        names = list(dict.fromkeys(_OF_CLASS.sub("", name) for name in names))
    if not names:
        raise InputError(f"{path} lists no images")
    return names


def count_pixels(masks: Sequence[Path], what: str) -> tuple[Pixels, ...]:
    """Count the pixels of each class in each mask; they are stored until a mask changes.

    Raises:
        InputError: masks that are missing or cannot be read, the first ones named.
    """
    try:
        stamps = [f"{m} {m.stat().st_size} {m.stat().st_mtime_ns}" for m in masks]
    except OSError:
        missing = [m for m in masks if not m.is_file()]
        raise MissingFileError(
            f"{what}: {len(missing)} of {len(masks)} masks are missing, first {missing[0]}"
        ) from None
    digest = hashlib.sha256("\n".join(stamps).encode()).hexdigest()[:24]
    cached = cache_folder() / f"pixels-{digest}.json"
    try:
        rows = json.loads(cached.read_text())
        return tuple({int(c): n for c, n in row.items()} for row in rows)
    except (OSError, ValueError, AttributeError):
        pass
    problems: list[str] = []

    def count(path: Path) -> Pixels:
        try:
            return class_pixels(read_mask(path))
        except (OSError, InputError) as error:
            problems.append(str(error))
            return {}

    with ThreadPoolExecutor() as pool:
        counted = tuple(pool.map(count, masks))
    if problems:
        raise InputError(f"{what}: {len(problems)} masks cannot be used, first: {problems[0]}")
    try:
        with replace_file(cached) as fresh:
            fresh.write_text(json.dumps(counted))
    except OSError:
        pass  # only slower the next time
    return counted


def class_pixels(mask: Array) -> Pixels:
    """Count the pixels of each class id in a mask, without background and ignored pixels."""
    counts = np.bincount(mask.ravel(), minlength=256)
    return {int(c): int(counts[c]) for c in np.flatnonzero(counts) if c not in (0, IGNORE)}
