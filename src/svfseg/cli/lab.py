"""The commands of the laboratory: train, eval, inspect, study, analyze and others."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from svfseg.cli.parse import parse, split_config_file
from svfseg.config import EvalConfig, TrainConfig, from_dict, read_config
from svfseg.files import check_output_file, check_output_folder, write_json


@dataclass(frozen=True)
class StudyArguments:
    """Run a study: each setting (arm) at each point of a grid is trained and scored once."""

    study: Positional[Path]
    """YAML file with train, eval, arms, grid, reference and search; docs/study.md explains it."""
    out: Path
    """Folder for the runs and the tables; a study that was stopped goes on in it."""
    root: str | None = None
    """Folder of the data. By default it is train.data.root of the study."""
    dry_run: bool = False
    """List the runs, and do nothing."""


@dataclass(frozen=True)
class AnalyzeArguments:
    """Show what a run changed in its backbone: spectrum, attention, curves; as a page and JSON."""

    run: Positional[Path]
    """Folder that train wrote."""
    out: Path = Path("analysis")
    """Folder to write analysis.html and analysis.json to."""
    episodes: int = 200
    """Number of test episodes whose queries are looked at."""
    seed: int = 321
    """Seed of the test episodes."""
    checkpoint: Literal["best", "last"] = "best"
    """Which checkpoint of the run to show: the best one, or the last one."""
    root: str | None = None
    """Folder of the data. By default it is the run's own."""
    device: str = "auto"
    """Device to compute on: auto (a GPU if there is one), cpu, cuda or mps."""


def run_study(arguments: Sequence[str]) -> None:
    """Run ``svfseg study STUDY.yaml --out DIR``."""
    parsed = parse(StudyArguments, "study", arguments)
    from svfseg.cli.progress import StudyProgress
    from svfseg.lab import study as studies

    study = studies.read_study(parsed.study, parsed.root)
    if parsed.dry_run:
        for job in (*studies.search_jobs(study), *studies.final_jobs(study, {})):
            print(job.name)
        return
    check_output_folder(Path(parsed.out))
    with StudyProgress() as progress:
        out = studies.run_study(study, parsed.out, progress)
    table = out / "summary.md"
    print(table.read_text() if table.is_file() else f"wrote {out}")


def run_analyze(arguments: Sequence[str]) -> None:
    """Run ``svfseg analyze RUN --out DIR``."""
    parsed = parse(AnalyzeArguments, "analyze", arguments)
    check_output_folder(Path(parsed.out))
    from svfseg.lab.analysis import analyze

    page = analyze(
        parsed.run,
        parsed.out,
        parsed.episodes,
        parsed.seed,
        parsed.checkpoint,
        parsed.device,
        parsed.root,
    )
    print(f"wrote {page} and analysis.json beside it")


@dataclass(frozen=True)
class TrainArguments:
    """Train a head, and the weights of the backbone that the strategy tunes."""

    config: Annotated[TrainConfig, arg(name="")] = field(default_factory=TrainConfig)
    resume: bool = False
    """Go on from the last checkpoint of the run folder."""


@dataclass(frozen=True)
class EvalArguments:
    """Score a run on its novel classes: mIoU, FB-IoU, and the IoU of each class."""

    run: Positional[Path]
    """Folder that train wrote."""
    config: Annotated[EvalConfig, arg(name="")] = field(default_factory=EvalConfig)
    episode_list: Path | None = None
    """File of svfseg data episodes with the episodes to score. By default they are drawn."""
    json: Path | None = None
    """File to write the result to, as JSON. By default it is only printed."""


@dataclass(frozen=True)
class InspectArguments:
    """Show which values of a network SVF would train."""

    model: Positional[str]
    """Name of a backbone (resnet50, vgg16_bn, any convolutional network of timm), or a run
    folder."""
    target_modules: str | None = None
    """Regular expression for the names of the layers to factor. By default they are those of stages
    2 to 4."""
    exclude_modules: str | None = None
    """Regular expression for the names of layers to leave out. By default none are left out."""
    train: str = "S"
    """Letters of the factors that train: S, U, V."""
    output_stride: int = 8
    """Pixels of the image per position of the features: 8, 16 or 32."""


@dataclass(frozen=True)
class ImportArguments:
    """Make a run folder of a published checkpoint (PFENet, BAM, its PSPNet, the SVF baseline)."""

    file: Positional[Path]
    """Published .pth or .safetensors file."""
    out: Path
    """Run folder to write."""
    head: str | None = None
    """Head of the checkpoint: pfenet, baseline, bam or pspnet. By default it is pfenet."""
    backbone: str = "resnet50_deep"
    """Backbone of the checkpoint: resnet50_deep, resnet101_deep, vgg16 or vgg16_bn."""
    dilation: Literal["uniform", "stepwise"] | None = None
    """Where a stage trades stride for dilation: uniform (PFENet, BAM) or stepwise (the SVF code).
    By default it is what the authors of the head used."""
    bins: tuple[float, ...] = (60, 30, 15, 8)
    """Sides of the levels of PFENet's feature pyramid; 1 0.5 0.25 0.125 for COCO."""
    size: int = 473
    """Side of its test images, in pixels: 473 for Pascal, 641 for COCO."""


