"""Train a head, and with it what the strategy tunes of the backbone: one readable loop."""

import json
import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, Subset

from svfseg.config import OptimConfig, TrainConfig, look_up, write_config
from svfseg.data import BENCHMARKS, ClassCrops, Split, TrainEpisodes, build_splits, collate
from svfseg.errors import InputError
from svfseg.lab.runtime import (
    MetricsLog,
    environment,
    make_accelerator,
    random_state,
    seed_everything,
    set_random_state,
)
from svfseg.lab.validation import make_judge
from svfseg.models import HEADS, takes_images
from svfseg.models.weights import backbone_fingerprint
from svfseg.tuning.checkpoint import (
    load_training,
    read_about,
    restore_model,
    run_config,
    save_checkpoint,
    start_model,
)
from svfseg.tuning.strategies import STRATEGIES, trained_parameters, tune

LOG_EVERY = 20
EPISODE = ("query", "support", "support_mask", "target")
Report = Callable[[dict[str, Any]], None]


class Objective(nn.Module):
    """A head's loss as a forward pass, so that wrappers for several processes see it.

    A head names the tensors of a batch that its own loss takes in ``inputs``; without it that is
    an episode: query, support, support_mask, target.
    """

    def __init__(self, model: nn.Module, aux_weight: float) -> None:
        super().__init__()
        self.model = model
        self.aux_weight = aux_weight

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the tensors that `forward` takes."""
        return tuple(getattr(self.model, "inputs", EPISODE))

    def forward(self, *tensors: Tensor) -> Tensor:
        """The head's own loss, or the cross-entropy of its logits with 255 ignored."""
        own = getattr(self.model, "loss", None)
        if own is not None:
            return cast(Tensor, own(*tensors, self.aux_weight))
        *episode, target = tensors
        logits = self.model(*episode)
        return F.cross_entropy(logits.float(), target.long(), ignore_index=255)


