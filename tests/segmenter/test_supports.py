"""Supports: their halves, and whether a class is one thing or a texture."""

import logging

import numpy as np
import pytest

from svfseg.data.index import Sample
from svfseg.segmenter.adaptation import Support
from svfseg.segmenter.supports import as_supports, judged_supports, kind_of

SIDE = 300


def marked(kind: str) -> Support:
    """A mask of one kind."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    masks = {
        "disc": (rows - 150) ** 2 + (columns - 120) ** 2 < 80**2,
        "two boxes": (np.abs(rows - 150) < 60) & (np.abs(columns % 150 - 75) < 50),
        "crack": np.abs(rows - columns) < 4,
        "hair": np.abs(rows - columns) < 1,
        "membrane": (rows % 30 < 6) | (columns % 30 < 6),
        "crowd": (rows % 75 - 37) ** 2 + (columns % 75 - 37) ** 2 < 20**2,
        "disc with specks": ((rows - 150) ** 2 + (columns - 120) ** 2 < 80**2)
        | ((rows % 100 < 6) & (columns % 100 < 6)),
        "nothing": rows < 0,
    }
    mask = masks[kind].astype(np.uint8)
    return Support(Sample(np.zeros((SIDE, SIDE, 3), np.uint8), mask), 0)


@pytest.mark.parametrize("kind", ["disc", "two boxes", "disc with specks", "nothing"])
def test_compact_things_are_things(kind: str) -> None:
    assert kind_of([marked(kind)], [1]) == "thing"
    assert kind_of([marked(kind), marked("disc")], [1]) == "thing"


@pytest.mark.parametrize("kind", ["crack", "hair", "membrane", "crowd"])
def test_textures_and_crowds_are_told_from_things(kind: str) -> None:
    """At any resolution of the image."""
    support = marked(kind)
    told = "crowd" if kind == "crowd" else "texture"
    assert kind_of([support], [1]) == told
    assert kind_of([support, marked("disc")], [1]) == told
    large = Sample(*(np.kron(a, np.ones((4, 4, 1)[: a.ndim], np.uint8)) for a in support.sample))
    assert kind_of([Support(large, 0)], [1]) == told


def test_two_sets_of_marks_of_an_image_are_cut_alike() -> None:
    """No part of the one half is in the other."""
    first = marked("disc")
    left = first.sample.mask.copy()
    left[:, 120:] = 255
    parts = judged_supports([first, Support(Sample(first.sample.image, left), 0)], [1])
    assert len(parts) == 4
    assert len({part.sample.mask.shape for part in parts if part.group == parts[0].group}) == 1


def test_halves_meet_in_the_middle_of_what_is_marked() -> None:
    """Nothing is lost, and each half shows the class."""
    parts = judged_supports([marked("disc")], [1])
    assert len(parts) == 2
    assert sum(part.sample.mask.size for part in parts) == SIDE * SIDE
    assert all(part.shows(1) for part in parts)
    assert len({part.group for part in parts}) == 2


def test_tiles_without_effect_are_said(caplog: pytest.LogCaptureFixture) -> None:
    sample = marked("disc").sample
    with caplog.at_level(logging.WARNING):
        as_supports([sample], True, SIDE - 1, 0.25)
        assert not caplog.records
        as_supports([sample], True, SIDE, 0.25)
    assert f"no support has a side of more than {SIDE} pixels" in caplog.text
