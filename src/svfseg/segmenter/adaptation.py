"""Tune a model on the supports themselves for a few steps, before the first query."""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import mean
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from svfseg.config import TuningConfig
from svfseg.data.index import Sample
from svfseg.data.transforms import augment, class_mask, to_ids, to_tensor
from svfseg.errors import InputError
from svfseg.models import Head
from svfseg.segmenter.events import TuningReport, TuningStep, ignore
from svfseg.segmenter.negatives import photographs
from svfseg.tuning.strategies import merge, tune


class Preset(NamedTuple):
    """What is used where nothing is asked for, and where too few supports tell better.

    Found on classes that no table of this project is about, see docs/own-data.md.
    """

    lr: float
    steps: int


# Adam's steps have a size of their own, so a rate is about how far a value moves in one step.
PRESETS = {
    "svf": Preset(0.001, 20),
    "norm": Preset(0.001, 20),
    "lora": Preset(0.0005, 20),
    "full": Preset(1e-5, 20),
}
# Supports of a class from which leaving one out says something.
ENOUGH = 4
# Steps without a lower loss after which tuning ends; one step is one episode, so the loss is a
# running mean of about ten, and the first ten only begin it.
PATIENCE = 30
MEMORY = 10
# The other rate that leaving out tries, times the preset's.
FASTER = 5
# While leaving out gains so much IoU from twice the steps, they are doubled, up to so many times
# the preset's: what lies far from the photographs that the backbone knows wants more.
GAIN, LONGER = 0.01, 4
# Share of steps whose query does not show the class.
WITHOUT = 0.2
JITTER = 0.3


class Support(NamedTuple):
    """A support, or a part of one.

    Attributes:
        sample: image and mask of ids.
        group: number of the image that it is a part of.
    """

    sample: Sample
    group: int

    def shows(self, class_id: int) -> bool:
        """Whether a pixel of a class is marked in it."""
        return bool((self.sample.mask == class_id).any())


# IoU of a model, shown some supports, on others.
Score = Callable[[Head, Sequence[Support], Sequence[Support]], float]


@dataclass(frozen=True)
class AdaptationResult:
    """A model tuned to its supports.

    Attributes:
        head: the tuned copy, its strategy's layers in place; see `merged`.
        config: the strategy.
        steps: number of steps that were taken.
        lr: learning rate of these steps.
        losses: one loss per step.
        held_out: IoU of left-out supports at the numbers of steps tried, where that chose.
        race: IoU of the first left-out support at each rate tried, after half the preset's steps.
    """

    head: Head
    config: TuningConfig
    steps: int
    lr: float
    losses: tuple[float, ...] = ()
    held_out: dict[Preset, float] = field(default_factory=dict)
    race: dict[float, float] = field(default_factory=dict)

    def merged(self) -> Head:
        """Give a copy of plain layers where the strategy allows it, in eval mode."""
        head = copy.deepcopy(self.head)
        merge(head.backbone)
        return head.requires_grad_(False).eval()


def tuning_of(strategy: str) -> TuningConfig:
    """Give the strategy's settings: singular values relative to their size.

    Adam's steps have one size whatever the gradient's: of a factor they are shares of each value.

    Raises:
        InputError: a strategy that support-time tuning does not offer.
    """
    if strategy not in PRESETS:
        raise InputError(f"adapt is {strategy!r}: expected None, {', '.join(map(repr, PRESETS))}")
    if strategy == "svf":
        return TuningConfig(strategy=strategy, parametrization="relative", rank=4)
    return TuningConfig(strategy=strategy, rank=4)


def frozen_copy(head: Head) -> Head:
    """Copy a head to one in which nothing trains, in eval mode."""
    return copy.deepcopy(head).requires_grad_(False).eval()


def tunable_copy(base: Head, strategy: str, seed: int = 0) -> Head:
    """Copy a head so that only what a strategy tunes in its backbone trains."""
    head = frozen_copy(base)
    with torch.random.fork_rng(devices=[]):  # LoRA begins with random factors
        torch.manual_seed(seed)
        own, _ = tune(head, tuning_of(strategy))
    for parameter in own:
        parameter.requires_grad_(False)
    return head.eval()


