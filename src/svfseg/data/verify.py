"""The report that verifying a list of a benchmark gives."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from svfseg.data.index import Index, base_split, novel_split


@dataclass(frozen=True)
class ListReport:
    """What `verify` found of one list.

    Attributes:
        name: name of the list.
        images: lines in it.
        classes: class name -> images with at least the minimum area of it.
        test: images a fold's test has, for each fold.
        train: images a fold's training has, without images that hold a novel class.
        train_all: the same with them.
        problems: missing, unreadable or mismatched files, one line each.
        published: images a fold's test has in the literature, where the list is whole.
    """

    name: str
    images: int
    classes: dict[str, int]
    test: tuple[int, ...]
    train: tuple[int, ...]
    train_all: tuple[int, ...]
    problems: tuple[str, ...]
    published: tuple[int, ...] | None = None


def list_report(
    index: Index,
    name: str,
    images: int,
    problems: Sequence[str],
    published: tuple[int, ...] | None = None,
) -> ListReport:
    """Count the classes and folds of an index."""
    tally = Counter(
        index.classes[c - 1]
        for row in index.pixels
        for c, n in row.items()
        if n >= index.min_pixels
    )
    folds = range(len(index.folds))
    return ListReport(
        name=name,
        images=images,
        classes={c: tally[c] for c in index.classes},
        test=tuple(len(novel_split(index, f).queries) for f in folds),
        train=tuple(len(base_split(index, f).queries) for f in folds),
        train_all=tuple(len(base_split(index, f, "all").queries) for f in folds),
        problems=tuple(problems),
        published=published,
    )
