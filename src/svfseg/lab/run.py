"""A training run as one object: set up, stepped and saved."""

import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from filelock import FileLock, Timeout
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from svfseg.config import OptimConfig, TrainConfig, write_config
from svfseg.data import Split, build_splits
from svfseg.errors import InputError
from svfseg.files import (
    read_json_lines,
    remove_rests,
    replace_folder,
    settle_folder,
    write_json,
)
from svfseg.lab.events import CheckpointScored, LayerFactored, Report, ignore
from svfseg.lab.runtime import (
    MetricsLog,
    environment,
    make_accelerator,
    random_state,
    seed_everything,
    set_random_state,
)
from svfseg.lab.settings import (
    check_head,
    check_resumed,
    check_settings,
    episodes_per_process,
    trainable_split,
)
from svfseg.lab.validation import Judge, make_judge
from svfseg.models import Head
from svfseg.models.weights import backbone_fingerprint
from svfseg.tuning.checkpoint import (
    load_training,
    read_metadata,
    restore_model,
    run_config,
    save_checkpoint,
    start_model,
)
from svfseg.tuning.strategies import trained_parameters, tune


class Objective(nn.Module):
    """A head's loss as a forward pass, so that wrappers for several processes see it.

    Args:
        head: whose loss it is.
        aux_weight: weight of the head's auxiliary losses.
    """

    def __init__(self, head: Head, aux_weight: float) -> None:
        super().__init__()
        self.head = head
        self.aux_weight = aux_weight

    def forward(self, *tensors: Tensor) -> Tensor:
        """Give the loss of a batch, of the tensors that `Head.inputs` names."""
        return self.head.loss(*tensors, aux=self.aux_weight)


@dataclass
class Run:
    """A training that has been set up.

    Attributes:
        config: every setting.
        folder: where it is written.
        head: in training, factored where the strategy is so.
        fingerprint: fingerprint of the base backbone, before tuning.
        source: the images to train on.
        accelerator: device, precision and processes.
        objective: the loss, prepared for several processes.
        optimizer: with a group for the head, and one for the tuned weights.
        schedule: schedule of the learning rates.
        anchors: values that the tuned weights decay to, where they decay to their start.
        judge: scores the model as it is now.
        log: metrics.jsonl, in the main process.
        report: takes the events.
        step: steps that have been taken.
        best: score of the best checkpoint so far; -1 before the first.
        lock: the folder's, in the main process.
    """

    config: TrainConfig
    folder: Path
    head: Head
    fingerprint: str
    source: Split
    accelerator: Accelerator
    objective: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: LambdaLR
    anchors: list[Tensor]
    judge: Judge
    log: MetricsLog | None = None
    report: Report = field(default=ignore)
    step: int = 0
    best: float = -1.0
    lock: FileLock | None = None

    def advance(self, batch: dict[str, Tensor]) -> float:
        """Take one optimizer step, and give its loss.

        Raises:
            InputError: the loss is not finite: the learning rates are too high.
        """
        self.head.train()
        device = self.accelerator.device
        tensors = [batch[name].to(device) for name in self.head.inputs]
        with self.accelerator.autocast():
            loss = self.objective(*tensors)
        self.accelerator.backward(loss)
        self._limit_gradients()
        self.optimizer.step()
        self.optimizer.zero_grad()
        if not self.accelerator.optimizer_step_was_skipped:
            self.schedule.step()
        self.step += 1
        value = float(loss.detach())
        if not math.isfinite(value):
            raise InputError(
                f"the loss is {value} at step {self.step}: lower optim.lr or tuning.lr, or set "
                "optim.clip"
            )
        return value

    def _limit_gradients(self) -> None:
        """Clip the gradient, and pull weights that decay to their start towards it."""
        clip = self.config.optim.clip
        if clip > 0 or self.anchors:
            self.accelerator.unscale_gradients()
        if clip > 0:
            # group by group: large gradients of the tuned weights must not slow the head
            for group in self.optimizer.param_groups:
                nn.utils.clip_grad_norm_(group["params"], clip)
        parameters = anchored_parameters(self.optimizer.param_groups, self.config)
        for parameter, anchor in zip(parameters, self.anchors, strict=True):
            if parameter.grad is not None:
                drift = parameter.detach() - anchor
                parameter.grad.add_(drift, alpha=self.config.tuning.weight_decay)

    def save(self) -> None:
        """Score the model, and write the last and perhaps the best checkpoint."""
        monitor = self.config.selection.monitor
        scores = self.judge()
        score = scores.get("miou", -1.0)
        is_best = monitor == "last" or score > self.best
        self.best = max(self.best, score)
        info = {"step": self.step, "selected_on": monitor, **scores}
        if self.log is not None:
            # last comes first: after a kill, what is missing is made of it (`_complete`)
            last = {**info, "best": self.best, "is_best": is_best}
            self._write("last", last, self._state())
            if is_best:
                self._write("best", info)
            self.log.write(self.step, selected_on=monitor, **scores, best=self.best)
        self.report(CheckpointScored(self.step, monitor, scores, is_best))
        self.accelerator.wait_for_everyone()

    def _write(
        self, name: str, info: dict[str, Any], training: dict[str, Any] | None = None
    ) -> None:
        save_checkpoint(
            self.folder / name, self.head, self.config, self.fingerprint, info, training
        )

    def _state(self) -> dict[str, Any]:
        return {
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "random": random_state(),
            "best": self.best,
            "anchors": [anchor.cpu() for anchor in self.anchors],
        }


