"""The command line: one function a command. Only what a command needs is imported."""

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


# What the system refuses, whoever asks: a full disk, a quota, a medium that is read-only.
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
        with _one_voice():
            COMMANDS[words[0]][0](words[1:])
    except BrokenPipeError:  # the reader of our output has seen enough
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
    """One line for what the user can mend; None for a bug of the program."""
    if isinstance(error, InputError):
        line = " ".join(str(error).split()) or type(error).__name__
        options = ", ".join(f"--{name.replace('_', '-')}" for name in error.settings)
        return f"{line} ({options})" if options else line
    if isinstance(error, OSError) and (error.filename is not None or error.errno in _REFUSALS):
        where = f" ({error.filename})" if error.filename is not None else ""
        return f"{error.strerror}{where}: check the path, its permissions and the space on the disk"
    return None


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
