"""How logits become masks: probabilities, thresholds, presence, and what a mask is worth."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from svfseg.models.presence import presence_score as cosine_presence
from svfseg.segmenter.calibration import (
    ClassThresholds,
    HeldOut,
    calibrate,
    expected_iou,
    probabilities,
)
from svfseg.segmenter.inference import presence_score
from svfseg.segmenter.thresholds import (
    BELOW,
    THRESHOLDS,
    TYPICAL,
    best_threshold,
    fit_logistic,
    presence_threshold,
)


def test_the_cut_with_the_highest_iou() -> None:
    map_ = torch.tensor([[0.9, 0.35, 0.2, 0.05]])
    target = torch.tensor([[1, 1, 0, 255]])
    cut, iou = best_threshold([map_], [target])
    assert (cut, iou) == (0.3, 1.0)  # of 0.2, 0.25, 0.3 the nearest to one half
    assert best_threshold([map_], [target], (0.5,)) == (0.5, 0.5)
    cut, iou = best_threshold([map_], [torch.zeros(1, 4)])
    assert cut == 0.5
    assert np.isnan(iou)


@given(st.integers(0, 2**31))
def test_no_other_cut_is_better(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    maps = [torch.rand(5, 6, generator=generator) for _ in range(3)]
    targets = [torch.randint(0, 2, (5, 6), generator=generator) for _ in range(3)]
    targets[0][0, 0] = 1
    _, best = best_threshold(maps, targets)
    assert best == max(best_threshold(maps, targets, (cut,))[1] for cut in THRESHOLDS)


@pytest.mark.parametrize(("slope", "shift"), [(1.0, 0.0), (0.3, -4.0), (6.0, 2.0)])
def test_the_logistic_that_made_the_labels_is_found(slope: float, shift: float) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(400, 300, generator=generator)
    shares = (slope * logits + shift).sigmoid()
    target = (torch.rand(400, 300, generator=generator) < shares).to(torch.uint8)
    target[:3] = 255
    logits[:3] = 1e4  # does not count
    found = fit_logistic([logits[:200], logits[200:]], [target[:200], target[200:]])
    assert found == pytest.approx((slope, shift), rel=0.06, abs=0.06)


def test_one_kind_alone_fits_nothing() -> None:
    logits = torch.randn(4, 4)
    assert fit_logistic([logits], [torch.zeros(4, 4)]) == (1.0, 0.0)
    assert fit_logistic([logits], [torch.full((4, 4), 255)]) == (1.0, 0.0)
    assert fit_logistic([], []) == (1.0, 0.0)
    # told apart without an error, and sorted the wrong way
    high = torch.tensor([[5.0, 5.0, -5.0, -5.0]])
    slope, shift = fit_logistic([high], [(high > 0).to(torch.uint8)])
    assert math.isfinite(slope)
    assert math.isfinite(shift)
    assert slope > 0.5
    assert fit_logistic([high], [(high < 0).to(torch.uint8)]) == (1.0, 0.0)


def test_presence_lies_below_images_with_the_class() -> None:
    """By spreads of many of them; of one, by what is typical of its height above the ground."""
    scores = np.random.default_rng(0).normal(5, 0.5, 400).tolist()
    least, spread = presence_threshold(scores, 0.0)
    assert spread == pytest.approx(0.5, rel=0.1)
    assert least == pytest.approx(5 - BELOW * 0.5, abs=0.1)
    assert np.mean(np.array(scores) < least) < 0.15
    least, spread = presence_threshold([5.0], 1.0)
    assert (least, spread) == (pytest.approx(5 - BELOW * TYPICAL * 4), pytest.approx(TYPICAL * 4))
    assert presence_threshold([2.0, 2.0], 2.0)[0] < 2  # flat: still below


def test_presence_is_the_mean_of_the_highest_logits() -> None:
    logits = torch.zeros(40, 50)
    logits[0, :10] = torch.arange(10.0)
    assert presence_score(logits) == pytest.approx(4.5)  # 10 of 2,000
    assert presence_score(torch.tensor([2.0])) == 2


def test_classes_compete_for_a_pixel() -> None:
    logits = torch.randn(3, 4, 5)
    scales = [(1.0, 0.0), (2.0, -1.0), (0.5, 3.0)]
    shares = probabilities(logits, scales)
    assert bool((shares.sum(dim=0) < 1).all())
    one = probabilities(logits[1:2], scales[1:2])
    torch.testing.assert_close(one[0], (2 * logits[1] - 1).sigmoid())


@given(st.integers(0, 1000))
def test_the_expected_iou_is_right_where_the_probabilities_are(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    share = torch.rand(120, 120, generator=generator) ** 3
    truth = torch.rand(120, 120, generator=generator) < share
    inside = share > 0.4
    iou = float((inside & truth).sum() / (inside | truth).sum())
    assert expected_iou(share, inside) == pytest.approx(iou, abs=0.05)
    assert expected_iou(share, torch.zeros_like(inside)) == 0


def held_out(number: int, quality: float) -> HeldOut:
    """A disc, and logits that know of it."""
    generator = torch.Generator().manual_seed(number)
    rows, columns = torch.meshgrid(torch.arange(100), torch.arange(120), indexing="ij")
    disc = (rows - 50) ** 2 + (columns - 40 - 5 * number) ** 2 < 20**2
    ids = disc.to(torch.uint8)
    ids[:2] = 255
    noise = torch.randn(100, 120, generator=generator)
    logits = (quality * (2.0 * disc - 1) + noise)[None]
    return HeldOut(logits, logits, ids, frozenset([1]))


def test_calibrating_on_held_out_supports() -> None:
    good = calibrate([held_out(n, 4.0) for n in range(3)], [], [1], None)[1]
    poor = calibrate([held_out(n, 0.5) for n in range(3)], [], [1], None)[1]
    assert good.iou > 0.95 > 0.5 > poor.iou
    assert good.slope > 1.5 > poor.slope
    # what surrounds a disc lies below, and what has one above
    scores = [presence_score(held_out(n, 4.0).alone[0]) for n in range(3)]
    assert presence_score(torch.randn(100, 120) - 4) < good.presence < min(scores)
    # images without the class that look like it move the threshold up, others down
    for level, is_stricter in ((4.0, True), (-4.0, False)):
        without = [torch.full((1, 100, 120), level)] * 9
        told = calibrate([held_out(n, 4.0) for n in range(3)], without, [1], None)[1]
        assert (told.presence > good.presence) is is_stricter
        assert told.presence < min(scores)
    assert calibrate([held_out(0, 4.0)], [], [1], 0.7)[1].threshold == 0.7


def test_surroundings_that_lie_far_below_let_it_lie_lower() -> None:
    """What surrounds the class is only told from it where it scores lower than the class."""

    def presence(level: float) -> float:
        answers = []
        for number in range(3):
            answer = held_out(number, 4.0)
            alone = answer.alone.clone()
            alone[0][answer.ids == 0] = -6 + 0.01 * number  # the ground is the same
            alone[0, -20:] = level  # a part of it
            answers.append(answer._replace(alone=alone))
        return calibrate(answers, [], [1], None)[1].presence

    usual = presence(8.0)
    assert presence(-6.0) < presence(0.0) <= usual


def test_of_halves_the_cut_is_nearer_to_zero() -> None:
    answers = [held_out(n, 4.0)._replace(logits=held_out(n, 4.0).logits + 3) for n in range(2)]
    rules = [calibrate(answers, [], [1], None, single)[1] for single in (None, "thing")]
    cuts = [
        (math.log(rule.threshold / (1 - rule.threshold)) - rule.shift) / rule.slope
        for rule in rules
    ]
    assert cuts[0] > 1.5
    assert cuts[1] == pytest.approx(0.2 * cuts[0], abs=0.02)
    assert rules[1].presence < rules[0].presence
    assert rules[1].correction == pytest.approx(0.6 * rules[0].correction, rel=0.1)


def test_nothing_held_out_is_the_plain_rule() -> None:
    rule = calibrate([], [], [1], None)[1]
    assert rule.threshold == 0.5
    assert rule.presence == -math.inf
    assert math.isnan(rule.iou)
    assert ClassThresholds.from_plain(rule.to_plain()).threshold == 0.5


def test_rules_of_format_1_are_read() -> None:
    old = {"threshold": 0.4, "presence": 0.7, "spread": 0.1, "iou": None}
    rule = ClassThresholds.from_plain(old)
    assert (rule.slope, rule.shift, rule.correction) == (1, 0, 1)
    assert math.isnan(rule.iou)


def test_evidence_is_high_where_the_class_is() -> None:
    torch.manual_seed(0)
    key = torch.nn.functional.normalize(torch.randn(16, 1), dim=0)
    deep = torch.randn(16, 6, 6)
    absent = cosine_presence(deep, key, torch.rand(24, 24))
    deep[:, 2:4, 2:4] = key[:, :, None]
    found = torch.zeros(24, 24)
    found[8:16, 8:16] = 1
    assert cosine_presence(deep, key, found) == pytest.approx(1, abs=0.2)
    assert absent < 0.6
    assert cosine_presence(deep, torch.zeros(16, 1), found) == 0