def train(config: TrainConfig, resume: bool = False, report: Report | None = None) -> Path:
    """Train and leave a run folder.

    Args:
        config: every setting.
        resume: go on from the folder's last checkpoint; its settings must be the same.
        report: called with a dict after each layer that is factored ("factored", "layers"), each
            step ("step", "steps", "loss") and each evaluation ("miou", "fb_iou", "best").

    Returns:
        The run folder.

    Raises:
        MissingFileError: missing data or weights, or nothing to resume.
        InputError: settings that do not fit together, or a run that is there already.
    """
    run = Path(config.out)
    check(config)
    if resume:
        _same_settings(run, config)
    elif any((run / name).exists() for name in ("best", "last")):
        raise InputError(f"{run} holds a run already: choose another --out, or give --resume")
    accelerator = make_accelerator(config.device, config.precision)
    if not accelerator.is_main_process:
        report = None
    train_split, held_out = build_splits(config.data)
    check_classes(config, train_split)
    seed_everything(config.seed)
    if resume:
        about = read_about(run / "last")
        start, fingerprint = about["step"], about["backbone"]
        model = restore_model(run / "last", config)
        train_split = _trainable(train_split, model, config)
        groups = _groups(*trained_parameters(model), config)
    else:
        model, start = start_model(config.model), 0
        train_split = _trainable(train_split, model, config)
        fingerprint = backbone_fingerprint(cast(nn.Module, model.backbone))
        groups = _groups(*tune(model, config.tuning, _factoring(report)), config)
    optimizer = torch.optim.SGD(groups, lr=config.optim.lr, momentum=config.optim.momentum)
    schedule = LambdaLR(optimizer, lambda step: decay(config.optim, step))
    best = -1.0
    anchors = [p.detach().clone() for p in _anchored(groups, config)]
    if resume:
        state = load_training(run / "last")
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        best, anchors = state["best"], state["anchors"]
    objective = Objective(model, config.optim.aux_weight)
    judge = make_judge(config, model, held_out, accelerator, per_process(config, accelerator))
    names = objective.inputs
    stream = batches(config, train_split, start, accelerator, names)
    objective, optimizer = accelerator.prepare(objective, optimizer)
    anchors = [anchor.to(accelerator.device) for anchor in anchors]
    log = None
    if accelerator.is_main_process:
        run.mkdir(parents=True, exist_ok=True)
        write_config(run / "config.yaml", config)
        (run / "environment.json").write_text(json.dumps(environment(), indent=1) + "\n")
        log = MetricsLog(run, start)
    if resume:  # after all that draws random numbers
        set_random_state(state["random"])

    def keep(step: int) -> None:
        """Evaluate, and write the last and perhaps the best checkpoint."""
        nonlocal best
        info = {"step": step, "selected_on": config.selection.on, **judge()}
        improved = info.get("miou", math.inf) > best or config.selection.on == "last"
        best = max(best, info.get("miou", -1.0))
        if log is not None:
            state = {
                "optimizer": optimizer.state_dict(),
                "schedule": schedule.state_dict(),
                "random": random_state(),
                "best": best,
                "anchors": [anchor.cpu() for anchor in anchors],
            }
            if improved:
                save_checkpoint(run / "best", model, config, fingerprint, info)
            save_checkpoint(run / "last", model, config, fingerprint, info, state)
            log.write(**info, best=best)
        if report is not None:
            report({**info, "best": improved})
        accelerator.wait_for_everyone()

    clock = time.perf_counter()
    for step, items in enumerate(stream, start=start + 1):
        model.train()
        tensors = [items[name].to(accelerator.device) for name in names]
        with accelerator.autocast():
            loss = objective(*tensors)
        accelerator.backward(loss)
        if config.optim.clip > 0 or anchors:
            accelerator.unscale_gradients()
        if config.optim.clip > 0:
            # group by group: large gradients of the tuned weights must not slow the head
            for group in groups:
                nn.utils.clip_grad_norm_(group["params"], config.optim.clip)
        for parameter, anchor in zip(_anchored(groups, config), anchors, strict=True):
            if parameter.grad is not None:
                drift = parameter.detach() - anchor
                parameter.grad.add_(drift, alpha=config.tuning.weight_decay)
        optimizer.step()
        optimizer.zero_grad()
        if not accelerator.optimizer_step_was_skipped:
            schedule.step()
        value = float(loss.detach())
        if not math.isfinite(value):
            raise InputError(
                f"the loss is {value} at step {step}: lower optim.lr or tuning.lr, or set "
                "optim.clip"
            )
        speed = (step - start) * config.optim.batch / (time.perf_counter() - clock)
        if log is not None and step % LOG_EVERY == 0:
            rates = schedule.get_last_lr()
            log.write(
                step,
                loss=value,
                lr=rates[0],
                lr_tuned=rates[1] if len(rates) > 1 else 0.0,
                episodes_per_second=speed,
            )
        if report is not None:
            report({"step": step, "steps": config.optim.steps, "loss": value, "speed": speed})
        if step % config.selection.every == 0 or step == config.optim.steps:
            keep(step)
    return run


def _factoring(report: Report | None) -> Callable[[int, int], None] | None:
    if report is None:
        return None
    return lambda done, total: report({"factored": done, "layers": total})


def check(config: TrainConfig) -> None:
    """Raise InputError for settings that no run can have."""
    look_up(config.tuning.strategy, STRATEGIES, "strategy")
    look_up(config.model.head, HEADS, "head")
    look_up(config.data.name, BENCHMARKS, "benchmark")
    positive = {
        "shot": config.shot,
        "optim.steps": config.optim.steps,
        "optim.batch": config.optim.batch,
        "optim.lr": config.optim.lr,
        "selection.every": config.selection.every,
        "model.hidden": config.model.hidden,
    }
    for name, value in positive.items():
        if not value > 0:
            raise InputError(f"{name} is {value}: expected more than 0")
    if config.data.size < 32:
        raise InputError(f"data.size is {config.data.size}: expected at least 32 pixels")
    if config.workers < 0:
        raise InputError(f"workers is {config.workers}: expected 0 or more")
    if config.selection.on == "base-validation" and config.data.validation_fraction == 0:
        raise InputError(
            "selection.on is base-validation, but data.validation_fraction is 0: hold out some "
            "images, or set selection.on to last"
        )


def check_classes(config: TrainConfig, source: Split) -> None:
    """Raise InputError where a base learner's classes or shots are not those of the run."""
    model = config.model
    if model.head in ("bam", "pspnet") and model.base_classes != len(source.classes):
        raise InputError(
            f"model.base_classes is {model.base_classes}: fold {config.data.fold} of "
            f"{source.index.name} has {len(source.classes)}"
        )
    if model.head == "bam" and model.weighted_shots not in (1, config.shot):
        raise InputError(
            f"model.weighted_shots is {model.weighted_shots} and shot is {config.shot}: the "
            "weighting learns from episodes of its own number of shots"
        )


