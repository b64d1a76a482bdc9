"""Train a head, and the weights of the backbone that the strategy tunes, in one loop."""

import time
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader, Subset

from svfseg.config import TrainConfig
from svfseg.data import ClassCrops, Split, TrainEpisodes, collate
from svfseg.lab.events import Report, StepDone, ignore
from svfseg.lab.run import Run, setup
from svfseg.models import Head, takes_images

LOG_EVERY = 20


def train(config: TrainConfig, resume: bool = False, report: Report = ignore) -> Path:
    """Train and leave a run folder.

    Args:
        config: every setting.
        resume: go on from the folder's last checkpoint; its settings must be the same.
        report: called with a `svfseg.lab.events.TrainEvent` after each layer that is factored,
            each step and each evaluation.

    Returns:
        The run folder.

    Raises:
        MissingFileError: missing data or weights, or nothing to resume.
        InputError: settings that do not fit together, or a run that is there already.
    """
    run = setup(config, resume, report)
    try:
        _steps(run)
    finally:
        if run.lock is not None:
            run.lock.release()
    return run.folder


def _steps(run: Run) -> None:
    config, report = run.config, run.report
    start, clock = run.step, time.perf_counter()
    for batch in batches(config, run.head, run.source, run.accelerator, run.step):
        loss = run.advance(batch)
        speed = (run.step - start) * config.optim.batch / (time.perf_counter() - clock)
        if run.step % LOG_EVERY == 0:
            _log(run, loss, speed)
        report(StepDone(run.step, config.optim.steps, loss, speed))
        if run.step % config.selection.every == 0 or run.step == config.optim.steps:
            run.save()


def batches(
    config: TrainConfig, head: Head, source: Split, accelerator: Accelerator, start: int = 0
) -> DataLoader[Any]:
    """Load batches from a step to the end of a training, this process's share of each.

    Args:
        config: configuration of the run.
        head: takes single images, or episodes.
        source: the images to draw from.
        accelerator: which of the processes this is.
        start: steps that are done.
    """
    data, optim = config.data, config.optim
    length = optim.steps * optim.batch
    common = (length, data.size, data.scale_range, data.resize_longest)
    stream: ClassCrops | TrainEpisodes
    if takes_images(head):
        stream = ClassCrops(source, config.seed, *common)
    else:
        stream = TrainEpisodes(source, config.shot, config.seed, *common)
    rank, share = accelerator.process_index, optim.batch // accelerator.num_processes
    own = [
        step * optim.batch + rank * share + i
        for step in range(start, optim.steps)
        for i in range(share)
    ]
    return DataLoader(
        Subset(stream, own),
        batch_size=share,
        num_workers=config.workers,
        collate_fn=collate,
        persistent_workers=config.workers > 0,
        pin_memory=accelerator.device.type == "cuda",
        generator=torch.Generator(),  # leaves dropout's stream alone, so that resuming is exact
    )


def _log(run: Run, loss: float, speed: float) -> None:
    if run.log is None:
        return
    rates = run.schedule.get_last_lr()
    tuned = rates[1] if len(rates) > 1 else 0.0
    run.log.write(run.step, loss=loss, lr=rates[0], lr_tuned=tuned, episodes_per_second=speed)