def adapt(
    base: Head,
    supports: Sequence[Support],
    classes: Sequence[int],
    strategy: str,
    size: int,
    steps: int | None = None,
    lr: float | None = None,
    seed: int = 0,
    device: str = "cpu",
    score: Score | None = None,
    report: TuningReport = ignore,
) -> AdaptationResult:
    """Tune a copy of a model on its supports: each in turn is the query of the others.

    A class with one support is shown to itself, augmented twice. With ``steps`` None their number
    is chosen by leaving supports out (0, half or all of the preset's, and twice and four times as
    many as long as that gains `GAIN`), where a class has `ENOUGH`; with ``lr`` None too, the rate
    as well: the preset's, or `FASTER` times that where it is ahead at the half for the first that
    is left out (Hyperband's rule, Li et al., JMLR 2018, for two). Else both are the preset's.

    Args:
        base: a head in eval mode; it stays as it is.
        supports: with the classes, or without any of them.
        classes: ids.
        strategy: a key of `PRESETS`.
        size: side of the square that images are fitted to.
        steps: number of steps; None chooses.
        lr: learning rate of Adam; None takes the preset's.
        seed: seed of all choices.
        device: device to compute on.
        score: IoU of a model, shown some supports, on others; None never leaves out.
        report: called after each step.

    Raises:
        InputError: a strategy that is not offered, or a loss that is not a number.
    """
    count = _Count(report)
    preset = PRESETS[tuning_of(strategy).strategy]
    rate = preset.lr if lr is None else lr
    most = preset.steps if steps is None else steps

    def tuning(some: Sequence[Support], at: float, number: int) -> _Tuning:
        head = tunable_copy(base, strategy, seed).to(device)
        return _Tuning(head, some, classes, size, at, (seed, number), count)

    chosen = _Chosen(Preset(rate, most), {}, {})
    left_out = _left_out(supports, classes) if steps is None and score is not None else []
    if score is not None and left_out:
        parts = [
            (
                [s for s in supports if s.group != group],
                [s for s in supports if s.group == group],
            )
            for group in left_out
        ]
        rates = [rate, *([rate * FASTER] if lr is None else [])]
        plain = frozen_copy(base).to(device)
        chosen = _choose(parts, rates, most, tuning, plain, score, count)
    count.expected = count.done + chosen.preset.steps
    final = tuning(supports, chosen.preset.lr, 99)
    final.advance(chosen.preset.steps)
    losses = tuple(final.losses)
    return AdaptationResult(
        final.head, tuning_of(strategy), len(losses), chosen.preset.lr, losses, chosen.held_out,
        chosen.race,
    )  # fmt: skip


class _Chosen(NamedTuple):
    """What leaving out chose, and from what: see `AdaptationResult`."""

    preset: Preset
    held_out: dict[Preset, float]
    race: dict[float, float]


def _choose(
    parts: Sequence[tuple[Sequence[Support], Sequence[Support]]],
    rates: Sequence[float],
    most: int,
    tuning: "Callable[[Sequence[Support], float, int], _Tuning]",
    plain: Head,
    score: Score,
    count: "_Count",
) -> _Chosen:
    """The rate that is ahead at half the steps, and the number of steps that does best with it.

    Args:
        parts: supports to tune on, and those that are left out of them.
        rates: to race, on the first part.
        most: steps, of which half and all are tried, and more while they gain.
        tuning: begins a training on supports, at a rate, with a number for its seed.
        plain: the untouched model.
        score: see `adapt`.
        count: is told what is still expected.
    """
    half = most // 2
    count.expected = len(rates) * half + half + len(parts) * most
    first = {at: tuning(parts[0][0], at, 0) for at in rates}
    for run in first.values():
        run.advance(half)
    race = {at: score(run.head, *parts[0]) for at, run in first.items()}
    rate = max(rates, key=lambda at: race[at])
    runs = [first[rate], *(tuning(others, rate, i) for i, (others, _) in enumerate(parts[1:], 1))]
    held_out = {Preset(rate, 0): mean(score(plain, *part) for part in parts)}
    until, gain = half, math.inf
    while until <= most * LONGER and (until <= most or gain > GAIN):
        if until > most:
            count.expected = count.done + len(runs) * until // 2 + until
        for run in runs:
            run.advance(until)
        left_out_iou = mean(score(run.head, *part) for run, part in zip(runs, parts, strict=True))
        gain = left_out_iou - max(held_out.values())
        held_out[Preset(rate, until)] = left_out_iou
        until *= 2
    preset = max(held_out, key=lambda tried: (held_out[tried], -tried.steps))
    return _Chosen(preset, held_out, race)


