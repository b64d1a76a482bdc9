"""Fit a decoder to the supports, and choose by held-out supports how far to trust it."""

import logging
import math
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import mean
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from svfseg.errors import InputError
from svfseg.models import Head
from svfseg.models.decoder import Decoder, enlarged
from svfseg.models.refine import guided_filter
from svfseg.segmenter.bank import Bank
from svfseg.segmenter.events import TuningReport, TuningStep, ignore
from svfseg.segmenter.supports import Encoded, Kind
from svfseg.segmenter.thresholds import best_threshold

logger = logging.getLogger(__name__)

# How far the decoder may be trusted; 0 is the comparison alone.
SHARES = (0.0, 0.5, 1.0)
# Steps of the trainings that choose, and of the one that is kept.
FOLD_STEPS, STEPS = 150, 200
BATCH = 4
VIEWS = 160
LR, WARMUP, DECAY, CLIP = 2e-3, 20, 1e-4, 1.0
FOLDS = 2


class TrustRule(NamedTuple):
    """When the decoder is trusted more.

    Attributes:
        margin: what more trust must gain on held-out supports, in log-odds of the IoU.
        most: IoU of the comparison alone up to which it may be trusted at all.
    """

    margin: float
    most: float = 1.0


# Chosen on half of the tasks, see docs/own-data.md. A single support is held out by halves. Those
# of a crowd are different pieces of it; those of one thing tell less: where the comparison already
# finds so much of the other half, the decoder would learn the picture. By its outline a bicycle is
# a texture, and by what the comparison finds of the other half it is not.
MANY, ONE, ONE_CROWD = TrustRule(0.35), TrustRule(0.2, 0.5), TrustRule(0.2)
# Shares of the time: for the views, for choosing with them, and for the training that is kept.
_VIEWING, _CHOOSING, _KEEPING = 0.3, 0.55, 0.35
# A training that got to this share of its steps is done: its rate has fallen nearly to zero.
ENOUGH = 0.75


@dataclass(frozen=True)
class Learned:
    """What was fitted to the supports.

    Attributes:
        decoder: fitted to all supports; None where the comparison alone is better.
        share: how far it is trusted.
        left_out: group of a support, or of its half (`judged_supports`) -> a decoder that has not
            seen it.
        held_out: share -> IoU on held-out supports.
        steps: steps of the training that was kept.
        is_cut: whether the time ended well before all was done.
    """

    decoder: Decoder | None = None
    share: float = 0.0
    left_out: Mapping[int, Decoder] = field(default_factory=dict)
    held_out: Mapping[float, float] = field(default_factory=dict)
    steps: int = 0
    is_cut: bool = False


def learn(
    head: Head, own: Encoded, judged: Encoded, single: Kind | None,
    class_ids: Sequence[int],
    negatives: Mapping[int, Sequence[Any]], size: int, seconds: float, seed: int, device: str,
    report: TuningReport = ignore,
) -> Learned:  # fmt: skip
    """Fit a decoder to the supports of a `ComparingHead`.

    Twice it is fitted to one half of the supports and asked about the other; the share that does
    best there is taken, and fitted to all supports. A single support is cut in two. An interrupt
    ends it early: with a decoder of one half where the choice is made, else with none.

    Args:
        head: the model, in eval mode.
        own: the supports, with the classes or without any of them.
        judged: those that can be held out: the same, or the halves of a single one.
        single: what the class is where they are halves.
        class_ids: the classes.
        negatives: group of a support that shows no class -> its features.
        size: longer side to which images are fitted.
        seconds: time that it may take; where it runs out, a training ends early.
        seed: seed of all choices.
        device: device to compute on.
        report: called after each step.

    Raises:
        InputError: a loss that is not a number.
    """
    start = time.monotonic()
    clock = _Clock(report, FOLDS * FOLD_STEPS + STEPS)
    rules = {None: MANY, "crowd": ONE_CROWD}
    until = start + _VIEWING * seconds
    bank = Bank(head, *judged, negatives, class_ids, size, VIEWS, seed, device, until)
    try:
        chosen = _choose(bank, rules.get(single, ONE), seed, start + _CHOOSING * seconds, clock)
    except KeyboardInterrupt:
        logger.warning("stopped: answering by the comparison alone")
        return Learned()
    if chosen.share == 0:
        return chosen
    steps = 0
    try:
        if single:
            until = time.monotonic() + _VIEWING * seconds
            bank = Bank(head, *own, negatives, class_ids, size, VIEWS, seed, device, until)
        groups = {support.group for support in own.supports}
        until = max(time.monotonic(), start + (_CHOOSING + _KEEPING) * seconds)
        decoder, steps = train_decoder(bank, groups, STEPS, seed, until, clock)
    except KeyboardInterrupt:
        pass  # what there is of it is worth less than a decoder of half of the supports
    if not steps:  # stopped, or no time was left
        logger.warning("stopped: keeping the decoder that was fitted to half of the supports")
        # the last fold holds out the fewest
        decoder, steps = list(chosen.left_out.values())[-1], FOLD_STEPS
    return replace(
        chosen,
        decoder=decoder.half().float(),
        steps=steps,
        is_cut=chosen.is_cut or steps < ENOUGH * STEPS,
    )


