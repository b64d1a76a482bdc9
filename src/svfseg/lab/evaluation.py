"""Score a model on a list of episodes, along the published test path."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any, Literal

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from svfseg.config import EvalConfig
from svfseg.data import (
    Episode,
    Split,
    TestBatches,
    TestEpisodes,
    WholeImages,
    collate,
    draw_test_list,
    novel_split,
    read_episodes,
    test_index,
)
from svfseg.data.transforms import fit_mask, logits_at_original, numbered, to_ids
from svfseg.errors import InputError
from svfseg.lab.events import EpisodesScored, Report, ignore
from svfseg.lab.feature_cache import FeatureCache, LoadedImage, masks_of
from svfseg.lab.metrics import ClassMeter, IoUMeter
from svfseg.lab.runtime import environment, make_accelerator
from svfseg.models.functional import generalized_map
from svfseg.models.head import GeneralizedHead, Head, computes_features_once
from svfseg.tuning.checkpoint import load_head

Resize = Literal["original", "square"]
Progress = Callable[[int, int], None]
CACHE = EvalConfig().cache


@dataclass(frozen=True)
class SeedScores:
    """Scores of one seed's episodes.

    Attributes:
        seed: seed of the list of episodes.
        episodes: their number.
        miou: mean IoU over the classes, in [0, 1].
        fb_iou: mean of the IoU of all foreground and of all background, in [0, 1].
        classes: class -> its IoU, in [0, 1].
        seconds: the seed's share of the whole time.
        records: (class id, foreground intersection, union) of each episode.
    """

    seed: int
    episodes: int
    miou: float
    fb_iou: float
    classes: dict[str, float]
    seconds: float
    records: tuple[tuple[int, int, int], ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class EvaluationResult:
    """Scores of a run on its novel classes.

    Attributes:
        run: the run folder.
        benchmark: name of the images that were tested on.
        strategy: what trained of the backbone.
        fold: fold of the tested classes.
        trained_on_fold: fold whose classes were novel in training.
        shot: supports of an episode.
        resize: whether masks were scored at their original size or on the square.
        checkpoint: which one of the run.
        monitor: what that was chosen on.
        episode_list: the file of episodes, where they were not drawn.
        seeds: the scores of each seed.
        generalized: mean IoU of "base" and "novel" classes in one map, and their "mean".
        environment: versions and machine, see `svfseg.lab.runtime.environment`.
    """

    run: str
    benchmark: str
    strategy: str
    fold: int
    trained_on_fold: int
    shot: int
    resize: Resize
    checkpoint: str
    monitor: str
    episode_list: str | None
    seeds: tuple[SeedScores, ...]
    generalized: dict[str, float] | None
    environment: dict[str, Any] = field(repr=False)

    @property
    def miou(self) -> float:
        """Mean over the seeds."""
        return mean(scores.miou for scores in self.seeds)

    @property
    def fb_iou(self) -> float:
        """Mean over the seeds."""
        return mean(scores.fb_iou for scores in self.seeds)

    def deviation(self, name: Literal["miou", "fb_iou"]) -> float | None:
        """Give the standard deviation of a score over the seeds; None of a single seed."""
        values = [getattr(scores, name) for scores in self.seeds]
        return stdev(values) if len(values) > 1 else None

    def to_dict(self) -> dict[str, Any]:
        """Give plain data, as ``svfseg eval --json`` writes it."""
        plain = {
            k: v for k, v in vars(self).items() if k not in ("seeds", "monitor", "generalized")
        }
        seeds = [{k: v for k, v in vars(s).items() if k != "records"} for s in self.seeds]
        return {
            **plain,
            "selected_on": self.monitor,
            "seeds": seeds,
            "miou": {"mean": self.miou, "std": self.deviation("miou")},
            "fb_iou": {"mean": self.fb_iou, "std": self.deviation("fb_iou")},
            **({} if self.generalized is None else {"generalized": self.generalized}),
        }


def score(
    head: Head,
    source: Split,
    lists: Sequence[Sequence[Episode]],
    size: int,
    accelerator: Accelerator,
    resize: Resize = "original",
    batch: int = 1,
    workers: int = 0,
    progress: Progress | None = None,
    cache: int | None = CACHE,
    passes: Counter[str] | None = None,
) -> list[IoUMeter]:
    """Sum intersections and unions over lists of episodes; several processes share the work.

    Episodes are taken query by query, and features of images are shared between all of
    them, over all lists: the sums do not depend on the order.

    Args:
        head: in eval mode.
        source: the classes that count, and the images.
        lists: what to score, a meter for each.
        size: side of the square that images are fitted to.
        accelerator: where to compute.
        resize: score at the masks' original size, or on the square.
        batch: episodes at once.
        workers: processes that load data.
        progress: called with (episodes done, episodes in all) of this process.
        cache: MiB of features to keep on the device; past it they are computed again. None runs
            the head's ``forward`` on every episode, as does a head without features of its own.
        passes: counts the passes through the network, see
            `svfseg.lab.feature_cache.FeatureCache`.
    """
    meters = [IoUMeter(source.names()) for _ in lists]
    numbered = [(number, episode) for number, episodes in enumerate(lists) for episode in episodes]
    numbered.sort(key=lambda pair: pair[1].query)
    rank, processes = accelerator.process_index, accelerator.num_processes
    mine = numbered[rank * len(numbered) // processes : (rank + 1) * len(numbered) // processes]
    episodes = [episode for _, episode in mine]
    done = 0
    with torch.inference_mode(), accelerator.autocast():
        if cache is None or not computes_features_once(head):
            outputs = _forward(head, source, episodes, size, accelerator.device, batch, workers)
        else:
            bound = cache * 2**20
            outputs = _shared(head, source, episodes, size, batch, workers, bound, passes)
        for logits, originals, targets in outputs:
            for scores, original, square in zip(logits, originals, targets, strict=True):
                number, episode = mine[done]
                target = original if resize == "original" else square
                if resize == "original":
                    scores = logits_at_original(scores, *target.shape)
                meters[number].update(scores.argmax(dim=0).cpu(), target, episode.class_id)
                done += 1
            if progress is not None:
                progress(done, len(mine))
    if processes > 1:
        for meter, scored in zip(meters, lists, strict=True):
            own = torch.cat([meter.intersection, meter.union]).to(accelerator.device)
            sums: Tensor = accelerator.reduce(own, "sum")
            meter.intersection, meter.union = sums.cpu().chunk(2)
            meter.episodes = len(scored)
            meter.records = gather_object(meter.records)
    return meters


def score_classes(
    head: Head,
    source: Split,
    size: int,
    accelerator: Accelerator,
    batch: int = 1,
    workers: int = 0,
) -> ClassMeter:
    """Sum the confusion of a base learner over a split's images, on the square.

    Args:
        head: gives (batch, 1 + classes, height, width) from images, in eval mode.
        source: the images, and the classes in their order.
        size: side of the square that images are fitted to.
        accelerator: where to compute; several processes share the work.
        batch: images at once.
        workers: processes that load data.
    """
    meter = ClassMeter(tuple(source.names().values()))
    images = WholeImages(source, size)
    rank, processes = accelerator.process_index, accelerator.num_processes
    mine = Subset(images, range(rank, len(images), processes))
    loader = DataLoader(mine, batch, num_workers=workers, generator=torch.Generator())
    with torch.inference_mode(), accelerator.autocast():
        for items in loader:
            logits = head(items["image"].to(accelerator.device))
            meter.update(logits.argmax(dim=1).cpu(), items["target"])
    if processes > 1:
        sums: Tensor = accelerator.reduce(meter.confusion.to(accelerator.device), "sum")
        meter.confusion = sums.cpu()
    return meter


def score_generalized(
    head: GeneralizedHead,
    source: Split,
    episodes: Sequence[Episode],
    size: int,
    accelerator: Accelerator,
    threshold: float = 0.9,
    workers: int = 0,
    progress: Progress | None = None,
) -> dict[str, float]:
    """Score base classes and the episode's class in one map, on the square (BAM).

    Novel classes other than the episode's own count nowhere.

    Args:
        head: such as `svfseg.models.BAM`, in eval mode.
        source: the novel classes, and the images.
        episodes: what to score.
        size: side of the square that images are fitted to.
        accelerator: where to compute, in one process.
        threshold: see `svfseg.models.functional.generalized_map`.
        workers: processes that load data.
        progress: called with (episodes done, episodes in all).

    Returns:
        Mean IoU in [0, 1] of "base" and of "novel" classes, and their "mean" over all classes.
    """
    index = source.index
    base = [c for c in range(1, len(index.classes) + 1) if c not in source.classes]
    order = (*base, *source.classes)
    meter = ClassMeter(tuple(index.classes[c - 1] for c in order))
    loader = DataLoader(
        TestEpisodes(index, episodes, size),
        num_workers=workers,
        collate_fn=collate,
        generator=torch.Generator(),
    )
    with torch.inference_mode(), accelerator.autocast():
        for done, (episode, items) in enumerate(zip(episodes, loader, strict=True), start=1):
            tensors = (items[name] for name in ("query", "support", "support_mask"))
            maps = head.maps(*(tensor.to(accelerator.device) for tensor in tensors))
            predicted = generalized_map(maps.final, maps.base, threshold)[0].cpu()
            novel = 1 + order.index(episode.class_id)
            predicted[predicted == len(base) + 1] = novel
            target = numbered(to_ids(index.load(episode.query).mask), order)
            other = (target > len(base)) & (target != 255) & (target != novel)
            target[other] = 255
            meter.update(predicted, fit_mask(target, size))
            if progress is not None:
                progress(done, len(episodes))
    names = meter.names
    return {
        "base": meter.miou(names[: len(base)]),
        "novel": meter.miou(names[len(base) :]),
        "mean": meter.miou(),
    }


Outputs = Iterator[tuple[Tensor, Sequence[Tensor], Sequence[Tensor]]]


def _forward(
    head: Head,
    source: Split,
    episodes: Sequence[Episode],
    size: int,
    device: torch.device,
    batch: int,
    workers: int,
) -> Outputs:
    """(logits, original masks, masks on the square) of each batch, each computed anew."""
    loader = DataLoader(
        TestEpisodes(source.index, episodes, size),
        batch_size=batch,
        num_workers=workers,
        collate_fn=collate,
        generator=torch.Generator(),  # evaluating draws nothing from the training's stream
    )
    for items in loader:
        tensors = (items[name].to(device) for name in ("query", "support", "support_mask"))
        yield head(*tensors).float(), items["original"], items["target"]


def _shared(
    head: Head,
    source: Split,
    episodes: Sequence[Episode],
    size: int,
    batch: int,
    workers: int,
    bound: int,
    passes: Counter[str] | None,
) -> Outputs:
    """Give the same from features that episodes share."""
    data = TestBatches(source.index, episodes, size, batch, masks_of(episodes))
    loader = DataLoader(data, batch_size=None, num_workers=workers, generator=torch.Generator())
    fresh: dict[int, tuple[Tensor, dict[int, Tensor]]] = {}

    def load(position: int) -> LoadedImage:
        return LoadedImage(*(fresh.get(position) or data.read(position)))

    features, start = FeatureCache(head, episodes, load, bound, passes), 0
    for items in loader:
        fresh = items["fresh"]
        group = episodes[start : start + len(items["original"])]
        queries, supports = features.get(start, group)
        yield (
            head.decode(queries, supports, (size, size)).float(),
            items["original"],
            items["target"],
        )
        start += len(group)


def evaluate(
    run: str | Path,
    config: EvalConfig,
    episode_list: str | Path | None = None,
    report: Report = ignore,
) -> EvaluationResult:
    """Score a run on its novel classes, for each seed.

    Args:
        run: a run folder.
        config: fold, shots, episodes and seeds.
        episode_list: a file of `svfseg.data.write_episodes` to score instead of drawn lists.
        report: called with `svfseg.lab.events.EpisodesScored`, over all seeds.

    Raises:
        MissingFileError: no run, checkpoint or data.
        InputError: settings that do not fit the data.
    """
    head, trained = load_head(run, config.checkpoint)
    if config.generalized and not isinstance(head, GeneralizedHead):
        raise InputError(f"{run} is a {trained.model.head} run: the generalized score needs bam")
    moved = {name: value for name, value in vars(config.data).items() if value is not None}
    data = replace(trained.data, **moved)
    shot = trained.shot if config.shot is None else config.shot
    source = novel_split(test_index(data), data.fold).require(shot, data.on_small_class)
    accelerator = make_accelerator(config.device)
    head.to(accelerator.device)
    seeds = config.seeds if episode_list is None else (0,)
    if not seeds or config.episodes < 1:
        raise InputError("nothing to evaluate: give at least one seed and one episode")
    if config.batch < 1:
        raise InputError(f"batch is {config.batch}: expected 1 or more")
    if config.cache < 0:
        raise InputError(f"cache is {config.cache}: expected 0 or more MiB")
    lists = [_episodes(source, shot, seed, config.episodes, episode_list) for seed in seeds]

    def progress(done: int, total: int) -> None:
        report(EpisodesScored(done, total))

    start = time.perf_counter()
    meters = score(
        head, source, lists, data.size, accelerator, config.resize, config.batch, config.workers,
        progress, config.cache,
    )  # fmt: skip
    seconds = (time.perf_counter() - start) / len(lists)  # they share their passes
    generalized = None
    if config.generalized and isinstance(head, GeneralizedHead):
        parts = [
            score_generalized(
                head, source, episodes, data.size, accelerator, config.threshold, config.workers,
                progress,
            )
            for episodes in lists
        ]  # fmt: skip
        generalized = {name: mean(part[name] for part in parts) for name in parts[0]}
    return EvaluationResult(
        run=str(run),
        benchmark=source.index.name,
        strategy=trained.tuning.strategy,
        fold=data.fold,
        trained_on_fold=trained.data.fold,
        shot=shot,
        resize=config.resize,
        checkpoint=config.checkpoint,
        monitor=trained.selection.monitor,
        episode_list=None if episode_list is None else str(episode_list),
        seeds=tuple(
            SeedScores(
                seed, meter.episodes, meter.miou(), meter.fb_iou(), meter.per_class(), seconds,
                tuple(meter.records),
            )
            for seed, meter in zip(seeds, meters, strict=True)
        ),
        generalized=generalized,
        environment=environment(),
    )  # fmt: skip


def _episodes(
    source: Split, shot: int, seed: int, count: int, episode_list: str | Path | None
) -> list[Episode]:
    if episode_list is None:
        return draw_test_list(source, shot, seed, count)
    episodes = read_episodes(episode_list, source.index)
    strange = {e.class_id for e in episodes} - set(source.classes)
    if strange:
        raise InputError(
            f"{episode_list} has classes {sorted(strange)}, which are not in the tested fold"
        )
    return episodes