@dataclass(frozen=True)
class DemoArguments:
    """Compare a frozen backbone with SVF on generated scenes, on a page."""

    out: Path = Path("demo")
    """Folder for the page (demo.html) and the two runs."""
    steps: int = 150
    """Number of optimizer steps of each training."""
    episodes: int = 200
    """Number of test episodes."""
    seed: int = 0
    """Seed of the scenes, the trainings and the test episodes."""


def run_train(arguments: Sequence[str]) -> None:
    """Run ``svfseg train [CONFIG.yaml] [--option value]``."""
    file, words = split_config_file(arguments, TrainArguments)
    settings = {} if file is None else read_config(file)
    default = TrainArguments(from_dict(TrainConfig, settings))
    parsed = parse(TrainArguments, "train [CONFIG.yaml]", words, default)
    check_output_folder(Path(parsed.config.out))
    from svfseg.cli.progress import TrainProgress
    from svfseg.lab.training import train

    print("reading the data, building the network", file=sys.stderr)
    with TrainProgress() as progress:
        run = train(parsed.config, parsed.resume, progress)
    print(f"wrote {run}: score it with  svfseg eval {run}")


def run_eval(arguments: Sequence[str]) -> None:
    """Run ``svfseg eval RUN [--option value]``."""
    parsed = parse(EvalArguments, "eval", arguments)
    if parsed.json is not None:
        check_output_file(parsed.json)
    from svfseg.cli.progress import EvalProgress
    from svfseg.cli.tables import result_table
    from svfseg.lab.evaluation import evaluate

    with EvalProgress() as progress:
        result = evaluate(parsed.run, parsed.config, parsed.episode_list, progress)
    print(result_table(result))
    if parsed.json is not None:
        write_json(parsed.json, result.to_dict())


def run_inspect(arguments: Sequence[str]) -> None:
    """Run ``svfseg inspect MODEL``."""
    parsed = parse(InspectArguments, "inspect", arguments)
    from svfseg.config import BackboneConfig
    from svfseg.models import build_backbone
    from svfseg.svf import plan_svf
    from svfseg.tuning.checkpoint import run_config
    from svfseg.tuning.modules import stages_pattern

    folder = Path(parsed.model)
    if folder.is_dir():
        config = run_config(folder)
        backbone, stages = config.model.backbone, config.tuning.stages
    else:
        stride = parsed.output_stride
        if parsed.model.startswith("vgg") and stride != 16:
            print(f"{parsed.model} has the output stride 16, which is used")
            stride = 16
        backbone = BackboneConfig(parsed.model, "none", output_stride=stride)
        stages = (2, 3, 4)
    network = build_backbone(backbone)
    target = parsed.target_modules or stages_pattern(stages)
    summary = plan_svf(network, target, parsed.exclude_modules, parsed.train)
    total = sum(p.numel() for p in network.parameters())
    print(summary)
    print(f"{summary.trained:,} of {total:,} values train ({100 * summary.trained / total:.3f} %)")


def run_import(arguments: Sequence[str]) -> None:
    """Run ``svfseg import-checkpoint FILE --out RUN``."""
    parsed = parse(ImportArguments, "import-checkpoint", arguments)
    check_output_folder(parsed.out)
    from svfseg.lab.import_checkpoint import import_checkpoint, published_config

    config = published_config(
        parsed.out, parsed.head, parsed.backbone, parsed.dilation, parsed.bins, parsed.size
    )
    import_checkpoint(parsed.file, config)
    print(f"wrote {parsed.out}: use it with  svfseg eval  and  svfseg predict")


def run_demo(arguments: Sequence[str]) -> None:
    """Run ``svfseg demo``."""
    parsed = parse(DemoArguments, "demo", arguments)
    check_output_folder(parsed.out)
    from svfseg.cli.progress import DemoProgress
    from svfseg.cli.tables import result_table
    from svfseg.lab.demo import demo

    with DemoProgress() as progress:
        result = demo(parsed.out, parsed.steps, parsed.episodes, parsed.seed, progress)
    for arm in result.arms:
        print(result_table(arm.result))
    print(result.verdict)
    print(f"the page is {result.page}; to predict with what it trained:")
    print(f"  svfseg predict {parsed.out}/svf --support IMG --mask MASK --query IMG --out found")
