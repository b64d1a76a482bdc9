"""Fitting a decoder to supports: it learns, it is chosen or refused, and it is repeatable."""

import math
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from svfseg import FewShotSegmenter
from svfseg.models.decoder import Decoder
from svfseg.segmenter import learning
from svfseg.segmenter.learning import mask_loss
from tests.segmenter.scenes import scene


def stripes(number: int, side: int = 160) -> tuple[np.ndarray, np.ndarray]:
    """Thin bright lines on a noisy ground: what a comparison at stride 16 cannot outline."""
    rng = np.random.default_rng(number)
    image = rng.normal(110, 12, (side, side, 3))
    mask = np.zeros((side, side), np.uint8)
    for _ in range(3):
        at, lean = int(rng.integers(20, side - 20)), rng.uniform(-0.4, 0.4)
        for row in range(side):
            column = int(at + lean * (row - side / 2))
            if 0 <= column < side - 4:
                mask[row, column : column + 4] = 1
    image[mask == 1] += 45
    return image.clip(0, 255).astype(np.uint8), mask


def iou(found: np.ndarray, truth: np.ndarray) -> float:
    return float(((found == 1) & (truth == 1)).sum() / ((found == 1) | (truth == 1)).sum())


@pytest.fixture
def real_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Enough steps that something is learned, few enough for a test."""
    for name, value in (("FOLD_STEPS", 30), ("STEPS", 40), ("VIEWS", 24)):
        monkeypatch.setattr(learning, name, value)


def fit(count: int, **parameters: object) -> FewShotSegmenter:
    supports = [stripes(n) for n in range(count)]
    options: dict[str, object] = {"size": 320, "device": "cpu", "reject_absent": False}
    segmenter = FewShotSegmenter(**{**options, **parameters})
    return segmenter.fit([image for image, _ in supports], [mask for _, mask in supports])


def score(segmenter: FewShotSegmenter) -> float:
    return float(
        np.mean([iou(segmenter.predict(i).mask, m) for i, m in map(stripes, (20, 21, 22))])
    )


@pytest.mark.slow
@pytest.mark.parametrize(("count", "gain"), [(1, 0.02), (3, 0.15)])
def test_what_the_comparison_misses_is_learned(
    count: int, gain: float, real_fits: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    # forty steps show less on halves than two hundred
    monkeypatch.setattr(learning, "ONE", learning.TrustRule(0.0))
    instant, fitted = fit(count, seconds=0), fit(count)
    assert fitted.learned_.share > 0
    assert fitted.learned_.steps == learning.STEPS
    assert score(fitted) > score(instant) + gain
    assert set(fitted.learned_.held_out) == set(learning.SHARES)


def test_what_gains_nothing_is_left(real_fits: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a gain on held-out supports the masks are those of the comparison, bit for bit."""
    monkeypatch.setattr(learning, "MANY", learning.TrustRule(1e9))
    instant, fitted = fit(2, seconds=0), fit(2)
    assert fitted.predictor_.decoder is None
    assert fitted.learned_.held_out
    image = stripes(20)[0]
    assert np.array_equal(instant.predict(image).mask, fitted.predict(image).mask)


@pytest.mark.slow
def test_seeds_decide_everything_and_files_keep_it(real_fits: None, tmp_path: Path) -> None:
    image = stripes(20)[0]
    first, again, other = fit(2), fit(2), fit(2, seed=1)
    assert np.array_equal(first.predict(image).probabilities, again.predict(image).probabilities)
    assert not np.array_equal(
        first.predict(image).probabilities, other.predict(image).probabilities
    )
    path = first.save(tmp_path / "task.svf")
    assert path.stat().st_size < 1e6
    loaded = FewShotSegmenter.load(path, device="cpu")
    assert loaded.predictor_.share == first.predictor_.share
    assert np.array_equal(first.predict(image).probabilities, loaded.predict(image).probabilities)


def test_it_keeps_to_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("FOLD_STEPS", 10**6), ("STEPS", 10**6), ("VIEWS", 8)):
        monkeypatch.setattr(learning, name, value)
    begin = time.monotonic()
    cut = fit(2, seconds=6)
    assert cut.advice_[0].startswith("give more seconds")
    assert time.monotonic() - begin < 20  # six for the decoder, the rest for the supports


