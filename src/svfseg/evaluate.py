"""Score a model on a list of episodes, along the published test path."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any, Literal, cast

import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import DataLoader

from svfseg.checkpoint import load_run
from svfseg.config import EvalConfig
from svfseg.data import (
    Episode,
    Split,
    TestEpisodes,
    collate,
    draw_test_list,
    novel_split,
    read_episodes,
    test_index,
)
from svfseg.data.transforms import logits_at_original
from svfseg.metrics import IoUMeter
from svfseg.runtime import environment, make_accelerator

Resize = Literal["original", "square"]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Result:
    """Scores of one seed's episodes, in [0, 1]."""

    seed: int
    episodes: int
    miou: float
    fb_iou: float
    classes: dict[str, float]
    seconds: float


def score(
    model: nn.Module,
    source: Split,
    episodes: Sequence[Episode],
    size: int,
    accelerator: Accelerator,
    resize: Resize = "original",
    batch: int = 1,
    workers: int = 0,
    progress: Progress | None = None,
) -> IoUMeter:
    """Sum intersections and unions over episodes; several processes share the work.

    Args:
        model: a head, in eval mode.
        source: the classes that count, and the images.
        episodes: what to score.
        size: side of the square that images are fitted to.
        accelerator: where to compute.
        resize: score at the masks' original size, or on the square.
        batch: episodes at once.
        workers: processes that load data.
        progress: called with (episodes done, episodes in all) of this process.
    """
    meter = IoUMeter(source.names())
    mine = episodes[accelerator.process_index :: accelerator.num_processes]
    loader = DataLoader(
        TestEpisodes(source.index, mine, size),
        batch_size=batch,
        num_workers=workers,
        collate_fn=collate,
        generator=torch.Generator(),  # evaluating draws nothing from the training's stream
    )
    with torch.inference_mode(), accelerator.autocast():
        for items in loader:
            query, support, mask = (
                items[name].to(accelerator.device) for name in ("query", "support", "support_mask")
            )
            logits = model(query, support, mask).float()
            for i, class_id in enumerate(items["class_id"]):
                if resize == "original":
                    target = items["original"][i]
                    prediction = logits_at_original(logits[i], *target.shape).argmax(dim=0)
                else:
                    target, prediction = items["target"][i], logits[i].argmax(dim=0)
                meter.update(prediction.cpu(), target, class_id)
            if progress is not None:
                progress(meter.episodes, len(mine))
    if accelerator.num_processes > 1:
        sums = torch.cat([meter.intersection, meter.union]).to(accelerator.device)
        sums = cast(torch.Tensor, accelerator.reduce(sums, "sum")).cpu()
        meter.intersection, meter.union = sums.chunk(2)
        meter.episodes = len(episodes)
    return meter


def evaluate(
    run: str | Path,
    config: EvalConfig,
    episode_list: str | Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Score a run on its novel classes, for each seed.

    Args:
        run: a run folder.
        config: fold, shots, episodes and seeds.
        episode_list: a file of `svfseg.data.write_episodes` to score instead of drawn lists.
        progress: called with (episodes done, episodes in all) of a seed.

    Returns:
        A plain dict: the setting, a row for each seed, mean and standard deviation over seeds,
        how the checkpoint was chosen, and the environment.

    Raises:
        FileNotFoundError: no run, checkpoint or data.
        ValueError: settings that do not fit the data.
    """
    model, trained = load_run(run, config.checkpoint)
    moved = {name: value for name, value in vars(config.data).items() if value is not None}
    data = replace(trained.data, **moved)
    shot = trained.shot if config.shot is None else config.shot
    source = novel_split(test_index(data), data.fold).require(shot)
    accelerator = make_accelerator(config.device)
    model.to(accelerator.device)
    seeds = config.seeds if episode_list is None else (0,)
    if not seeds or config.episodes < 1:
        raise ValueError("nothing to evaluate: give at least one seed and one episode")
    results = []
    for seed in seeds:
        if episode_list is None:
            episodes = draw_test_list(source, shot, seed, config.episodes)
        else:
            episodes = read_episodes(episode_list, source.index)
            strange = {e.class_id for e in episodes} - set(source.classes)
            if strange:
                raise ValueError(f"{episode_list} has classes {strange} outside fold {data.fold}")
        start = time.perf_counter()
        meter = score(
            model,
            source,
            episodes,
            data.size,
            accelerator,
            config.resize,
            config.batch,
            config.workers,
            progress,
        )
        seconds = time.perf_counter() - start
        results.append(
            Result(seed, meter.episodes, meter.miou(), meter.fb_iou(), meter.per_class(), seconds)
        )
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
        "environment": environment(),
    }


def _spread(values: list[float]) -> dict[str, float | None]:
    return {"mean": mean(values), "std": stdev(values) if len(values) > 1 else None}
