"""Measure whether data keeps up with training: images per second, and the share of waiting."""

import time
from dataclasses import replace

import torch

from svfseg.config import TrainConfig
from svfseg.data import TrainEpisodes, build_splits
from svfseg.lab.bench.measure import Row
from svfseg.lab.run import Objective
from svfseg.lab.runtime import make_accelerator, seed_everything
from svfseg.lab.training import batches
from svfseg.models import build_model
from svfseg.tuning.strategies import tune

BAR = 0.05


def bench_data(config: TrainConfig, steps: int = 20, warm: int = 3) -> Row:
    """Time loading alone in this process, then real training steps with the config's workers.

    Args:
        config: configuration of a training run; nothing is written.
        steps: training steps that count.
        warm: steps before, in which the workers start.
    """
    accelerator = make_accelerator(config.device, config.precision)
    source, _ = build_splits(config.data)
    config = replace(config, optim=replace(config.optim, steps=warm + steps))
    data, optim = config.data, config.optim
    episodes = TrainEpisodes(
        source,
        config.shot,
        config.seed,
        steps * optim.batch,
        data.size,
        data.scale_range,
        data.resize_longest,
    )
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as a worker has
    start = time.perf_counter()
    for i in range(len(episodes)):
        episodes[i]
    alone = len(episodes) * (1 + config.shot) / (time.perf_counter() - start)
    torch.set_num_threads(threads)

    seed_everything(config.seed)
    head = build_model(config.model)
    parameters, tuned = tune(head, config.tuning)
    optimizer = torch.optim.SGD([*parameters, *tuned], lr=optim.lr)
    objective, optimizer = accelerator.prepare(Objective(head, optim.aux_weight), optimizer)
    head.train()
    stream = iter(batches(config, head, source, accelerator))
    waiting, total, mark = 0.0, 0.0, time.perf_counter()
    for step in range(warm + steps):
        items = next(stream)
        arrived = time.perf_counter()
        with accelerator.autocast():
            loss = objective(*(items[name].to(accelerator.device) for name in head.inputs))
        accelerator.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        float(loss.detach())
        done = time.perf_counter()
        if step >= warm:
            waiting, total = waiting + arrived - mark, total + done - mark
        mark = done
    images = steps * optim.batch * (1 + config.shot)
    return {
        "data": data.name, "side": data.size, "batch": optim.batch, "workers": config.workers,
        "arm": config.tuning.strategy, "images per second and worker": alone,
        "images per second in training": images / total, "seconds": total / steps,
        "waiting": waiting / total, "bars": {"waiting": BAR},
    }  # fmt: skip