def test_a_stop_leaves_the_comparison(real_fits: None, caplog: pytest.LogCaptureFixture) -> None:
    steps = []

    def stop(event: object) -> None:
        steps.append(event)
        if len(steps) == 5:
            raise KeyboardInterrupt

    supports = [stripes(n) for n in range(2)]
    segmenter = FewShotSegmenter(size=160, device="cpu", reject_absent=False)
    segmenter.fit([i for i, _ in supports], [m for _, m in supports], report=stop)
    assert segmenter.predictor_.decoder is None
    assert "stopped" in caplog.text
    assert segmenter.predict(stripes(9)[0]).mask.shape == (160, 160)


@pytest.mark.slow
def test_a_stop_after_the_choice_keeps_what_was_fitted(
    real_fits: None, caplog: pytest.LogCaptureFixture
) -> None:
    """The best so far: a decoder of half of the supports, as far as these trust it."""
    steps = []

    def stop(event: object) -> None:
        steps.append(event)
        if len(steps) == 65:  # both halves took 30
            raise KeyboardInterrupt

    supports = [stripes(n) for n in range(3)]
    segmenter = FewShotSegmenter(size=320, device="cpu", reject_absent=False)
    segmenter.fit([i for i, _ in supports], [m for _, m in supports], report=stop)
    assert "half of the supports" in caplog.text
    assert segmenter.predictor_.decoder is not None
    assert score(segmenter) > score(fit(3, seconds=0.0)) + 0.02


@pytest.mark.slow
def test_images_without_the_class_and_unknown_pixels_take_part(real_fits: None) -> None:
    image, mask = stripes(0)
    unknown = mask.copy()
    unknown[:40] = 255
    blank = np.full_like(image, 110)
    segmenter = FewShotSegmenter(size=160, device="cpu").fit(
        [image, stripes(1)[0], blank], [unknown, stripes(1)[1], None]
    )
    assert segmenter.predict(blank).mask.max() == 0


@pytest.mark.slow
def test_several_classes_compete(real_fits: None) -> None:
    """Two classes in one picture: no pixel's probabilities exceed one, and both are found."""
    pairs = []
    for number in range(3):
        image, mask = stripes(number)
        other = scene(number, 0.6)
        ids = mask.copy()
        ids[:, :60] = 0
        image = image.copy()
        image[:, :60] = other.image[:160, :60]
        ids[:, :60] = np.where(other.mask[:160, :60] == 1, 2, 0)
        if not (ids == 2).any():
            image[60:90, 10:50], ids[60:90, 10:50] = (30, 160, 60), 2
        pairs.append((image, ids))
    segmenter = FewShotSegmenter(size=160, device="cpu", reject_absent=False).fit(
        [i for i, _ in pairs[:2]], [m for _, m in pairs[:2]], ["line", "thing"]
    )
    result = segmenter.predict(pairs[2][0])
    assert result.probabilities.shape[0] == 2
    assert float(result.probabilities.astype(float).sum(axis=0).max()) < 1.01


@given(st.integers(1, 3), st.integers(0, 99))
def test_the_loss_counts_no_unknown_pixel(classes: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, classes, 6, 7, generator=generator)
    targets = torch.randint(0, classes + 1, (2, 6, 7), generator=generator)
    targets[:, :2] = 255
    other = logits.clone()
    other[:, :, :2] += 100
    torch.testing.assert_close(mask_loss(logits, targets), mask_loss(other, targets))
    right = 40 * torch.nn.functional.one_hot(targets.clamp_max(classes), classes + 1).float()
    perfect = (right[..., 1:] - right[..., :1]).permute(0, 3, 1, 2)
    assert float(mask_loss(perfect, targets)) < 0.2 < float(mask_loss(-perfect, targets))
    nothing = torch.full((2, 6, 7), 255)
    assert math.isfinite(float(mask_loss(logits, nothing)))


def test_a_decoder_begins_as_the_comparison() -> None:
    torch.manual_seed(0)
    decoder = Decoder([4, 8, 8, 16, 16], 2)
    stages = [torch.randn(1, c, 64 // 2**i, 48 // 2**i) for i, c in enumerate([4, 8, 8, 16, 16], 1)]
    maps, difference = torch.randn(1, 6, 8, 6), torch.randn(1, 2, 64, 48)
    residual = decoder(stages, maps)
    assert residual.shape == (1, 2, 32, 24)
    assert not residual.any()
    torch.testing.assert_close(
        decoder.logits(residual, difference), math.exp(3) * difference, rtol=1e-5, atol=1e-5
    )
    nudged = decoder.logits(torch.ones_like(residual), difference, 0.5)
    torch.testing.assert_close(nudged - decoder.logits(residual, difference), nudged.new_full((1,), 0.5).expand_as(nudged), rtol=1e-4, atol=1e-4)  # fmt: skip
