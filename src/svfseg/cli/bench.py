"""The commands of ``svfseg bench``."""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from tyro.conf import Positional

from svfseg.cli.parse import parse
from svfseg.config import TrainConfig, did_you_mean, from_dict, read_config
from svfseg.errors import InputError
from svfseg.files import check_output_file, write_text

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class StepArguments:
    """Time and memory of a training step: frozen, full, the paper's three operations, ours."""

    networks: Positional[tuple[str, ...]] = ("resnet50", "resnet50_deep")
    """Of resnet50, resnet50_deep, vgg16_bn, tf_efficientnet_lite0, vit_small_patch16_224."""
    repeats: int = 9
    precision: Literal["float32", "bf16"] = "float32"
    layout: Literal["channels_last", "contiguous"] = "channels_last"
    mode: Literal["eager", "compile", "graphs"] = "eager"
    """compile and graphs (CUDA graphs) go through torch.compile."""
    device: str = "cpu"
    json: Path | None = None
    """Write the rows here, one JSON object a line; else they are printed after the table."""


@dataclass(frozen=True)
class FactorArguments:
    """Seconds to factor a ResNet-50: LAPACK alone, apply_svf at first, and from the cache."""

    repeats: int = 3
    json: Path | None = None
    """Write the rows here, one JSON object a line; else they are printed after the table."""


@dataclass(frozen=True)
class EvalArguments:
    """Episodes a second with features shared between episodes, against each one anew."""

    root: Positional[Path]
    """The VOC2012 folder; fold 0 of its val list is evaluated."""
    backbone: str = "resnet50"
    size: int = 225
    shots: tuple[int, ...] = (1, 5)
    episodes: int = 1000
    uncached: int = 100
    """Episodes of the list that the uncached path runs: it does all of them alike."""
    cache: int = 4096
    """MiB of features."""
    small: int = 0
    """MiB of the small bound, past which features are computed again."""
    device: str = "cpu"
    json: Path | None = None
    """Write the rows here, one JSON object a line; else they are printed after the table."""


@dataclass(frozen=True)
class PredictArguments:
    """A further query once the supports were looked at, against looking at them again."""

    backbones: Positional[tuple[str, ...]] = ("tf_efficientnet_lite0", "resnet50")
    size: int = 473
    output_stride: int = 8
    repeats: int = 7
    device: str = "cpu"
    json: Path | None = None
    """Write the rows here, one JSON object a line; else they are printed after the table."""


@dataclass(frozen=True)
class DataArguments:
    """Images a second and worker, and the share of a training step spent waiting for data."""

    configs: Positional[tuple[Path, ...]] = ()
    """Configs of svfseg train; without one, the demo's."""
    root: str = ""
    """Folder of the data, instead of the config's."""
    steps: int = 20
    json: Path | None = None
    """Write the rows here, one JSON object a line; else they are printed after the table."""


@dataclass(frozen=True)
class CostArguments:
    """What each strategy trains, stores, computes and keeps; counted, not timed."""

    strategies: Positional[tuple[str, ...]] = ()
    """By default all of them."""
    head: str = "baseline"
    backbone: str = "resnet50"
    output_stride: int = 8
    size: int = 225
    stages: tuple[int, ...] = (2, 3, 4)
    train: str = "S"
    """svf: letters of the factors that train."""
    json: Path | None = None
    """Write the rows here, one JSON object a line; else they are printed after the table."""


def run_bench(words: Sequence[str]) -> None:
    """Run ``svfseg bench step|factor|eval|predict|data|cost``."""
    if not words or words[0] in ("-h", "--help"):
        print(f"usage: svfseg bench {'|'.join(BENCHES)} ...")
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
    rest = (parsed.repeats, parsed.device, parsed.precision, last, parsed.mode)
    return [row for name in parsed.networks for row in bench_step(name, *rest)]


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

    rest = (parsed.size, parsed.output_stride, parsed.repeats, parsed.device)
    return bench_predict(parsed.backbones, *rest)


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


BENCHES: dict[str, tuple[type[Any], Callable[[Any], Rows]]] = {
    "step": (StepArguments, _step),
    "factor": (FactorArguments, _factor),
    "eval": (EvalArguments, _eval),
    "predict": (PredictArguments, _predict),
    "data": (DataArguments, _data),
    "cost": (CostArguments, _cost),
}
