"""The user's mistakes are one line; the program's own are a traceback, and never the user's."""

import pytest

from svfseg.cli import commands, main
from svfseg.errors import InputError, MissingFileError


def fail_with(error: Exception, monkeypatch: pytest.MonkeyPatch) -> int:
    def run(words: object) -> None:
        raise error

    monkeypatch.setitem(commands.COMMANDS, "fit", (run, "fails"))
    return main(["fit"])


@pytest.mark.parametrize(
    "error",
    [
        ValueError("too many values to unpack"),
        KeyError("classes"),
        TypeError("'NoneType' object is not iterable"),
        OSError("an error of nobody's file"),
    ],
)
def test_a_bug_is_a_traceback_and_status_1(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fail_with(error, monkeypatch) == 1
    told = capsys.readouterr().err
    assert "Traceback" in told
    assert "please report it" in told


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (InputError("one  thing:\n do that"), "svfseg: one thing: do that"),
        (InputError("no room", settings=("out", "max_pixels")), "no room (--out, --max-pixels)"),
        (MissingFileError("no image at a.jpg"), "svfseg: no image at a.jpg"),
        (PermissionError(13, "Permission denied", "a.jpg"), "Permission denied (a.jpg): check"),
        (OSError(28, "No space left on device"), "No space left on device: check the path"),
    ],
)
def test_what_the_user_can_mend_is_one_line_and_status_2(
    error: Exception,
    line: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert fail_with(error, monkeypatch) == 2
    told = capsys.readouterr().err
    assert line in told
    assert told.count("\n") == 1


def test_both_are_what_python_users_catch() -> None:
    assert issubclass(InputError, ValueError)
    assert issubclass(MissingFileError, FileNotFoundError)
    assert issubclass(MissingFileError, InputError)