def setup(config: TrainConfig, resume: bool = False, report: Report = ignore) -> Run:
    """Check the settings, read the data, build the network, and make the run's folder.

    Args:
        config: every setting.
        resume: go on from the folder's last checkpoint; its settings must be the same.
        report: takes the events.

    Raises:
        MissingFileError: missing data or weights, or nothing to resume.
        InputError: settings that do not fit together, or a run that is there already.
    """
    folder = Path(config.out)
    check_settings(config)
    if resume:
        check_resumed(folder, config)
    else:
        _check_new(folder)
    accelerator = make_accelerator(config.device, config.precision)
    if not accelerator.is_main_process:
        report = ignore
    source, held_out = build_splits(config.data)
    seed_everything(config.seed)
    head, fingerprint, step = (
        _load(folder, config, source) if resume else _start(config, source, report)
    )
    source = trainable_split(source, head, config)
    share = episodes_per_process(config, head, accelerator.num_processes)
    groups = optimizer_groups(*trained_parameters(head), config)
    optimizer: torch.optim.Optimizer = torch.optim.SGD(
        groups, lr=config.optim.lr, momentum=config.optim.momentum
    )
    schedule = LambdaLR(optimizer, lambda at: decay(config.optim, at))
    anchors = [p.detach().clone() for p in anchored_parameters(groups, config)]
    best, state = -1.0, load_training(folder / "last") if resume else {}
    if resume:
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        best, anchors = state["best"], state["anchors"]
    judge = make_judge(config, head, held_out, accelerator, share)
    objective, optimizer = accelerator.prepare(Objective(head, config.optim.aux_weight), optimizer)
    run = Run(
        config, folder, head, fingerprint, source, accelerator, objective, optimizer, schedule,
        [anchor.to(accelerator.device) for anchor in anchors], judge, None, report, step, best,
    )  # fmt: skip
    if accelerator.is_main_process:
        folder.mkdir(parents=True, exist_ok=True)
        run.lock = _locked(folder)
        remove_rests(folder)
        if not resume:
            _check_new(folder)  # another one may have ended meanwhile
            _write_settings(folder, config)
        write_json(folder / "environment.json", environment())
        run.log = MetricsLog(folder, step)
        if resume:
            _complete(run)
    if resume:  # after all that draws random numbers
        set_random_state(state["random"])
    return run


def _check_new(folder: Path) -> None:
    """Raise InputError where a folder holds a run; a best checkpoint alone is left by a kill."""
    for name in ("best", "last"):
        settle_folder(folder / name)
    log = folder / "metrics.jsonl"
    lines = read_json_lines(log) if log.is_file() else []
    scored = (folder / "best").exists() and any("selected_on" in line for line in lines)
    if scored or (folder / "last").exists():
        raise InputError(
            f"{folder} holds a run already: choose another folder, or resume it",
            settings=("out", "resume"),
        )


