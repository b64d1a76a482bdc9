"""mIoU and FB-IoU: hand-made cases, and torchmetrics' Jaccard index as a second opinion."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.classification import MulticlassJaccardIndex

from svfseg.lab.metrics import IoUMeter, intersection_union


def test_by_hand() -> None:
    prediction = torch.tensor([[1, 1, 0], [0, 1, 0]])
    target = torch.tensor([[1, 0, 0], [1, 255, 255]])
    intersection, union = intersection_union(prediction, target)
    # valid pixels: (1,1) both, (1,0) predicted only, (0,0) neither, (0,1) missed
    assert intersection.tolist() == [1, 1]
    assert union.tolist() == [3, 3]


def test_sums_before_dividing_not_the_mean_of_episodes() -> None:
    meter = IoUMeter({1: "cat", 2: "dog"})
    small = torch.zeros(10, 10, dtype=torch.long)
    small[0, 0] = 1
    large = torch.ones(10, 10, dtype=torch.long)
    meter.update(small, small, 1)  # IoU 1 on one pixel
    meter.update(torch.zeros_like(large), large, 1)  # IoU 0 on a hundred
    meter.update(large, large, 2)
    assert meter.per_class() == pytest.approx({"cat": 1 / 101, "dog": 1.0})
    assert meter.miou() == pytest.approx((1 / 101 + 1) / 2)
    # background: 99 of 199; foreground: 101 of 201
    assert meter.fb_iou() == pytest.approx((99 / 199 + 101 / 201) / 2)


def test_a_class_never_met_scores_zero() -> None:
    meter = IoUMeter({3: "bird", 4: "boat"})
    mask = torch.ones(2, 2, dtype=torch.long)
    meter.update(mask, mask, 3)
    assert meter.miou() == pytest.approx(0.5)


def test_everything_ignored_counts_nowhere() -> None:
    ignored = torch.full((3, 3), 255)
    intersection, union = intersection_union(torch.ones(3, 3), ignored)
    assert intersection.sum() == union.sum() == 0


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match="differ in shape"):
        intersection_union(torch.zeros(2, 2), torch.zeros(2, 3))


def episodes_of(seed: int, count: int) -> list[tuple[torch.Tensor, torch.Tensor, int]]:
    generator = torch.Generator().manual_seed(seed)
    drawn = []
    for _ in range(count):
        prediction = torch.randint(0, 2, (6, 7), generator=generator)
        target = torch.randint(0, 2, (6, 7), generator=generator)
        target[torch.rand(6, 7, generator=generator) < 0.2] = 255
        drawn.append((prediction, target, int(torch.randint(1, 6, (1,), generator=generator))))
    return drawn


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.integers(1, 20))
def test_equals_the_jaccard_index_on_class_ids(seed: int, count: int) -> None:
    classes = {i: f"class {i}" for i in range(1, 6)}
    meter = IoUMeter(classes)
    jaccard = MulticlassJaccardIndex(6, average="none", ignore_index=255)
    binary = MulticlassJaccardIndex(2, average="macro", ignore_index=255)
    for prediction, target, class_id in episodes_of(seed, count):
        meter.update(prediction, target, class_id)
        named = torch.where(target == 1, class_id, target)
        jaccard.update(prediction * class_id, named)
        binary.update(prediction, target)
    expected = jaccard.compute()[1:]
    assert torch.tensor(list(meter.per_class().values())) == pytest.approx(expected, abs=1e-6)
    assert meter.fb_iou() == pytest.approx(float(binary.compute()), abs=1e-6)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000), st.integers(2, 12), st.integers(1, 11))
def test_parts_merge_to_the_whole(seed: int, count: int, cut: int) -> None:
    classes = {i: str(i) for i in range(1, 6)}
    whole, left, right = (IoUMeter(classes) for _ in range(3))
    for i, episode in enumerate(episodes_of(seed, count)):
        whole.update(*episode)
        (left if i < cut else right).update(*episode)
    left.merge(right)
    assert left.per_class() == whole.per_class()
    assert left.fb_iou() == whole.fb_iou()
    assert left.episodes == whole.episodes == count
