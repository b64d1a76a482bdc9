"""The command line: one function a command. Only what a command needs is imported."""

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from svfseg._version import __version__
from svfseg.arguments import parse
from svfseg.bench_cli import run_bench
from svfseg.config import EvalConfig, TrainConfig, from_dict, nearest, read_config
from svfseg.data_cli import run_data
from svfseg.lab_cli import run_analyze, run_study
from svfseg.tool_cli import run_export, run_fit, run_predict, run_report
from svfseg.web_cli import run_app, run_label_studio, run_serve


@dataclass(frozen=True)
class TrainArguments:
    """Train a head, and with it what the strategy tunes of the backbone."""

    config: Annotated[TrainConfig, arg(name="")] = field(default_factory=TrainConfig)
    resume: bool = False
    """Go on from the last checkpoint of --out."""


@dataclass(frozen=True)
class EvalArguments:
    """Score a run on its novel classes: mIoU, FB-IoU and every class."""

    run: Positional[Path]
    """A folder that train wrote."""
    config: Annotated[EvalConfig, arg(name="")] = field(default_factory=EvalConfig)
    episode_list: Path | None = None
    """Score these episodes (a file of 'data episodes') instead of drawn ones."""
    json: Path | None = None
    """Write the result here."""


@dataclass(frozen=True)
class InspectArguments:
    """Show what SVF would train in a network."""

    model: Positional[str]
    """A backbone by name (resnet50, vgg16_bn, any convolutional network of timm) or a run."""
    target_modules: str | None = None
    """Regular expression for the layers; by default stages 2 to 4."""
    exclude_modules: str | None = None
    """Regular expression for layers to leave out."""
    train: str = "S"
    """Letters of the factors that train: S, U, V."""
    output_stride: int = 8


@dataclass(frozen=True)
class ImportArguments:
    """Make a run folder of a published checkpoint (PFENet, BAM, its PSPNet, SVF baseline)."""

    file: Positional[Path]
    """The .pth or .safetensors file."""
    out: Path
    """The run folder to write."""
    head: Literal["pfenet", "baseline", "bam", "pspnet"] = "pfenet"
    backbone: str = "resnet50_deep"
    """resnet50_deep, resnet101_deep, vgg16 or vgg16_bn."""
    dilation: Literal["uniform", "stepwise"] | None = None
    """uniform (PFENet, BAM) or stepwise (the SVF code); by default what the head's authors used."""
    bins: tuple[float, ...] = (60, 30, 15, 8)
    """Sides of PFENet's levels; 1 0.5 0.25 0.125 for COCO."""
    size: int = 473
    """Side of its test images: 473 for Pascal, 641 for COCO."""


@dataclass(frozen=True)
class DemoArguments:
    """Frozen backbone against SVF on generated scenes, with a page to look at."""

    out: Path = Path("demo")
    """Folder for the page (demo.html) and the two runs."""
    steps: int = 150
    """Optimizer steps of each training."""
    episodes: int = 200
    """Test episodes."""
    seed: int = 0


def run_train(arguments: Sequence[str]) -> None:
    """Run ``svfseg train [CONFIG.yaml] [--option value]``."""
    default, rest = TrainArguments(), list(arguments)
    if rest and not rest[0].startswith("-"):
        default = TrainArguments(from_dict(TrainConfig, read_config(rest.pop(0))))
    parsed = parse(TrainArguments, "train [CONFIG.yaml]", rest, default)
    from svfseg.progress import TrainProgress
    from svfseg.training import train

    print("reading the data, building the network", file=sys.stderr)
    with TrainProgress() as progress:
        run = train(parsed.config, parsed.resume, progress)
    print(f"wrote {run}: score it with  svfseg eval {run}")


def run_eval(arguments: Sequence[str]) -> None:
    """Run ``svfseg eval RUN [--option value]``."""
    parsed = parse(EvalArguments, "eval", arguments)
    from svfseg.evaluation import evaluate
    from svfseg.files import replace_file
    from svfseg.progress import EvalProgress, result_table

    with EvalProgress() as progress:
        result = evaluate(parsed.run, parsed.config, parsed.episode_list, progress)
    print(result_table(result))
    if parsed.json is not None:
        with replace_file(parsed.json) as fresh:
            fresh.write_text(json.dumps(result, indent=1) + "\n")