class _Clock:
    """Steps of all trainings of a call, and how many are still expected."""

    def __init__(self, report: TuningReport, expected: int) -> None:
        self.report, self.done, self.expected = report, 0, expected

    def step(self, loss: float) -> None:
        """One more is done."""
        self.done += 1
        self.report(TuningStep(self.done, max(self.done, self.expected), loss))


def _choose(bank: Bank, rule: TrustRule, seed: int, until: float, clock: _Clock) -> Learned:
    """Choose the share on held-out supports; the decoder itself is not there yet."""
    showing = sorted({
        s.group for s, features in zip(bank.supports, bank.features, strict=True) if features
    })  # fmt: skip
    others = {s.group for s in bank.supports} - set(showing)
    folds = [showing[i::FOLDS] for i in range(min(FOLDS, len(showing)))]
    left_out: dict[int, Decoder] = {}
    answers: list[_Answer] = []
    is_cut = False
    begin = time.monotonic()
    for number, fold in enumerate(folds):
        groups = {*showing, *others} - set(fold)
        if len(folds) < 2:
            return Learned()
        share = begin + (until - begin) * (number + 1) / len(folds)
        decoder, steps = train_decoder(bank, groups, FOLD_STEPS, seed + 1, share, clock)
        if not steps:
            logger.warning("there was no time to fit anything: give more seconds")
            return Learned(is_cut=True)
        is_cut |= steps < ENOUGH * FOLD_STEPS
        left_out |= dict.fromkeys(fold, decoder)
        for index, support in enumerate(bank.supports):
            if support.group in fold:
                answers += _held_out(bank, decoder, index, groups)
    if not answers:
        return Learned()
    scores = {share: _score(answers, share) for share in SHARES}
    best = SHARES[0]
    if scores[best] <= rule.most:
        for share in SHARES[1:]:
            if _log_odds(scores[share]) - _log_odds(scores[best]) >= rule.margin:
                best = share
    return Learned(None, best, left_out if best else {}, scores, is_cut=is_cut)


def _log_odds(iou: float) -> float:
    bounded = min(0.98, max(0.02, iou))
    return math.log(bounded / (1 - bounded))


@dataclass(frozen=True)
class _Answer:
    """What is said of a held-out support: of one class, at each share, and the truth."""

    class_id: int
    maps: Mapping[float, Tensor]
    target: Tensor


@torch.inference_mode()
def _held_out(bank: Bank, decoder: Decoder, index: int, groups: Collection[int]) -> list[_Answer]:
    """Answer a held-out support with the supports of some groups."""
    whole, device = bank.wholes[index], bank.device
    fitted = whole.fitted
    stages = [stage.float() for stage in whole.stages]
    query = bank.comparing.query(stages)
    parts = []
    for class_id in bank.class_ids:
        shots = bank.shots(class_id, groups)
        parts.append(bank.comparing.compare(query, shots))
    maps = torch.cat(parts)[None]
    size = fitted.image.shape[-2:]
    difference = enlarged(maps, bank.comparing.lattice, size)
    difference = guided_filter(difference, fitted.image[None].to(device) / 255)
    residual = decoder(stages, maps)
    shares = {0.0: (bank.comparing.scale() * difference).sigmoid()[0].cpu()}
    for share in SHARES[1:]:
        logits = F.pad(decoder.logits(residual, difference, share), (0, 0, 0, 0, 1, 0))
        shares[share] = logits.softmax(dim=1)[0, 1:].cpu()
    inside = (slice(0, fitted.height), slice(0, fitted.width))
    truth = whole.mask[inside]
    return [
        _Answer(
            class_id,
            {share: each[number][inside] for share, each in shares.items()},
            torch.where(truth == 255, 255, (truth == class_id).to(torch.uint8)),
        )
        for number, class_id in enumerate(bank.class_ids)
        if bool((truth == class_id).any()) and bank.shows(class_id, groups)
    ]


