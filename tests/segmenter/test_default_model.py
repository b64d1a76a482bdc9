"""The packaged model on fixed pictures: its accuracy stays, and its confidence sorts by it."""

import itertools

import numpy as np
import pytest

from svfseg import FewShotSegmenter
from svfseg.data.index import Sample
from tests.segmenter.scenes import SIDE, scene


def iou(mask: np.ndarray, truth: np.ndarray) -> float:
    return float(((mask == 1) & (truth == 1)).sum() / ((mask == 1) | (truth == 1)).sum())


def fitted(**parameters: object) -> FewShotSegmenter:
    supports = [scene(0), scene(1)]
    segmenter = FewShotSegmenter(device="cpu", **parameters)  # type: ignore[arg-type]
    return segmenter.fit([s.image for s in supports], [s.mask for s in supports])


# Written down with torch 2.9 on a CPU; another machine's rounding moves them by thousandths.
ACCURACY = {"as it is": 0.9946, "threshold 0.5, never empty": 0.9992}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("as it is", {"size": SIDE}),
        ("threshold 0.5, never empty", {"threshold": 0.5, "reject_absent": False}),
    ],
)
def test_the_default_model_is_as_accurate_as_it_was(
    name: str, parameters: dict[str, object]
) -> None:
    segmenter = fitted(**parameters)
    found = [iou(segmenter.predict(q.image).mask, q.mask) for q in map(scene, range(10, 16))]
    assert float(np.mean(found)) == pytest.approx(ACCURACY[name], abs=0.02)


def test_confidence_sorts_images_by_their_iou() -> None:
    """Sixteen pictures, ever harder to see: who is less sure is more often wrong."""
    segmenter = fitted(size=SIDE)
    queries: list[Sample] = [scene(n, c) for c in (0.3, 0.2, 0.15, 0.1) for n in range(10, 14)]
    results = [segmenter.predict(query.image) for query in queries]
    scores = [
        (iou(result.mask, query.mask), result.confidence["class"])
        for result, query in zip(results, queries, strict=True)
    ]
    pairs = [(a, b) for a, b in itertools.combinations(scores, 2) if abs(a[0] - b[0]) > 0.05]
    assert len(pairs) > 60  # the pictures differ enough to be sorted
    agree = [(a[0] - b[0]) * (a[1] - b[1]) > 0 for a, b in pairs]
    assert np.mean(agree) > 0.9


def test_an_image_without_the_class_is_less_sure_than_one_with_it() -> None:
    segmenter = fitted(size=SIDE, reject_absent=False, threshold=0.3)
    with_it = [segmenter.predict(scene(n).image).least_confidence for n in (10, 11, 12)]
    without = [segmenter.predict(scene(n, contrast=0).image).least_confidence for n in (10, 11, 12)]
    assert min(with_it) > max(without)
