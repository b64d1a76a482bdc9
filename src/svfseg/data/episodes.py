"""Episodes: a class, a query and its supports, each a pure function of (seed, index)."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, NotRequired, TypedDict

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from svfseg.data.index import Index, Sample, Split
from svfseg.data.transforms import (
    augment,
    class_mask,
    fit_image,
    fit_mask,
    numbered,
    to_ids,
    to_tensor,
)
from svfseg.errors import InputError, MissingFileError
from svfseg.files import parse_json, write_text

FORMAT = 1


class Episode(NamedTuple):
    """Positions in an index: the query's and the supports', and the class they share."""

    class_id: int
    query: int
    support: tuple[int, ...]


class Item(TypedDict):
    """An episode as tensors.

    query (3, size, size), support (shots, 3, size, size) and support_mask (shots, size, size) are
    what a head takes; target (size, size) is the query's mask on the same square, of 0, 1, 255;
    original (height, width) the same at the image's own size. In training base_target is the
    query's mask of all base classes, numbered from 1, and class_number the episode's among them.
    """

    query: Tensor
    support: Tensor
    support_mask: Tensor
    target: Tensor
    original: Tensor
    class_id: int
    base_target: NotRequired[Tensor]
    class_number: NotRequired[Tensor]


def draw_episode(
    source: Split, shot: int, seed: int, index: int, in_order: bool = False
) -> Episode:
    """Draw episode number ``index`` of the stream ``seed``.

    The query's class is drawn from all of the split's classes in its mask, whatever their area;
    supports from the images with enough of it, without replacement and never the query (PFENet).

    Args:
        source: where images are drawn from; its classes must have enough (`Split.require`).
        shot: number of supports.
        seed: seed of the stream.
        index: number of the episode.
        in_order: queries in list order, again and again (the published test); else each pass
            over the images is shuffled anew.
    """
    passed, position = divmod(index, len(source.queries))
    if not in_order:
        position = _order(seed, passed, len(source.queries))[position]
    query = source.queries[position]
    rng = np.random.default_rng((seed, index))
    present = [c for c in source.classes if c in source.index.pixels[query]]
    class_id = int(present[rng.integers(len(present))])
    others = [i for i in source.images[class_id] if i != query]
    chosen = rng.choice(len(others), size=shot, replace=False)
    return Episode(class_id, query, tuple(others[i] for i in chosen))


class TrainEpisodes(Dataset[Item]):
    """An endless stream of augmented episodes (its length is the number asked for)."""

    def __init__(
        self,
        source: Split,
        shot: int,
        seed: int,
        length: int,
        size: int,
        scale: tuple[float, float],
        fit: bool,
    ) -> None:
        self.source = source.require(shot)
        self.shot, self.seed, self.length = shot, seed, length
        self.size, self.scale, self.fit = size, scale, fit

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Item:
        episode = draw_episode(self.source, self.shot, self.seed, index)
        pairs = []
        for slot, position in enumerate((episode.query, *episode.support)):
            sample = self.source.index.load(position)
            rng = np.random.default_rng((self.seed, index, slot))
            ids, image = to_ids(sample.mask), to_tensor(sample.image)
            image, ids = augment(
                image, ids, self.size, self.scale, self.fit, rng, episode.class_id
            )  # fmt: skip
            if slot == 0:
                base_target = numbered(ids, self.source.classes)
            pairs.append((image, class_mask(ids, episode.class_id)))
        item = _item(pairs, pairs[0][1], episode.class_id)
        item["base_target"] = base_target
        item["class_number"] = torch.tensor(1 + self.source.classes.index(episode.class_id))
        return item


class ClassCrops(Dataset[dict[str, Tensor]]):
    """Augmented images with all base classes in their masks, for a base learner.

    An item holds image (3, size, size) and target (size, size) of 0, 1 to n, and 255.
    """

    def __init__(
        self,
        source: Split,
        seed: int,
        length: int,
        size: int,
        scale: tuple[float, float],
        fit: bool,
    ) -> None:
        self.source, self.seed, self.length = source, seed, length
        self.size, self.scale, self.fit = size, scale, fit

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        passed, place = divmod(index, len(self.source.queries))
        place = _order(self.seed, passed, len(self.source.queries))[place]
        sample = self.source.index.load(self.source.queries[place])
        rng = np.random.default_rng((self.seed, index))
        image, ids = augment(
            to_tensor(sample.image), to_ids(sample.mask), self.size, self.scale, self.fit, rng, None
        )
        return {"image": image, "target": numbered(ids, self.source.classes)}


class WholeImages(Dataset[dict[str, Tensor]]):
    """Images on the test path with all base classes in their masks; items as of `ClassCrops`."""

    def __init__(self, source: Split, size: int) -> None:
        self.source, self.size = source, size

    def __len__(self) -> int:
        return len(self.source.queries)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        sample = self.source.index.load(self.source.queries[index])
        target = numbered(to_ids(sample.mask), self.source.classes)
        image = fit_image(to_tensor(sample.image), self.size)
        return {"image": image, "target": fit_mask(target, self.size)}


class TestEpisodes(Dataset[Item]):
    """A fixed list of episodes along the published test path."""

    __test__ = False  # not a test case, whatever its name

    def __init__(self, index: Index, episodes: Sequence[Episode], size: int) -> None:
        self.index, self.episodes, self.size = index, episodes, size

    def __len__(self) -> int:
        return len(self.episodes)

    def __getitem__(self, index: int) -> Item:
        episode = self.episodes[index]
        pairs, masks = [], []
        for position in (episode.query, *episode.support):
            sample = self.index.load(position)
            mask = class_mask(sample.mask, episode.class_id)
            image = fit_image(to_tensor(sample.image), self.size)
            pairs.append((image, fit_mask(mask, self.size)))
            masks.append(mask)
        return _item(pairs, masks[0], episode.class_id)


class TestBatches(Dataset[dict[str, Any]]):
    """Batches of test episodes along the published path, each image read where it first appears.

    An item holds "episodes", the queries' masks ("original", and "target" on the square) and
    "fresh": position -> (image, class id -> mask) of the images that no earlier batch had.

    Args:
        index: the images.
        episodes: in order.
        size: side of the square that images are fitted to.
        batch: episodes of a batch.
        classes: position -> class ids whose masks are wanted with the image.
    """

    __test__ = False

    def __init__(
        self,
        index: Index,
        episodes: Sequence[Episode],
        size: int,
        batch: int,
        classes: Mapping[int, Sequence[int]],
    ) -> None:
        self.index, self.size, self.classes = index, size, classes
        self.batches = [episodes[i : i + batch] for i in range(0, len(episodes), batch)]
        self.first: list[list[int]] = []
        seen: set[int] = set()
        for group in self.batches:
            positions = {p for e in group for p in (e.query, *e.support)} - seen
            self.first.append(sorted(positions))
            seen |= positions
        self._latest: tuple[int, Sample] | None = None

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, number: int) -> dict[str, Any]:
        masks = []
        for episode in self.batches[number]:
            # episodes come sorted by query: the same file again and again
            if self._latest is None or self._latest[0] != episode.query:
                self._latest = (episode.query, self.index.load(episode.query))
            masks.append(class_mask(self._latest[1].mask, episode.class_id))
        return {
            "episodes": self.batches[number],
            "original": masks,
            "target": [fit_mask(mask, self.size) for mask in masks],
            "fresh": {position: self.read(position) for position in self.first[number]},
        }

    def read(self, position: int) -> tuple[Tensor, dict[int, Tensor]]:
        """Read an image on the square, and the masks of its classes."""
        latest = self._latest
        known = latest is not None and latest[0] == position
        sample = latest[1] if known and latest is not None else self.index.load(position)
        masks = {c: fit_mask(class_mask(sample.mask, c), self.size) for c in self.classes[position]}
        return fit_image(to_tensor(sample.image), self.size), masks


def collate(items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Stack the tensors of one size; originals and class ids stay lists."""
    lists = ("original", "class_id")
    return {
        name: [item[name] for item in items]
        if name in lists
        else torch.stack([item[name] for item in items])
        for name in items[0]
    }


