"""Compare a frozen backbone with SVF on the embedded data, and write a page."""

import base64
import io
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import torch
from PIL import Image

from svfseg._version import __version__
from svfseg.config import (
    BackboneConfig,
    DataConfig,
    EvalConfig,
    ModelConfig,
    OptimConfig,
    SelectionConfig,
    TrainConfig,
    TuningConfig,
)
from svfseg.data import TestEpisodes, draw_test_list, novel_split, test_index
from svfseg.data.images import Array, overlay
from svfseg.errors import InputError
from svfseg.files import read_json_lines, write_text
from svfseg.lab.evaluation import EvaluationResult, evaluate
from svfseg.lab.events import PhaseStarted, Report, ignore
from svfseg.lab.metrics import IoUMeter
from svfseg.lab.training import train
from svfseg.svf import singular_values, spectrum
from svfseg.tuning.checkpoint import load_run, restore_model, run_config

PAGE = "demo.html"
EXAMPLES = 10
STRATEGIES = ("frozen", "svf")
# The rates that the search on the reduced Pascal-5i found (results/pascal5i_reduced_search.csv).
# The gradient is clipped, for both alike: a safeguard, so short a training cannot recover.
HEAD_RATE, TUNING_RATE = 0.03, 0.05


@dataclass(frozen=True)
class Arm:
    """One of the two compared trainings."""

    strategy: str
    run: Path
    result: EvaluationResult
    losses: list[tuple[int, float]]
    seconds: float


@dataclass(frozen=True)
class DemoResult:
    """What a demo leaves.

    Attributes:
        page: the file to look at.
        arms: the two trainings with their scores.
        verdict: one sentence that says which was better.
    """

    page: Path
    arms: tuple[Arm, ...]
    verdict: str


def demo(
    out: Path, steps: int = 150, episodes: int = 200, seed: int = 0, report: Report = ignore
) -> DemoResult:
    """Train both, score both on the same episodes, and write the page that compares them.

    Args:
        out: folder for the page and the runs; what a demo left there before is replaced.
        steps: optimizer steps of each training.
        episodes: test episodes.
        seed: seed of the initial weights, the training and the test episodes.
        report: called with `svfseg.lab.events.PhaseStarted` where a training or an evaluation
            begins, then with the events of that.

    Raises:
        InputError: the packages of the extra "demo" are missing, or the folder holds other things.
    """
    _clear(out)
    start = time.perf_counter()
    arms = tuple(
        _run(out / strategy, strategy, steps, episodes, seed, report) for strategy in STRATEGIES
    )
    verdict = compare(*arms)
    page = out / PAGE
    write_text(page, _render(arms, verdict, episodes, seed, time.perf_counter() - start))
    return DemoResult(page, arms, verdict)


def compare(frozen: Arm, svf: Arm) -> str:
    """Say in one sentence which strategy was better on these episodes."""
    a, b = (100 * arm.result.miou for arm in (frozen, svf))
    scores = f"{b:.1f} against {a:.1f} mIoU on the novel classes"
    if round(a, 1) == round(b, 1):
        return f"SVF and the frozen backbone came out equal: {scores}."
    return (
        f"SVF scored {abs(b - a):.1f} points {'higher' if b > a else 'lower'} than the frozen "
        f"backbone, {scores}, in one run each: chance alone moves that by points."
    )


def _clear(out: Path) -> None:
    if out.exists() and any(out.iterdir()) and not (out / PAGE).exists():
        leftover = {path.name for path in out.iterdir()} - set(STRATEGIES)
        if leftover:
            raise InputError(
                f"{out} holds {sorted(leftover)[0]} and is not a demo: choose another folder",
                settings=("out",),
            )
    for strategy in STRATEGIES:
        shutil.rmtree(out / strategy, ignore_errors=True)
    (out / PAGE).unlink(missing_ok=True)


def demo_config(folder: Path, strategy: str, steps: int, seed: int) -> TrainConfig:
    """Give the settings of the training of one strategy."""
    return TrainConfig(
        out=str(folder),
        data=DataConfig(name="stickers", size=225, resize_longest=True, validation_fraction=0.0),
        model=ModelConfig(
            hidden=128, backbone=BackboneConfig("tf_efficientnet_lite0", output_stride=16)
        ),
        tuning=TuningConfig(strategy=strategy, lr=TUNING_RATE),
        optim=OptimConfig(lr=HEAD_RATE, steps=steps, batch=4, clip=1.0),
        selection=SelectionConfig(monitor="last", every=max(1, steps)),
        seed=seed,
        device="cpu",
    )


