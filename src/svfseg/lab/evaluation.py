"""Score a model on a list of episodes, along the published test path."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any, Literal, cast

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn
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
from svfseg.lab.feature_cache import Sight, Views, masks_of
from svfseg.lab.metrics import ClassMeter, IoUMeter
from svfseg.lab.runtime import environment, make_accelerator
from svfseg.models.functional import generalized_map
from svfseg.tuning.checkpoint import load_head

Resize = Literal["original", "square"]
Progress = Callable[[int, int], None]
CACHE = EvalConfig().cache


@dataclass(frozen=True)
class Result:
    """Scores of one seed's episodes, in [0, 1]; seconds are its share of the whole."""

    seed: int
    episodes: int
    miou: float
    fb_iou: float
    classes: dict[str, float]
    seconds: float


def score(
    model: nn.Module,
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

    Episodes are taken query by query, and views of images (features) are shared between all of
    them, over all lists: the sums do not depend on the order.

    Args:
        model: a head, in eval mode.
        source: the classes that count, and the images.
        lists: what to score, a meter for each.
        size: side of the square that images are fitted to.
        accelerator: where to compute.
        resize: score at the masks' original size, or on the square.
        batch: episodes at once.
        workers: processes that load data.
        progress: called with (episodes done, episodes in all) of this process.
        cache: MiB of views to keep on the device; past it they are computed again. None runs
            the head's ``forward`` on every episode, as do heads without ``views``.
        passes: counts the passes through the network, see `svfseg.lab.feature_cache.Views`.
    """
    meters = [IoUMeter(source.names()) for _ in lists]
    numbered = [(number, episode) for number, episodes in enumerate(lists) for episode in episodes]
    numbered.sort(key=lambda pair: pair[1].query)
    rank, processes = accelerator.process_index, accelerator.num_processes
    mine = numbered[rank * len(numbered) // processes : (rank + 1) * len(numbered) // processes]
    episodes = [episode for _, episode in mine]
    done = 0
    with torch.inference_mode(), accelerator.autocast():
        if cache is None or not hasattr(model, "views"):
            outlined = _forward(model, source, episodes, size, accelerator.device, batch, workers)
        else:
            bound = cache * 2**20
            outlined = _shared(model, source, episodes, size, batch, workers, bound, passes)
        for logits, originals, targets in outlined:
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
        for meter, asked in zip(meters, lists, strict=True):
            sums = torch.cat([meter.intersection, meter.union]).to(accelerator.device)
            sums = cast(torch.Tensor, accelerator.reduce(sums, "sum")).cpu()
            meter.intersection, meter.union = sums.chunk(2)
            meter.episodes = len(asked)
            meter.records = gather_object(meter.records)
    return meters


def score_classes(
    model: nn.Module,
    source: Split,
    size: int,
    accelerator: Accelerator,
    batch: int = 1,
    workers: int = 0,
) -> ClassMeter:
    """Sum the confusion of a base learner over a split's images, on the square.

    Args:
        model: gives (batch, 1 + classes, height, width) from images, in eval mode.
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
            logits = model(items["image"].to(accelerator.device))
            meter.update(logits.argmax(dim=1).cpu(), items["target"])
    if processes > 1:
        sums = accelerator.reduce(meter.confusion.to(accelerator.device), "sum")
        meter.confusion = cast(torch.Tensor, sums).cpu()
    return meter


def score_generalized(
    model: Any,
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
        model: a head with ``maps`` (`svfseg.models.BAM`), in eval mode.
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
            maps = model.maps(*(tensor.to(accelerator.device) for tensor in tensors))
            found = generalized_map(maps.final, maps.base, threshold)[0].cpu()
            novel = 1 + order.index(episode.class_id)
            found[found == len(base) + 1] = novel
            target = numbered(to_ids(index.load(episode.query).mask), order)
            other = (target > len(base)) & (target != 255) & (target != novel)
            target[other] = 255
            meter.update(found, fit_mask(target, size))
            if progress is not None:
                progress(done, len(episodes))
    names = meter.names
    return {
        "base": meter.miou(names[: len(base)]),
        "novel": meter.miou(names[len(base) :]),
        "mean": meter.miou(),
    }


Outlined = Iterator[tuple[Tensor, Sequence[Tensor], Sequence[Tensor]]]


def _forward(
    model: nn.Module,
    source: Split,
    episodes: Sequence[Episode],
    size: int,
    device: torch.device,
    batch: int,
    workers: int,
) -> Outlined:
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
        yield model(*tensors).float(), items["original"], items["target"]


def _shared(
    model: Any,
    source: Split,
    episodes: Sequence[Episode],
    size: int,
    batch: int,
    workers: int,
    bound: int,
    passes: Counter[str] | None,
) -> Outlined:
    """The same from views that episodes share."""
    data = TestBatches(source.index, episodes, size, batch, masks_of(episodes))
    loader = DataLoader(data, batch_size=None, num_workers=workers, generator=torch.Generator())
    fresh: dict[int, tuple[Tensor, dict[int, Tensor]]] = {}

    def load(position: int) -> Sight:
        return Sight(*(fresh.get(position) or data.read(position)))

    views, start = Views(model, episodes, load, bound, passes), 0
    for items in loader:
        fresh = items["fresh"]
        group = episodes[start : start + len(items["original"])]
        queries, supports = views.get(start, group)
        yield (
            model.outline(queries, supports, (size, size)).float(),
            items["original"],
            items["target"],
        )
        start += len(group)


def evaluate(
    run: str | Path,
    config: EvalConfig,
    episode_list: str | Path | None = None,
    progress: Progress | None = None,
    records: list[tuple[int, int, int]] | None = None,
) -> dict[str, Any]:
    """Score a run on its novel classes, for each seed.

    Args:
        run: a run folder.
        config: fold, shots, episodes and seeds.
        episode_list: a file of `svfseg.data.write_episodes` to score instead of drawn lists.
        progress: called with (episodes done, episodes in all), over all seeds.
        records: gets (class id, foreground intersection, union) of each episode, seed after seed.

    Returns:
        A plain dict: the setting, a row for each seed, mean and standard deviation over seeds,
        how the checkpoint was chosen, and the environment.

    Raises:
        MissingFileError: no run, checkpoint or data.
        InputError: settings that do not fit the data.
    """
    model, trained = load_head(run, config.checkpoint)
    if config.generalized and not hasattr(model, "maps"):
        raise InputError(f"{run} is a {trained.model.head} run: the generalized score needs bam")
    moved = {name: value for name, value in vars(config.data).items() if value is not None}
    data = replace(trained.data, **moved)
    shot = trained.shot if config.shot is None else config.shot
    source = novel_split(test_index(data), data.fold).require(shot, data.few)
    accelerator = make_accelerator(config.device)
    model.to(accelerator.device)
    seeds = config.seeds if episode_list is None else (0,)
    if not seeds or config.episodes < 1:
        raise InputError("nothing to evaluate: give at least one seed and one episode")
    if config.cache < 0:
        raise InputError(f"cache is {config.cache}: expected 0 or more MiB")
    lists = []
    for seed in seeds:
        if episode_list is None:
            episodes = draw_test_list(source, shot, seed, config.episodes)
        else:
            episodes = read_episodes(episode_list, source.index)
            strange = {e.class_id for e in episodes} - set(source.classes)
            if strange:
                raise InputError(f"{episode_list} has classes {strange} outside fold {data.fold}")
        lists.append(episodes)
    start = time.perf_counter()
    meters = score(
        model,
        source,
        lists,
        data.size,
        accelerator,
        config.resize,
        config.batch,
        config.workers,
        progress,
        config.cache,
    )
    if records is not None:
        records += [record for meter in meters for record in meter.records]
    seconds = (time.perf_counter() - start) / len(lists)  # they share their passes
    results = [
        Result(seed, meter.episodes, meter.miou(), meter.fb_iou(), meter.per_class(), seconds)
        for seed, meter in zip(seeds, meters, strict=True)
    ]
    whole = {}
    if config.generalized:
        found = [
            score_generalized(
                model,
                source,
                asked,
                data.size,
                accelerator,
                config.threshold,
                config.workers,
                progress,
            )
            for asked in lists
        ]
        whole = {name: mean(scores[name] for scores in found) for name in found[0]}
    return {
        "run": str(run),
        "benchmark": source.index.name,
        "strategy": trained.tuning.strategy,
        "fold": data.fold,
        "trained_on_fold": trained.data.fold,
        "shot": shot,
        "resize": config.resize,
        "checkpoint": config.checkpoint,
        "selected_on": trained.selection.on,
        "episode_list": None if episode_list is None else str(episode_list),
        "seeds": [vars(result) for result in results],
        "miou": _spread([r.miou for r in results]),
        "fb_iou": _spread([r.fb_iou for r in results]),
        **({"generalized": whole} if whole else {}),
        "environment": environment(),
    }


def _spread(values: list[float]) -> dict[str, float | None]:
    return {"mean": mean(values), "std": stdev(values) if len(values) > 1 else None}
