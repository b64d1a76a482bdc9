"""scikit-learn's own tools on a FewShotSegmenter."""

from statistics import mean

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError as SklearnNotFitted
from sklearn.model_selection import GridSearchCV, KFold, cross_val_score
from sklearn.pipeline import Pipeline
from sklearn.utils import get_tags
from sklearn.utils.validation import check_is_fitted

from svfseg import FewShotSegmenter
from tests.segmenter.scenes import scene

SCENES = [scene(number) for number in range(4)]
IMAGES = [each.image for each in SCENES]
MASKS = [each.mask for each in SCENES]


def small(**parameters: object) -> FewShotSegmenter:
    values = {"size": 96, "threshold": 0.5, "reject_absent": False, "device": "cpu"}
    return FewShotSegmenter(**values | parameters)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def fitted() -> FewShotSegmenter:
    return small().fit(IMAGES[:2], MASKS[:2])


def iou(segmenter: FewShotSegmenter, images: list[np.ndarray], masks: list[np.ndarray]) -> float:
    """Of one class, by hand: intersections and unions are summed over the images."""
    found = [segmenter.predict(image).mask == 1 for image in images]
    both = sum(int((f & (m == 1)).sum()) for f, m in zip(found, masks, strict=True))
    either = sum(int((f | (m == 1)).sum()) for f, m in zip(found, masks, strict=True))
    return both / either


def test_a_clone_has_the_parameters_and_nothing_that_was_fitted(fitted: FewShotSegmenter) -> None:
    twin = clone(fitted.set_params(batch=2))
    assert twin.get_params() == fitted.get_params()
    assert twin.batch == 2
    with pytest.raises(SklearnNotFitted):
        check_is_fitted(twin)


def test_check_is_fitted_knows_before_and_after() -> None:
    segmenter = small()
    with pytest.raises(SklearnNotFitted, match="not fitted yet"):
        check_is_fitted(segmenter)
    segmenter.fit(IMAGES[0], MASKS[0])
    check_is_fitted(segmenter)
    check_is_fitted(segmenter, ["classes_", "thresholds_"])
    with pytest.raises(SklearnNotFitted):
        check_is_fitted(segmenter.unfit())


def test_tags_say_what_it_takes() -> None:
    tags = get_tags(small())
    assert tags.target_tags.required
    assert tags.input_tags.three_d_array
    assert not tags.input_tags.two_d_array
    assert tags.estimator_type is None


def test_setting_parameters_does_not_unfit(fitted: FewShotSegmenter) -> None:
    before = fitted.predict(IMAGES[2]).mask
    assert fitted.set_params(size=128, seed=3) is fitted
    check_is_fitted(fitted)
    assert np.array_equal(fitted.predict(IMAGES[2]).mask, before)  # size is for the next fit
    fitted.set_params(size=96, seed=0)


def test_the_last_step_of_a_pipeline(fitted: FewShotSegmenter) -> None:
    pipeline = Pipeline([("segment", small())])
    assert pipeline.fit(IMAGES[:2], MASKS[:2]) is pipeline
    for one, other in zip(pipeline.predict(IMAGES[2:]), fitted.predict(IMAGES[2:]), strict=True):
        assert np.array_equal(one.mask, other.mask)
    score = pipeline.score(IMAGES[2:], MASKS[2:])
    assert score == pytest.approx(iou(fitted, IMAGES[2:], MASKS[2:]))
    assert pipeline.set_params(segment__threshold=0.3)["segment"].threshold == 0.3
    assert repr(pipeline)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "values"), [("size", [64, 96]), ("threshold", [0.99, 0.5])], ids=["size", "threshold"]
)
def test_a_grid_search_finds_the_best(name: str, values: list[float]) -> None:
    search = GridSearchCV(small(), {name: values}, cv=KFold(2), error_score="raise")
    search.fit(IMAGES, MASKS)
    by_hand = [
        mean(
            iou(
                small(**{name: value}).fit(IMAGES[a:b], MASKS[a:b]),
                IMAGES[:a] + IMAGES[b:],
                MASKS[:a] + MASKS[b:],
            )
            for a, b in ((2, 4), (0, 2))
        )
        for value in values
    ]
    assert search.cv_results_["mean_test_score"] == pytest.approx(by_hand)
    assert by_hand[1] > by_hand[0] + 0.01  # there is a best one to find
    assert search.best_params_ == {name: values[1]}
    assert search.best_estimator_.predict(IMAGES[0]).mask.any()


def test_cross_validation_scores_by_mean_iou() -> None:
    scores = cross_val_score(small(), IMAGES, MASKS, cv=KFold(2), error_score="raise")
    by_hand = [
        iou(small().fit(IMAGES[2:], MASKS[2:]), IMAGES[:2], MASKS[:2]),
        iou(small().fit(IMAGES[:2], MASKS[:2]), IMAGES[2:], MASKS[2:]),
    ]
    assert scores == pytest.approx(by_hand)
