"""Whole files: what may be replaced by them, what not, and what a failure leaves."""

import os
import socket
import stat
from pathlib import Path
from types import SimpleNamespace

import pytest

from svfseg.cli import main
from svfseg.errors import InputError, MissingFileError
from svfseg.files import (
    check_output_file,
    check_output_folder,
    read_json,
    read_json_lines,
    read_text,
    replace_file,
    replace_folder,
    write_json,
    write_text,
)

# not even root can write there: on Linux, on macOS
READ_ONLY = next((p for p in (Path("/proc"), Path("/System")) if p.is_dir()), Path("/"))
posix = pytest.mark.skipif(os.name != "posix", reason="pipes and devices are of POSIX systems")
pytestmark = posix


def test_a_link_keeps_pointing_and_its_target_is_replaced(tmp_path: Path) -> None:
    target, link, dangling = tmp_path / "deep.txt", tmp_path / "link.txt", tmp_path / "new.txt"
    target.write_text("old")
    target.chmod(0o640)
    link.symlink_to(target)
    dangling.symlink_to(tmp_path / "made.txt")
    write_text(link, "new")
    write_text(dangling, "made")
    assert link.is_symlink()
    assert target.read_text() == "new"
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    assert dangling.is_symlink()
    assert (tmp_path / "made.txt").read_text() == "made"
    folder, linked = tmp_path / "folder", tmp_path / "linked"
    folder.mkdir()
    linked.symlink_to(folder)
    with replace_folder(linked) as fresh:
        (fresh / "a").write_text("a")
    assert linked.is_symlink()
    assert (folder / "a").read_text() == "a"


@pytest.mark.parametrize("kind", ["pipe", "socket", "folder", "device"])
def test_what_is_not_a_regular_file_stays(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "special"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        monkeypatch.chdir(tmp_path)  # a socket's path is short
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("special")
    elif kind == "folder":
        path.mkdir()
    else:  # a device needs rights that a test may not have
        real = Path.stat

        def as_device(self: Path, **options: bool) -> object:
            if self == path:
                return SimpleNamespace(st_mode=stat.S_IFCHR | 0o666)
            return real(self, **options)

        monkeypatch.setattr(Path, "stat", as_device)
    before = sorted(tmp_path.iterdir())
    for write in (lambda: check_output_file(path), lambda: write_text(path, "x")):
        with pytest.raises(InputError, match=f"is a {kind}: give a file to write"):
            write()
    assert sorted(tmp_path.iterdir()) == before


def test_dev_null_is_refused_where_it_is() -> None:
    with pytest.raises(InputError, match="/dev/null is a device"):
        check_output_file(Path("/dev/null"))
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_folders_that_cannot_be_written_are_known_before(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    check_output_folder(tmp_path / "a" / "b")
    check_output_file(tmp_path / "a" / "b.txt")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    for path, words in (
        (READ_ONLY / "svfseg" / "out", f"{READ_ONLY} cannot be written"),
        (tmp_path / "file" / "out", "which is a file: give a folder"),
        (tmp_path / "file", "is a file: give a folder"),
    ):
        with pytest.raises(InputError, match=words):
            check_output_folder(path)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for check in (check_output_file, check_output_folder):
        with pytest.raises(InputError, match="a link that points at itself"):
            check(tmp_path / "loop")
    with pytest.raises(InputError, match="cannot be written"):
        check_output_file(READ_ONLY / "out.svf")
    with pytest.raises(InputError, match="lies in a file"):
        check_output_file(tmp_path / "file" / "out.svf")
    with pytest.raises(InputError, match="is not a folder"), replace_folder(tmp_path / "file"):
        pass


def test_a_failure_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 251 + ".txt")  # the longest name there is
    write_text(path, "old")

    def fail() -> None:
        with replace_file(path) as fresh:
            fresh.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_text_and_json_are_read_in_one_way(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"ü": 1})
    assert (tmp_path / "a.json").read_bytes().endswith(b"\n")
    assert read_json(tmp_path / "a.json") == {"ü": 1}
    (tmp_path / "bom.txt").write_bytes("\ufeffa".encode())
    assert read_text(tmp_path / "bom.txt") == "a"
    (tmp_path / "latin.txt").write_bytes(b"\xe9t\xe9")
    (tmp_path / "torn.jsonl").write_text('{"step": 1}\n{"step": 2}\n{"st')
    assert read_json_lines(tmp_path / "torn.jsonl") == [{"step": 1}, {"step": 2}]
    (tmp_path / "broken.jsonl").write_text('{"step": 1}\n{"st\n{"step": 2}\n')
    for read, name, words in (
        (read_text, "latin.txt", "is not text in UTF-8"),
        (read_json, "torn.jsonl", "is damaged: it is not JSON"),
        (read_json_lines, "broken.jsonl", "line 2: it is not JSON"),
    ):
        with pytest.raises(InputError, match=words):
            read(tmp_path / name)
    with pytest.raises(MissingFileError, match="no file at"):
        read_text(tmp_path / "nothing")
    for text in ("[" * 100_000 + "]" * 100_000, "1" * 5000):  # deep; or of too many digits
        (tmp_path / "odd.json").write_text(text)
        with pytest.raises(InputError, match=r"odd\.json is damaged: it is not JSON"):
            read_json(tmp_path / "odd.json")
        (tmp_path / "odd.json").write_text(f"{text}\n1\n")
        with pytest.raises(InputError, match=r"odd\.json is damaged, line 1: it is not JSON"):
            read_json_lines(tmp_path / "odd.json")


COMMANDS = {
    "fit": "fit --support {0}/a.png --mask {0}/m.png --out {1}",
    "report": "report {0} --out {1}",
    "eval": "eval {0} --json {1}",
    "bench": "bench step --json {1}",
    "data": "data episodes folder --root {0} --out {1}",
}
FOLDERS = {
    "predict": "predict {0}/t.svf --query {0}/a.png --out {1}",
    "train": "train --out {1}",
    "study": "study {0}/s.yaml --out {1}",
    "analyze": "analyze {0} --out {1}",
    "export": "export {0}/t.svf --out {1}",
    "demo": "demo --out {1}",
    "import-checkpoint": "import-checkpoint {0}/w.pth --out {1}",
    "app": "app {1} --no-browser --port 0",
    "serve": "serve --tasks {1} --port 0",
    "label-studio": "label-studio --project {1} --port 0",
}


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    for name in ("a.png", "m.png", "t.svf", "w.pth"):
        (tmp_path / name).write_text("")
    (tmp_path / "s.yaml").write_text("arms: {a: {}}\ntrain: {selection: {monitor: last}}\n")
    return tmp_path


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_refuses_a_pipe_before_its_work(
    command: str, inputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pipe = inputs / "pipe"
    os.mkfifo(pipe)
    words = COMMANDS[command].format(inputs, pipe).split()
    assert main(words) == 2
    assert f"{pipe} is a pipe: give a file to write" in capsys.readouterr().err
    assert stat.S_ISFIFO(pipe.stat().st_mode)


@pytest.mark.parametrize("command", FOLDERS)
def test_every_command_refuses_a_folder_that_cannot_be_written(
    command: str, inputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = FOLDERS[command].format(inputs, READ_ONLY / "out").split()
    assert main(words) == 2
    assert f"{READ_ONLY} cannot be written" in capsys.readouterr().err