def run_inspect(arguments: Sequence[str]) -> None:
    """Run ``svfseg inspect MODEL``."""
    parsed = parse(InspectArguments, "inspect", arguments)
    from svfseg.checkpoint import run_config
    from svfseg.config import BackboneConfig
    from svfseg.models import build_backbone
    from svfseg.svf import plan_svf
    from svfseg.tuning import stages_pattern

    folder = Path(parsed.model)
    if folder.is_dir():
        config = run_config(folder)
        backbone, stages = config.model.backbone, config.tuning.stages
    else:
        stride = 16 if parsed.model.startswith("vgg") else parsed.output_stride
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
    from svfseg.config import BackboneConfig, DataConfig, ModelConfig, TuningConfig
    from svfseg.published import import_checkpoint

    dilation = parsed.dilation or ("stepwise" if parsed.head == "baseline" else "uniform")
    stride = 16 if parsed.backbone.startswith("vgg") else 8
    config = TrainConfig(
        out=str(parsed.out),
        data=DataConfig(size=parsed.size),
        model=ModelConfig(
            head=parsed.head,
            bins=parsed.bins,
            backbone=BackboneConfig(parsed.backbone, "none", stride, dilation),
        ),
        tuning=TuningConfig(strategy="frozen"),
    )
    import_checkpoint(parsed.file, config)
    print(f"wrote {parsed.out}: use it with  svfseg eval  and  svfseg predict")


def run_demo(arguments: Sequence[str]) -> None:
    """Run ``svfseg demo``."""
    parsed = parse(DemoArguments, "demo", arguments)
    from svfseg.demo import demo

    page = demo(parsed.out, parsed.steps, parsed.episodes, parsed.seed)
    print(f"the page is {page}; to predict with what it trained:")
    print(f"  svfseg predict {parsed.out}/svf --support IMG --mask MASK --query IMG --out found")


COMMANDS: dict[str, tuple[Callable[[Sequence[str]], None], str]] = {
    "fit": (run_fit, "learn classes from a few marked images of yours; one file"),
    "predict": (run_predict, "outline them in other images, in many formats"),
    "app": (run_app, "the same on a page in the browser: mark, learn, look through, save"),
    "serve": (run_serve, "fit and predict for programs, over HTTP"),
    "label-studio": (run_label_studio, "a backend that pre-labels tasks of Label Studio"),
    "export": (run_export, "a task as ONNX, for programs without torch"),
    "report": (run_report, "a page of predictions, the doubtful ones first"),
    "train": (run_train, "train a head, and what the strategy tunes of the backbone"),
    "eval": (run_eval, "score a run on its novel classes"),
    "inspect": (run_inspect, "show what SVF would train in a network"),
    "import-checkpoint": (run_import, "make a run of a published checkpoint"),
    "data": (run_data, "verify a benchmark's files, write lists of test episodes"),
    "study": (run_study, "compare strategies: arms x grid as runs, with intervals"),
    "analyze": (run_analyze, "what a run learned: spectrum, attention, curves, as a page"),
    "bench": (run_bench, "what a step, factoring, evaluation, prediction and data cost here"),
    "demo": (run_demo, "frozen backbone against SVF on generated scenes, with a page"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0 if it went well, 2 with one line of advice for bad input."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0
    if words[0] in ("--version", "version"):
        print(f"svfseg {__version__}")
        return 0
    try:
        if words[0] not in COMMANDS:
            raise ValueError(f"unknown command {words[0]}{nearest(words[0], COMMANDS)}")
        with _one_voice():
            COMMANDS[words[0]][0](words[1:])
    except BrokenPipeError:  # the reader of our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (ValueError, OSError) as error:
        if os.environ.get("SVFSEG_TRACEBACK"):
            raise
        print(f"svfseg: {_one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("svfseg: stopped", file=sys.stderr)
        return 130
    return 0


@contextmanager
def _one_voice() -> Iterator[None]:
    """Of the processes of one launch (torchrun) the first alone prints; all tell errors."""
    if int(os.environ.get("RANK", "0")) == 0:
        yield
        return
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield


def _overview() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name.ljust(width)}  {text}" for name, (_, text) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: svfseg COMMAND ...",
            "",
            "Few-shot segmentation: show one to a few images of a class with masks,",
            "and it is outlined in other images.",
            "",
            "commands:",
            *lines,
            "",
            "svfseg COMMAND --help shows a command's options and their defaults.",
        ]
    )


def _one_line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        where = f" ({error.filename})" if error.filename else ""
        return f"{error.strerror}{where}: check the path, its permissions and the space on the disk"
    return " ".join(str(error).split()) or type(error).__name__
