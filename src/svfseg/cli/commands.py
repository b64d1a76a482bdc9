"""The command line: one function a command. Only what a command needs is imported."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout

from svfseg._version import __version__
from svfseg.cli.bench import run_bench
from svfseg.cli.data import run_data
from svfseg.cli.lab import (
    run_analyze,
    run_demo,
    run_eval,
    run_import,
    run_inspect,
    run_study,
    run_train,
)
from svfseg.cli.segment import run_export, run_fit, run_predict, run_report
from svfseg.cli.web import run_app, run_label_studio, run_serve
from svfseg.config import nearest

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