def _run(folder: Path, strategy: str, steps: int, episodes: int, seed: int, report: Report) -> Arm:
    config = demo_config(folder, strategy, steps, seed)
    start = time.perf_counter()
    report(PhaseStarted("training", strategy))
    train(config, report=report)
    report(PhaseStarted("evaluating", strategy))
    settings = EvalConfig(episodes=episodes, seeds=(seed,), batch=4, device="cpu")
    result = evaluate(folder, settings, report=report)
    seconds = time.perf_counter() - start
    lines = read_json_lines(folder / "metrics.jsonl")
    losses = [(line["step"], line["loss"]) for line in lines if "loss" in line]
    return Arm(strategy, folder, result, losses, seconds)


def _render(arms: Sequence[Arm], verdict: str, episodes: int, seed: int, seconds: float) -> str:
    template = jinja2.Environment(
        loader=jinja2.PackageLoader("svfseg.lab"), autoescape=True, undefined=jinja2.StrictUndefined
    ).get_template("demo.html")
    return template.render(
        arms=arms,
        verdict=verdict,
        episodes=episodes,
        seed=seed,
        seconds=seconds,
        version=__version__,
        rows=_examples(arms, seed),
        layers=_spectra(arms[1]),
        curves=_curves(arms),
    )


def _examples(arms: Sequence[Arm], seed: int) -> list[dict[str, Any]]:
    """The first episodes of the test list, two of each class: pictures and IoUs."""
    models = [load_run(arm.run)[0] for arm in arms]
    config = run_config(arms[0].run)
    source = novel_split(test_index(config.data), config.data.fold)
    drawn = draw_test_list(source, 1, seed, 100)
    each = EXAMPLES // len(source.classes)
    chosen = [e for c in source.classes for e in [x for x in drawn if x.class_id == c][:each]]
    rows = []
    examples = TestEpisodes(source.index, chosen, config.data.size)
    for item in (examples[i] for i in range(len(examples))):
        query, support = (_picture(item[name]) for name in ("query", "support"))
        class_id, target = item["class_id"], item["target"]
        row: dict[str, Any] = {
            "name": source.index.classes[class_id - 1],
            "support": _uri(overlay(support, (item["support_mask"][0] == 1).numpy())),
            "query": _uri(query),
            "truth": _uri(overlay(query, (target == 1).numpy())),
            "predictions": [],
        }
        for model in models:
            with torch.inference_mode():
                inputs = (item[name][None] for name in ("query", "support", "support_mask"))
                prediction = model(*inputs)[0].argmax(dim=0)
            meter = IoUMeter({class_id: row["name"]})
            meter.update(prediction, target, class_id)
            picture = overlay(query, (prediction.bool() & (target != 255)).numpy())
            row["predictions"].append({"picture": _uri(picture), "iou": meter.miou()})
        rows.append(row)
    return rows


def _spectra(arm: Arm) -> list[dict[str, Any]]:
    """How far the singular values of each layer moved, relative to where they started."""
    model = restore_model(arm.run / "best", run_config(arm.run))
    return [
        {"name": name, "count": now.numel(), **spectrum(now, start)._asdict()}
        for name, (now, start) in singular_values(model.backbone).items()
    ]


def _curves(arms: Sequence[Arm]) -> list[dict[str, Any]]:
    """Loss by step as points of a 600 x 160 drawing, both on one scale."""
    top = max((loss for arm in arms for _, loss in arm.losses), default=1.0)
    last = max((step for arm in arms for step, _ in arm.losses), default=1)
    curves = []
    for arm in arms:
        points = [f"{600 * s / last:.1f},{160 - 150 * v / top:.1f}" for s, v in arm.losses]
        end = arm.losses[-1][1] if arm.losses else float("nan")
        curves.append({"strategy": arm.strategy, "points": " ".join(points), "end": end})
    return curves


def _picture(images: torch.Tensor) -> Array:
    image = images[0] if images.ndim == 4 else images
    picture: Array = image.permute(1, 2, 0).clamp(0, 255).byte().numpy()
    return picture


def _uri(picture: Array) -> str:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
