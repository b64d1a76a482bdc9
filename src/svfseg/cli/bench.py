"""``svfseg bench``: measure what the parts of svfseg cost on this machine."""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from tyro.conf import Positional

from svfseg.cli.parse import group_help, parse
from svfseg.config import ModelConfig, TrainConfig, did_you_mean, from_dict, read_config
from svfseg.errors import InputError
from svfseg.files import check_output_file, check_output_folder, write_text

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class StepArguments:
    """Measure a training step: time and memory, frozen, full, as in the paper, and with svfseg."""

    networks: Positional[tuple[str, ...]] = ("resnet50", "resnet50_deep")
    """Networks to measure: resnet50, resnet50_deep, vgg16_bn, tf_efficientnet_lite0 or
    vit_small_patch16_224."""
    repeats: int = 9
    """Number of rounds; times are their medians."""
    precision: Literal["float32", "bf16"] = "float32"
    """Number format of the computation."""
    layout: Literal["channels_last", "contiguous"] = "channels_last"
    """Memory layout of images and weights."""
    mode: Literal["eager", "compile", "graphs"] = "eager"
    """How PyTorch runs the step: eager; or, through torch.compile, compile and graphs (CUDA
    graphs)."""
    device: str = "cpu"
    """Device to compute on: cpu or cuda."""
    json: Path | None = None
    """File to write the rows to, one JSON object per line. By default they are printed after the
    table."""


@dataclass(frozen=True)
class FactorArguments:
    """Time the factoring of a ResNet-50: LAPACK alone, apply_svf at first, and from the cache."""

    repeats: int = 3
    """Number of rounds; times are their medians."""
    json: Path | None = None
    """File to write the rows to, one JSON object per line. By default they are printed after the
    table."""


@dataclass(frozen=True)
class EvalArguments:
    """Count episodes per second with features shared between episodes, and without."""

    root: Positional[Path]
    """Folder VOC2012, of whose val list fold 0 is evaluated."""
    backbone: str = "resnet50"
    """Name of the network, with random weights."""
    size: int = 225
    """Side of the square that images are resized to, in pixels."""
    shots: tuple[int, ...] = (1, 5)
    """Numbers of support images per episode, each measured."""
    episodes: int = 1000
    """Number of episodes with shared features."""
    uncached: int = 100
    """Number of episodes without shared features, evenly spaced in the list."""
    cache: int = 4096
    """Memory for shared features, MiB."""
    small: int = 0
    """Memory for shared features in a second measurement, MiB; beyond it they are computed
    again."""
    device: str = "cpu"
    """Device to compute on: cpu or cuda."""
    json: Path | None = None
    """File to write the rows to, one JSON object per line. By default they are printed after the
    table."""


@dataclass(frozen=True)
class PredictArguments:
    """Time a further query with the supports encoded once, and with the supports encoded again."""

    backbones: Positional[tuple[str, ...]] = ("tf_efficientnet_lite0", "resnet50")
    """Names of the networks to measure, with random weights."""
    size: int = 473
    """Side of the square that images are resized to, in pixels."""
    output_stride: int = 8
    """Pixels of the image per position of the features: 8, 16 or 32."""
    repeats: int = 7
    """Number of rounds; times are their medians."""
    device: str = "cpu"
    """Device to compute on: cpu or cuda."""
    json: Path | None = None
    """File to write the rows to, one JSON object per line. By default they are printed after the
    table."""


@dataclass(frozen=True)
class DataArguments:
    """Measure the images loaded per second, and how long a training step waits for them."""

    configs: Positional[tuple[Path, ...]] = ()
    """Configuration files of svfseg train. By default the demo's settings are measured."""
    root: str = ""
    """Folder of the data. By default it is that of each configuration."""
    steps: int = 20
    """Number of training steps."""
    json: Path | None = None
    """File to write the rows to, one JSON object per line. By default they are printed after the
    table."""


