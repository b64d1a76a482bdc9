"""Fitting a task: the order of supports, the size by time, and what is said of it."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from svfseg import FewShotSegmenter
from svfseg.errors import InputError
from svfseg.models.decoder import Decoder
from svfseg.segmenter import speed
from svfseg.segmenter.summary import fit_summary
from tests.segmenter.scenes import scene


def supports(count: int) -> tuple[list[np.ndarray], list[np.ndarray | None]]:
    scenes = [scene(number) for number in range(count)]
    return [image for image, _ in scenes], [mask for _, mask in scenes]


def quick(**parameters: object) -> FewShotSegmenter:
    return FewShotSegmenter(**{"size": 128, "device": "cpu", **parameters})


def answers(segmenter: FewShotSegmenter) -> list[bytes]:
    images = [scene(number)[0] for number in (20, 21)]
    return [result.probabilities.tobytes() for result in segmenter.predict(images)]


@pytest.mark.parametrize("seconds", [0.0, 30.0])
def test_the_order_and_the_number_of_equal_supports_change_nothing(seconds: float) -> None:
    """To the last bit: as they were given, turned round, and each of them twice."""
    images, masks = supports(4)
    images.append(scene(9)[0])
    masks.append(None)
    usual = quick(seconds=seconds).fit(images, masks)
    turned = quick(seconds=seconds).fit(images[::-1], masks[::-1])
    doubled = quick(seconds=seconds).fit(images * 2, masks * 2)
    for other in (turned, doubled):
        assert answers(other) == answers(usual)
        assert other.thresholds_ == usual.thresholds_
        assert other.advice_ == usual.advice_
    assert len(doubled.features_[1]) == 4


def test_one_image_with_two_sets_of_marks_does_not_judge_itself() -> None:
    """Both count, but as one image: there is no other to hold out."""
    image, mask = scene(0)
    half = mask.copy()
    half[:, mask.shape[1] // 2 :] = 255
    segmenter = quick(seconds=0.0).fit([image, image], [mask, half])
    assert len(segmenter.features_[1]) == 2
    assert segmenter.advice_[0].startswith("mark class in a second image")


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("seconds", [0.0, 30.0])
def test_what_an_image_without_the_class_shows_is_not_the_class(
    count: int, seconds: float, tmp_path: Path
) -> None:
    """A look-alike in it is no evidence any more, there and in other images; a file keeps it."""
    images, masks = supports(count)
    alike = [scene(number, contrast=0.6)[0][..., ::-1] for number in (30, 31, 32)]
    usual = quick(seconds=seconds, reject_absent=False).fit(images, masks)
    told = quick(seconds=seconds, reject_absent=False).fit(
        [*images, *alike[:2]], [*masks, None, None]
    )
    assert len(told.predictor_.negatives) == 2

    def presence(segmenter: FewShotSegmenter, image: np.ndarray) -> float:
        (maps,) = segmenter.predictor_.predict_maps([image], segmenter.features_)
        return maps.presence[0]

    assert presence(told, alike[2]) < presence(usual, alike[2]) - 0.1
    assert presence(told, scene(9)[0]) > presence(told, alike[2])
    loaded = FewShotSegmenter.load(told.save(tmp_path / "task.svf"), device="cpu")
    assert answers(loaded) == answers(told)
    assert list(loaded.features_) == [1]


def test_presence_is_judged_by_the_comparison_alone() -> None:
    """Whatever a decoder adds, the score stays."""
    segmenter = quick(seconds=0.0).fit(*supports(3))
    decoder = Decoder(segmenter.predictor_.head.backbone.channels, 1).eval()
    torch.nn.init.normal_(decoder.last.weight)
    fitted = replace(segmenter.predictor_, decoder=decoder)
    (plain,) = segmenter.predictor_.predict_maps([scene(9)[0]], segmenter.features_)
    (added,) = fitted.predict_maps([scene(9)[0]], segmenter.features_)
    assert added.presence == plain.presence
    assert not torch.equal(added.logits, plain.logits)


def test_a_single_support_is_told_to_be_one() -> None:
    """No number for what nothing tells; a second image helps most."""
    image, mask = scene(0)
    segmenter = quick(seconds=0.0).fit(image, mask, ["thing"])
    lines = "\n".join(fit_summary(segmenter))
    assert "on the halves of its one support" in lines
    assert "what would help most: mark thing in a second image" in lines


def test_what_would_help_is_measured() -> None:
    """Of a class too thin for this size the larger one is named, with the IoU of both."""
    images, masks = [], []
    rng = np.random.default_rng(0)
    for number in range(4):
        image = rng.normal(100, 6, (512, 512, 3))
        mask = np.zeros((512, 512), np.uint8)
        for at in range(30 + 10 * number, 500, 90):
            mask[:, at : at + 6] = 1
        image[mask == 1] += 70
        images.append(image.clip(0, 255).astype(np.uint8))
        masks.append(mask)
    segmenter = FewShotSegmenter(size=160, seconds=120.0, device="cpu").fit(images, masks, ["line"])
    (line,) = [each for each in segmenter.advice_ if each.startswith("set size to 256")]
    there, usual = map(int, re.findall(r"(\d+) %", line))
    assert there >= usual + 3


def test_the_summary_says_what_an_iou_means() -> None:
    """Words and numbers of the same class."""
    segmenter = quick(seconds=30.0).fit(*supports(4), ["thing"])
    lines = fit_summary(segmenter)
    assert any(line.startswith("fitted: IoU") for line in lines)
    assert not any("seconds" in line for line in lines), "all steps were taken"
    (line,) = [each for each in lines if each.startswith("thing: ")]
    iou = round(100 * segmenter.thresholds_[1].iou)
    assert f"IoU {iou} % on left-out supports, 4 in all: " in line
    assert "mask" in line


def test_the_size_follows_from_the_time_of_an_image(monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest that keeps it; measured, not guessed."""
    image, mask = scene(0)
    asked = []

    def taken(predictor: object, image: np.ndarray) -> float:
        asked.append(predictor.size)  # type: ignore[attr-defined]
        return (predictor.size / 640) ** 2 * 0.2  # type: ignore[attr-defined,no-any-return]

    monkeypatch.setattr(speed, "query_seconds", taken)
    segmenter = FewShotSegmenter(seconds=0.0, seconds_per_image=0.1, device="cpu").fit(image, mask)
    assert segmenter.predictor_.size == 448
    assert asked == [256, 320, 384, 448, 512]
    slow = FewShotSegmenter(seconds=0.0, seconds_per_image=1e-6, device="cpu").fit(image, mask)
    assert slow.predictor_.size == 256