def _left_out(supports: Sequence[Support], classes: Sequence[int], most: int = 2) -> list[int]:
    """Groups to leave out, one after the other: of classes that have enough without them."""
    candidates: dict[int, None] = {}
    for class_id in classes:
        groups = sorted({s.group for s in supports if s.shows(class_id)})
        if len(groups) >= ENOUGH:
            candidates |= dict.fromkeys(groups[:: -(-len(groups) // most)])
    return list(candidates)[:most]


class _Count:
    """Steps of all trainings of a call, and how many are still expected."""

    def __init__(self, report: TuningReport) -> None:
        self.report, self.done, self.expected = report, 0, 0

    def step(self, loss: float) -> None:
        """One more is done."""
        self.done += 1
        self.report(TuningStep(self.done, max(self.done, self.expected), loss))


class _Tuning:
    """A model on its way: it can be judged in between and go on as if it had not been."""

    def __init__(
        self,
        head: Head,
        supports: Sequence[Support],
        classes: Sequence[int],
        size: int,
        lr: float,
        seed: tuple[int, int],
        count: _Count,
    ) -> None:
        self.head, self.size, self.seed, self.count = head, size, seed, count
        self.parameters = [p for p in head.parameters() if p.requires_grad]
        self.optimizer = torch.optim.Adam(self.parameters, lr)
        self.pools = {class_id: _with_and_without(supports, class_id) for class_id in classes}
        self.losses: list[float] = []
        self.running, self.best, self.since = 0.0, float("inf"), 0

    def advance(self, until: int) -> None:
        """Steps until so many are done; none any more when the loss has stopped falling."""
        with torch.enable_grad():
            while len(self.losses) < until and self.since < PATIENCE:
                self._step()

    def _step(self) -> None:
        step = len(self.losses)
        rng = np.random.default_rng((*self.seed, step))
        device = self.parameters[0].device
        episode = _episode(self.pools, self.size, rng)
        query, support, masks, target = (t[None].to(device) for t in episode)
        logits = self.head(query, support, masks)
        loss = F.cross_entropy(logits.float(), target.long(), ignore_index=255)
        if not torch.isfinite(loss):
            raise InputError(f"the loss is {float(loss)} at step {step}: lower lr")
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.losses.append(float(loss.detach()))
        self.count.step(self.losses[-1])
        keep = 1 - 1 / MEMORY
        self.running = keep * self.running + (1 - keep) * self.losses[-1]
        mean_loss = self.running / (1 - keep ** len(self.losses))
        if step < MEMORY or mean_loss < 0.99 * self.best:
            self.best, self.since = mean_loss, 0
        else:
            self.since += 1


def _with_and_without(
    supports: Sequence[Support], class_id: int
) -> tuple[list[Support], list[Support]]:
    """The supports with a class, and those without it; without any, photographs of other things.

    Else all that looks like a photograph may become the class.
    """
    having = [s for s in supports if s.shows(class_id)]
    without = [s for s in supports if not s.shows(class_id)] or [
        Support(Sample(p, np.zeros(p.shape[:2], np.uint8)), -1) for p in photographs()
    ]
    return having, without


def _episode(
    pools: dict[int, tuple[list[Support], list[Support]]], size: int, rng: np.random.Generator
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A query, one support with its mask, and the query's target; sometimes without the class.

    Returns:
        (3, size, size), (1, 3, size, size), (1, size, size) and (size, size).
    """
    class_id = int(rng.choice(np.asarray(list(pools))))
    having, without = pools[class_id]
    support = having[rng.integers(len(having))]
    others = [s for s in having if s.group != support.group] or [support]
    query_source = others[rng.integers(len(others))]
    if rng.random() < WITHOUT:
        query_source = without[rng.integers(len(without))]
    image, mask = _augmented(support, class_id, size, rng)
    for _ in range(3):  # a crop may lose a small class
        if (mask == 1).any():
            break
        image, mask = _augmented(support, class_id, size, rng)
    query, target = _augmented(query_source, class_id, size, rng)
    return query, image[None], mask[None], target


def _augmented(
    support: Support, class_id: int, size: int, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    image, ids = augment(
        to_tensor(support.sample.image),
        to_ids(support.sample.mask),
        size,
        (0.7, 1.3),
        True,
        rng,
        class_id,
    )
    gain, shift = rng.uniform(1 - JITTER, 1 + JITTER), rng.uniform(-JITTER, JITTER) * 64
    return (image * gain + shift).clamp(0, 255), class_mask(ids, class_id)