@dataclass(frozen=True)
class CostArguments:
    """Count what each strategy trains, stores and computes, without timing it."""

    strategies: Positional[tuple[str, ...]] = ()
    """Names of the strategies to count. By default they are all."""
    head: str = ModelConfig().head
    """Name of the head."""
    backbone: str = "resnet50"
    """Name of the backbone, with random weights."""
    output_stride: int = 8
    """Pixels of the image per position of the features: 8, 16 or 32."""
    size: int = 225
    """Side of the square that images are resized to, in pixels."""
    stages: tuple[int, ...] = (2, 3, 4)
    """Stages of the backbone, of 0 to 4, in which the strategies train."""
    train: str = "S"
    """For svf, the letters of the factors that train: S, U, V."""
    json: Path | None = None
    """File to write the rows to, one JSON object per line. By default they are printed after the
    table."""


@dataclass(frozen=True)
class MasksArguments:
    """Measure the masks that a user gets from one and from five marked images, by every way."""

    tasks: Path
    """Folder with a folder per task, which holds images/, masks/ and classes.txt."""
    split: Literal["all", "A", "B"] = "all"
    """Half of the tasks, in the order of their names: choose settings on A, and report B."""
    shots: tuple[int, ...] = (1, 5)
    """Numbers of marked images."""
    draws: int = 3
    """Number of random choices of the marked images."""
    arms: tuple[str, ...] = ("instant", "fitted", "fitted+svf", "logistic", "forest")
    """Ways to answer: instant, fitted, fitted+svf; and as yardsticks logistic (regression on the
    same features) and forest (a random forest on scikit-image's features)."""
    seconds: float = 60.0
    """Time that a fit may take, in seconds."""
    negatives: int = 0
    """Number of images without the class that are given with the marked ones."""
    queries: int = 20
    """Largest number of images that are asked."""
    device: str = "auto"
    """Device to compute on: auto (a GPU if there is one), cpu, cuda or mps."""
    csv: Path = Path("masks.csv")
    """File to write a row per task, number, draw and way to. Rows that it has are not measured
    again."""
    overlays: Path | None = None
    """Folder to write pictures of the masks of each first draw to. By default none are written."""
    json: Path | None = None
    """File to write the means to, one JSON object per line. By default they are printed after the
    table."""


def run_bench(words: Sequence[str]) -> None:
    """Run ``svfseg bench step|factor|eval|predict|data|cost|masks``."""
    if not words or words[0] in ("-h", "--help"):
        kinds = {name: kind for name, (kind, _) in BENCHES.items()}
        print(group_help("bench", "Measure what svfseg costs on this machine.", kinds))
        return
    if words[0] not in BENCHES:
        raise InputError(f"unknown command bench {words[0]}{did_you_mean(words[0], BENCHES)}")
    kind, run = BENCHES[words[0]]
    parsed = parse(kind, f"bench {words[0]}", words[1:])
    if parsed.json is not None:
        check_output_file(parsed.json)
    from svfseg.cli.tables import bench_table
    from svfseg.lab.runtime import environment

    rows = run(parsed)
    print(bench_table(rows))
    lines = "\n".join(json.dumps(row) for row in [*rows, {"environment": environment()}])
    if parsed.json is None:
        print(lines)
    else:
        write_text(parsed.json, lines + "\n")


def _step(parsed: StepArguments) -> Rows:
    from svfseg.lab.bench.step import SETTINGS, bench_step

    for name in parsed.networks:
        if name not in SETTINGS:
            raise InputError(f"unknown network {name}{did_you_mean(name, SETTINGS)}")
    last = parsed.layout == "channels_last"
    options = (parsed.repeats, parsed.device, parsed.precision, last, parsed.mode)
    return [row for name in parsed.networks for row in bench_step(name, *options)]


def _factor(parsed: FactorArguments) -> Rows:
    from svfseg.lab.bench.factor import bench_factor

    return bench_factor(parsed.repeats)