def test_the_time_of_an_image_is_measured() -> None:
    """A larger image takes longer; any shape has a time."""
    predictor = FewShotSegmenter(seconds=0.0, size=128, device="cpu").fit(*scene(0)).predictor_
    image = scene(0)[0]
    small = speed.query_seconds(predictor, image)
    large = speed.query_seconds(predictor.__class__(predictor.head, 640, "cpu"), image)
    assert 0 < small < large
    assert speed.query_seconds(predictor, image[:1]) > 0


@pytest.mark.parametrize(
    ("parameters", "found"),
    [
        ({"size": 320}, "found size and seconds_per_image"),
        ({"tile": True}, "found tile and seconds_per_image"),
        ({"seconds_per_image": 0}, "seconds_per_image is 0"),
        ({"seconds_per_image": "fast"}, "seconds_per_image is 'fast'"),
    ],
)
def test_a_size_is_asked_for_in_one_way(parameters: dict[str, object], found: str) -> None:
    """What contradicts itself is refused, in one line."""
    options: dict[str, object] = {"seconds_per_image": 0.2, **parameters}
    with pytest.raises(InputError, match=found):
        FewShotSegmenter(device="cpu", **options).fit(*scene(0))  # type: ignore[arg-type]


def test_what_was_said_is_in_the_file(tmp_path: Path) -> None:
    """A task that is read again says the same."""
    segmenter = quick(seconds=0.0).fit(*scene(0), ["thing"])
    loaded = FewShotSegmenter.load(segmenter.save(tmp_path / "task.svf"), device="cpu")
    assert loaded.advice_ == segmenter.advice_
    assert len(loaded.advice_) == 1