def draw_test_list(source: Split, shot: int, seed: int, count: int) -> list[Episode]:
    """Draw the first ``count`` test episodes of a seed, queries in list order."""
    source.require(shot)
    return [draw_episode(source, shot, seed, i, in_order=True) for i in range(count)]


def write_episodes(path: str | Path, index: Index, episodes: Sequence[Episode]) -> None:
    """Write a test list as JSON, images by name, with a hash over all of it."""
    rows = [
        {
            "class": index.classes[e.class_id - 1],
            "query": index.items[e.query],
            "support": [index.items[i] for i in e.support],
        }
        for e in episodes
    ]
    content = {"format": FORMAT, "benchmark": index.name, "episodes": rows}
    text = json.dumps({**content, "sha256": _hash(content)}, indent=1)
    write_text(Path(path), text + "\n")


def read_episodes(path: str | Path, index: Index) -> list[Episode]:
    """Read a test list back.

    Raises:
        MissingFileError: no such file.
        InputError: changed since it was written, of another format, or of other images.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(f"no episode list at {path}")
    try:
        content = parse_json(path.read_text())
        expected, version = content.pop("sha256"), content["format"]
        rows = content["episodes"]
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise InputError(f"{path} is not a list of episodes: {error!r}") from error
    if version != FORMAT:
        raise InputError(f"{path} has format {version}, expected {FORMAT}: update svfseg")
    if _hash(content) != expected:
        raise InputError(f"{path} was changed after it was written: its hash does not match")
    classes = {name: i for i, name in enumerate(index.classes, start=1)}
    positions = {name: i for i, name in enumerate(index.items)}
    try:
        return [
            Episode(
                classes[row["class"]],
                positions[row["query"]],
                tuple(positions[name] for name in row["support"]),
            )
            for row in rows
        ]
    except KeyError as error:
        raise InputError(f"{path} names {error}, which {index.name} does not have") from error


def _item(pairs: list[tuple[Tensor, Tensor]], original: Tensor, class_id: int) -> Item:
    (query, target), *support = pairs
    return Item(
        query=query,
        support=torch.stack([image for image, _ in support]),
        support_mask=torch.stack([mask for _, mask in support]),
        target=target,
        original=original,
        class_id=class_id,
    )


@lru_cache(maxsize=8)
def _order(seed: int, passed: int, length: int) -> tuple[int, ...]:
    rng = np.random.default_rng((seed, passed, length))
    return tuple(int(i) for i in rng.permutation(length))


def _hash(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