def _eval(parsed: EvalArguments) -> Rows:
    from svfseg.lab.bench.evaluation import bench_eval

    return bench_eval(
        str(parsed.root),
        parsed.backbone,
        parsed.size,
        parsed.shots,
        parsed.episodes,
        parsed.uncached,
        parsed.cache,
        parsed.small,
        parsed.device,
        lambda line: print(line, file=sys.stderr, flush=True),
    )


def _predict(parsed: PredictArguments) -> Rows:
    from svfseg.lab.bench.prediction import bench_predict

    options = (parsed.size, parsed.output_stride, parsed.repeats, parsed.device)
    return bench_predict(parsed.backbones, *options)


def _data(parsed: DataArguments) -> Rows:
    from svfseg.lab.bench.loading import bench_data
    from svfseg.lab.demo import demo_config

    configs = [from_dict(TrainConfig, read_config(path)) for path in parsed.configs]
    if parsed.root:
        configs = [replace(c, data=replace(c.data, root=parsed.root)) for c in configs]
    configs = configs or [demo_config(Path("demo"), "svf", 1, 0)]
    return [bench_data(config, parsed.steps) for config in configs]


def _cost(parsed: CostArguments) -> Rows:
    from svfseg.config import BackboneConfig, DataConfig, ModelConfig, TuningConfig
    from svfseg.lab.bench.cost import strategy_cost
    from svfseg.tuning.strategies import STRATEGIES

    for name in parsed.strategies:
        if name not in STRATEGIES:
            raise InputError(f"unknown strategy {name}{did_you_mean(name, STRATEGIES)}")
    backbone = BackboneConfig(parsed.backbone, "none", parsed.output_stride)
    rows = []
    for name in parsed.strategies or STRATEGIES:
        config = TrainConfig(
            model=ModelConfig(head=parsed.head, backbone=backbone),
            tuning=TuningConfig(name, parsed.stages, factors=parsed.train),
            data=DataConfig(size=parsed.size),
        )
        named = {"arm": name, "head": parsed.head, "network": parsed.backbone, "side": parsed.size}
        rows.append({**named, **strategy_cost(config)})
        print(f"counted {name}", file=sys.stderr, flush=True)
    return rows


def _masks(parsed: MasksArguments) -> Rows:
    check_output_file(parsed.csv)
    if parsed.overlays is not None:
        check_output_folder(parsed.overlays)
    from svfseg.device import resolve
    from svfseg.segmenter.task_bench import bench_masks, means, read_rows, sheet, write_rows

    rows = read_rows(parsed.csv)
    done = {(row["task"], row["shots"], row["draw"], row["arm"]) for row in rows}
    split = "" if parsed.split == "all" else parsed.split
    options = (parsed.seconds, parsed.negatives, parsed.queries, str(resolve(parsed.device)), done)
    for row, task, choice, masks in bench_masks(
        parsed.tasks, split, parsed.shots, parsed.draws, parsed.arms, *options
    ):
        rows.append(row)
        write_rows(parsed.csv, rows)
        label = f"{row['task']}, {row['shots']} shot, draw {row['draw']}, {row['arm']}"
        print(f"{label}: IoU {100 * (row['iou'] or 0):.1f} %", file=sys.stderr, flush=True)
        if parsed.overlays is not None and row["draw"] == 0:
            parsed.overlays.mkdir(parents=True, exist_ok=True)
            name = f"{row['task']}_{row['shots']}_{row['arm']}.jpg".replace("/", "_")
            sheet(task, choice, masks, parsed.overlays / name)
    return means(rows)


BENCHES: dict[str, tuple[type[Any], Callable[[Any], Rows]]] = {
    "step": (StepArguments, _step),
    "factor": (FactorArguments, _factor),
    "eval": (EvalArguments, _eval),
    "predict": (PredictArguments, _predict),
    "data": (DataArguments, _data),
    "cost": (CostArguments, _cost),
    "masks": (MasksArguments, _masks),
}