def decay(config: OptimConfig, step: int) -> float:
    """Factor on every learning rate at a step: 1 at the start, 0 at the end but for constant."""
    progress = min(1.0, step / config.steps)
    if config.schedule == "poly":
        return float((1 - progress) ** 0.9)
    return 0.5 * (1 + math.cos(math.pi * progress)) if config.schedule == "cosine" else 1.0


def per_process(config: TrainConfig, accelerator: Accelerator) -> int:
    """Episodes of a batch in one process.

    Raises:
        InputError: the batch does not divide by the number of processes, or is too small to
            normalise over.
    """
    if config.optim.batch % accelerator.num_processes:
        raise InputError(
            f"optim.batch is {config.optim.batch}: expected a multiple of the "
            f"{accelerator.num_processes} processes"
        )
    share = config.optim.batch // int(accelerator.num_processes)
    if config.model.head == "pspnet" and share < 2:
        raise InputError(
            f"optim.batch is {config.optim.batch} in {accelerator.num_processes} process(es): "
            "expected 2 images or more in each, as pspnet normalises over them"
        )
    return share


def batches(
    config: TrainConfig,
    source: Split,
    start: int,
    accelerator: Accelerator,
    inputs: tuple[str, ...] = EPISODE,
) -> DataLoader[Any]:
    """Batches from step ``start`` to the end, this process's share of each.

    Args:
        config: of the run.
        source: where images are drawn from.
        start: steps that are done.
        accelerator: which process this is.
        inputs: what the head takes: single images, or episodes (`Objective.inputs`).
    """
    data, optim = config.data, config.optim
    length = optim.steps * optim.batch
    stream: ClassCrops | TrainEpisodes
    if inputs[0] == "image":
        stream = ClassCrops(source, config.seed, length, data.size, data.scale, data.fit)
    else:
        stream = TrainEpisodes(
            source, config.shot, config.seed, length, data.size, data.scale, data.fit
        )
    rank, share = accelerator.process_index, per_process(config, accelerator)
    mine = [
        step * optim.batch + rank * share + i
        for step in range(start, optim.steps)
        for i in range(share)
    ]
    return DataLoader(
        Subset(stream, mine),
        batch_size=share,
        num_workers=config.workers,
        collate_fn=collate,
        persistent_workers=config.workers > 0,
        pin_memory=accelerator.device.type == "cuda",
        generator=torch.Generator(),  # leaves dropout's stream alone, so that resuming is exact
    )


def _trainable(source: Split, model: nn.Module, config: TrainConfig) -> Split:
    """The split, with images enough for episodes where the head takes those."""
    if takes_images(model):
        return source
    enough = source.require(config.shot, config.data.few)
    if config.model.head == "bam" and enough.classes != source.classes:
        raise InputError(
            "bam numbers the base classes as its base learner does: none can be left out with "
            "data.few drop; add images, or ask for fewer shots"
        )
    return enough


def _groups(
    head: list[nn.Parameter], tuned: list[nn.Parameter], config: TrainConfig
) -> list[dict[str, Any]]:
    groups = [{"params": head, "lr": config.optim.lr, "weight_decay": config.optim.weight_decay}]
    if tuned:
        tuning = config.tuning
        # what is pulled to where it started is no business of the optimizer's own decay
        decay_to_zero = tuning.weight_decay if tuning.decay_to == "zero" else 0.0
        groups.append({"params": tuned, "lr": tuning.lr, "weight_decay": decay_to_zero})
    return groups


def _anchored(groups: list[dict[str, Any]], config: TrainConfig) -> list[nn.Parameter]:
    """The tuned weights that decay towards where they started."""
    if config.tuning.decay_to == "zero" or config.tuning.weight_decay == 0:
        return []
    return [parameter for group in groups[1:] for parameter in group["params"]]


def _same_settings(run: Path, config: TrainConfig) -> None:
    before = run_config(run)
    same = replace(config, device=before.device, workers=before.workers, out=before.out)
    if same != before:
        raise InputError(
            f"{run} was trained with other settings: resume with those of its config.yaml"
        )