def _score(answers: Sequence[_Answer], share: float) -> float:
    """Mean IoU of a share over held-out supports, each class at its best threshold."""
    scores = []
    for class_id in {answer.class_id for answer in answers}:
        own = [answer for answer in answers if answer.class_id == class_id]
        threshold, _ = best_threshold([a.maps[share] for a in own], [a.target for a in own])
        for answer in own:
            known, marked = answer.target != 255, answer.target == 1
            inside = (answer.maps[share] > threshold) & known
            scores.append(float((inside & marked).sum() / (inside | marked).sum()))
    return mean(scores)


def train_decoder(
    bank: Bank, groups: Collection[int], steps: int, seed: int, until: float, clock: _Clock
) -> tuple[Decoder, int]:
    """Train a decoder on the views of the supports of some groups.

    Args:
        bank: the views.
        groups: groups of supports.
        steps: number of steps.
        seed: seed of weights and order.
        until: time of `time.monotonic` at which it ends at the latest; the rate falls by whichever
            is further on, steps or time.
        clock: is told of each step.

    Returns:
        The decoder in eval mode, and the number of steps taken.
    """
    chosen = bank.of(groups)
    maps = bank.maps(chosen, groups)
    differences = enlarged(maps, bank.comparing.lattice, bank.targets.shape[-2:])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        decoder = Decoder([s.shape[1] for s in bank.stages], len(bank.class_ids))
    decoder = decoder.to(bank.device).train()
    optimizer = torch.optim.AdamW(decoder.parameters(), LR, weight_decay=DECAY)
    rng = np.random.default_rng((seed, 13))
    order: list[int] = []
    picks = torch.tensor(chosen, device=bank.device)
    begin, step = time.monotonic(), 0
    while step < steps and time.monotonic() < until:
        passed = max(step / steps, (time.monotonic() - begin) / max(1e-9, until - begin))
        for group in optimizer.param_groups:
            falling = 0.5 * (1 + math.cos(math.pi * _even(passed, step / steps)))
            group["lr"] = LR * min(1.0, (step + 1) / WARMUP) * falling
        while len(order) < BATCH:
            order += rng.permutation(len(chosen)).tolist()
        at = torch.tensor(order[:BATCH], device=bank.device)
        order = order[BATCH:]
        with torch.enable_grad():
            stages = [stage[picks[at]].float() for stage in bank.stages]
            residual = decoder(stages, maps[at].clone())
            loss = mask_loss(
                decoder.logits(residual, differences[at].clone()), bank.targets[picks[at]]
            )
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(decoder.parameters(), CLIP)
        optimizer.step()
        step += 1
        clock.step(float(loss.detach()))
    if not all(bool(weights.isfinite().all()) for weights in decoder.parameters()):
        raise InputError("fitting to the supports diverged: give --instant, or other supports")
    return decoder.eval().requires_grad_(False), step


def _even(passed: float, planned: float) -> float:
    """How far the schedule is: as planned while there is time, so that no clock decides."""
    return planned if passed - planned < 0.1 else min(1.0, passed)


def mask_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Give cross-entropy plus one minus Dice's coefficient.

    Args:
        logits: (batch, classes, height, width), relative to the background's, which are 0.
        targets: (batch, height, width) of ids 0 to classes, and 255, which does not count.
    """
    full = F.pad(logits, (0, 0, 0, 0, 1, 0))
    known = (targets != 255)[:, None]
    count = known.sum().clamp_min(1)
    entropy = F.cross_entropy(full, targets.long(), ignore_index=255, reduction="sum") / count
    shares = full.softmax(dim=1)[:, 1:] * known
    ids = torch.arange(1, logits.shape[1] + 1, device=targets.device)
    marked = (targets[:, None] == ids[:, None, None]).to(shares.dtype)
    sums = (0, 2, 3)
    dice = (2 * (shares * marked).sum(sums) + 1) / (shares.sum(sums) + marked.sum(sums) + 1)
    return entropy + (1 - dice).mean()