def _locked(folder: Path) -> FileLock:
    """Take the folder's lock for this process.

    Raises:
        InputError: another training writes there.
    """
    lock = FileLock(folder.parent / f".{folder.name}.train.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise InputError(
            f"another svfseg train writes to {folder}: choose another folder", settings=("out",)
        ) from error
    return lock


def _write_settings(folder: Path, config: TrainConfig) -> None:
    """Write config.yaml, unless it is there and says the same in somebody's own words.

    Raises:
        InputError: one is there that says something else, and is not of a run.
    """
    path = folder / "config.yaml"
    if path.is_file() and not (folder / "environment.json").is_file():
        try:
            same = run_config(folder) == config
        except InputError:
            same = False
        if same:
            return
        raise InputError(
            f"{path} is there already, and was not written by train: choose another folder for "
            "the run", settings=("out",),
        )  # fmt: skip
    write_config(path, config)


def _complete(run: Run) -> None:
    """Write what a kill between a run's last checkpoint and the end of its step left out."""
    last, best = run.folder / "last", run.folder / "best"
    metadata = read_metadata(last)
    settle_folder(best)
    at = read_metadata(best)["step"] if (best / "checkpoint.json").is_file() else None
    if metadata.get("is_best") and at != metadata["step"]:
        with replace_folder(best) as fresh:
            shutil.copytree(last, fresh, dirs_exist_ok=True)
            (fresh / "training.pt").unlink()
    extra = ("format", "backbone", "files", "is_best", "step")
    assert run.log is not None
    if not run.log.has_score(metadata["step"]) and "selected_on" in metadata:
        run.log.write(metadata["step"], **{k: v for k, v in metadata.items() if k not in extra})


def _start(config: TrainConfig, source: Split, report: Report) -> tuple[Head, str, int]:
    """Build and tune a new head; give it with the fingerprint of its backbone, and step 0."""
    head = start_model(config.model)
    check_head(config, head, source)
    fingerprint = backbone_fingerprint(head.backbone)
    tune(head, config.tuning, lambda done, total: report(LayerFactored(done, total)))
    return head, fingerprint, 0


def _load(folder: Path, config: TrainConfig, source: Split) -> tuple[Head, str, int]:
    """Restore the last checkpoint's head, with the fingerprint of its backbone, and its step."""
    metadata = read_metadata(folder / "last")
    head = restore_model(folder / "last", config)
    check_head(config, head, source)
    return head, metadata["backbone"], metadata["step"]


def decay(config: OptimConfig, step: int) -> float:
    """Give the factor on every learning rate at a step: 1 at the start, 0 at the end of a decay."""
    progress = min(1.0, step / config.steps)
    if config.schedule == "poly":
        return float((1 - progress) ** 0.9)
    return 0.5 * (1 + math.cos(math.pi * progress)) if config.schedule == "cosine" else 1.0


def optimizer_groups(
    head: list[nn.Parameter], tuned: list[nn.Parameter], config: TrainConfig
) -> list[dict[str, Any]]:
    """Give the groups of an optimizer: the head's, and that of the tuned weights if any train."""
    groups = [{"params": head, "lr": config.optim.lr, "weight_decay": config.optim.weight_decay}]
    if tuned:
        tuning = config.tuning
        # what is pulled to where it started is not pulled to zero by the optimizer as well
        decay_to_zero = tuning.weight_decay if tuning.decay_to == "zero" else 0.0
        groups.append({"params": tuned, "lr": tuning.lr, "weight_decay": decay_to_zero})
    return groups


def anchored_parameters(
    groups: Sequence[dict[str, Any]], config: TrainConfig
) -> list[nn.Parameter]:
    """List the tuned weights that decay towards where they started."""
    if config.tuning.decay_to == "zero" or config.tuning.weight_decay == 0:
        return []
    return [parameter for group in groups[1:] for parameter in group["params"]]
