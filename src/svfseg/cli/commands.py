"""The command line: one function per command. A command imports only what it needs."""

import errno
import os
import sys
import traceback
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
from svfseg.config import did_you_mean
from svfseg.errors import InputError

COMMANDS: dict[str, tuple[Callable[[Sequence[str]], None], str]] = {
    "fit": (run_fit, "learn classes from a few marked images, and write one file"),
    "predict": (run_predict, "outline the classes in other images, in several formats"),
    "app": (run_app, "mark, learn, look through and save on a page in the browser"),
    "serve": (run_serve, "fit and predict for programs, over HTTP"),
    "label-studio": (
        run_label_studio,
        "answer Label Studio: predict masks, and fit on what is submitted",
    ),
    "export": (run_export, "write a task as ONNX, for programs without torch"),
    "report": (run_report, "write a page of predictions, the doubtful ones first"),
    "train": (run_train, "train a head, and the weights that a strategy tunes"),
    "eval": (run_eval, "score a run on its novel classes"),
    "inspect": (run_inspect, "show which values of a network SVF would train"),
    "import-checkpoint": (run_import, "make a run folder of a published checkpoint"),
    "data": (run_data, "verify the files of a benchmark, write lists of test episodes"),
    "study": (run_study, "train and score many settings, and compare them with intervals"),
    "analyze": (run_analyze, "show what a run learned: spectrum, attention and curves, as a page"),
    "bench": (run_bench, "measure steps, factoring, evaluation, prediction and loading"),
    "demo": (run_demo, "compare a frozen backbone with SVF on generated scenes"),
}


# What the system refuses to every program: a full disk, a quota, a read-only medium.
_REFUSALS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        0 if it went well; 2, after one line of advice, for what the user can mend; 1, after a
        traceback, for a bug of the program; 130 if it was interrupted.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0
    if words[0] in ("--version", "version"):
        print(f"svfseg {__version__}")
        return 0
    try:
        if words[0] not in COMMANDS:
            raise InputError(f"unknown command {words[0]}{did_you_mean(words[0], COMMANDS)}")
        with _first_process_prints():
            COMMANDS[words[0]][0](words[1:])
    except BrokenPipeError:  # what reads the output has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        print("svfseg: stopped", file=sys.stderr)
        return 130
    except Exception as error:
        line = _advice(error)
        if line is None or os.environ.get("SVFSEG_TRACEBACK"):
            traceback.print_exc()
        if line is None:
            print(f"svfseg: {_BUG.format(command=words[0])}", file=sys.stderr)
            return 1
        print(f"svfseg: {line}", file=sys.stderr)
        return 2
    return 0


_BUG = (
    "this is a bug of svfseg, not of your input: please report it with the lines above, the "
    "command (svfseg {command} ...) and the output of svfseg --version"
)


def _advice(error: Exception) -> str | None:
    """Give one line for what the user can mend; None for a bug of the program."""
    if isinstance(error, InputError):
        line = " ".join(str(error).split()) or type(error).__name__
        options = ", ".join(f"--{name.replace('_', '-')}" for name in error.settings)
        return f"{line} ({options})" if options else line
    if isinstance(error, OSError) and (error.filename is not None or error.errno in _REFUSALS):
        where = f" ({error.filename})" if error.filename is not None else ""
        return f"{error.strerror}{where}: check the path, its permissions and the space on the disk"
    return None


@contextmanager
def _first_process_prints() -> Iterator[None]:
    """Silence all but the first process of a launch (torchrun); errors leave every process."""
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
            "Few-shot segmentation: give one to a few images of a class with masks,",
            "and svfseg outlines the class in other images.",
            "",
            "commands:",
            *lines,
            "",
            "svfseg COMMAND --help shows the options of a command, and their defaults.",
        ]
    )
