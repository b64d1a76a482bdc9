"""Files of tasks that are damaged or forged, in the folder or sent: each harms no other task."""

import io
import json
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from svfseg.errors import InputError
from svfseg.segmenter.task_file import TaskFile
from svfseg.web import tasks as module
from svfseg.web.tasks import check_positions
from tests.web.serving import PHOTO, Running, fit, line, predict, running


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """With one task, cat."""
    with running(tmp_path_factory.mktemp("tasks")) as server:
        assert fit(server.client).status_code == 200
        yield server


def with_settings(whole: bytes, **changes: Any) -> bytes:
    """A task's file with other settings."""
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(whole)) as old, zipfile.ZipFile(made, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "task.json":
                content = json.dumps({**json.loads(content), **changes}).encode()
            new.writestr(name, content)
    return made.getvalue()


def test_a_file_that_fails_hides_no_other(served: Running, tmp_path: Path) -> None:
    """Whatever is wrong with it: cut, no file at all, or settings that no answer can hold."""
    client, folder = served.client, served.app.state.tasks.folder
    whole = client.get("/tasks/cat/file").content
    (tmp_path / "secret").write_bytes(b"secret")
    (folder / "byte.svf").write_bytes(b"\0")
    (folder / "half.svf").write_bytes(with_settings(whole, classes=["\ud800"]))
    (folder / "huge.svf").write_bytes(with_settings(whole, advice=["a" * 1_100_000]))
    (folder / "deep.svf").write_bytes(whole[: len(whole) // 2])
    (folder / "link.svf").symlink_to(tmp_path / "secret")
    (folder / "nowhere.svf").symlink_to(tmp_path / "nothing")
    (folder / "folder.svf").mkdir()
    os.mkfifo(folder / "pipe.svf")
    names = ["byte", "deep", "folder", "half", "huge", "link", "nowhere", "pipe"]
    listed = client.get("/tasks").json()
    assert listed["damaged"] == names
    assert [each["name"] for each in listed["tasks"]] == ["cat"]
    for name in names:
        assert "cannot be used" in line(client.get(f"/tasks/{name}"), 409)
        assert "cannot be used" in line(predict(client, name), 409)
    for name in ("folder", "link", "nowhere", "pipe"):  # what is no file is neither sent nor
        assert "not a file" in line(client.get(f"/tasks/{name}/file"), 409)  # written through
        assert "not a file" in line(client.put(f"/tasks/{name}/file", content=whole), 409)
        assert "not a file" in line(fit(client, name), 409)
    assert (tmp_path / "secret").read_bytes() == b"secret"
    assert not (tmp_path / "nothing").exists()
    assert "a folder, not a file" in line(client.delete("/tasks/folder"), 409)
    (folder / "folder.svf").rmdir()
    for name in set(names) - {"folder"}:
        assert client.delete(f"/tasks/{name}").status_code == 204
    assert (tmp_path / "secret").read_bytes() == b"secret"
    assert client.get("/tasks").json()["damaged"] == []


def test_a_bug_in_the_reader_hides_no_other_task(
    served: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(path: Path) -> TaskFile:
        raise RuntimeError(f"{path} met a bug")

    monkeypatch.setattr(module, "read_task", broken)
    assert served.client.get("/tasks").json() == {"tasks": [], "damaged": ["cat"]}
    assert "cat.svf met a bug" in line(served.client.get("/tasks/cat"), 409)
    assert caplog.records[-1].exc_info is not None


def test_a_file_that_cannot_be_described_is_not_kept(served: Running) -> None:
    client = served.client
    whole = client.get("/tasks/cat/file").content
    for changes, message in (
        ({"classes": ["\ud800"]}, "surrogate"),
        ({"classes": ["a\x00b"]}, "the character U+0000"),
        ({"classes": ["a" * 300]}, "300 characters"),
        ({"classes": [" "]}, "it is blank"),
        ({"advice": ["\udfff"]}, "surrogate"),
        ({"advice": ["a" * 1_100_000]}, "bytes of settings"),
        ({"supports": {"cat": 10**400}}, "no numbers of supports"),
        ({"size": 4096}, "its size is not between 32 and 2048"),
    ):
        assert message in line(
            client.put("/tasks/cat/file", content=with_settings(whole, **changes)), 422
        ), message
        assert client.get("/tasks/cat/file").content == whole
    assert client.get("/tasks").json()["damaged"] == []
    assert predict(client, image=PHOTO).status_code == 200


def test_supports_of_very_many_positions_are_refused() -> None:
    """Each position of an image is compared with each of them."""

    def task(size: int, *positions: int) -> TaskFile:
        shots = [{"keys": torch.zeros(1).expand(2, n)} for n in positions]
        return TaskFile({"size": size}, {0: [{"keys": torch.zeros(2, 10)}], 1: shots})

    check_positions(task(320, 100_000), tile=False)
    with pytest.raises(InputError, match="have 200,010 positions, expected at most 195,312 at its"):
        check_positions(task(320, 100_000, 100_000), tile=False)
    with pytest.raises(InputError, match="at most 20,000 at its size"):
        check_positions(task(320, 100_000), tile=True)
    with pytest.raises(InputError, match="at most 4,768"):
        check_positions(task(2048, 5_000), tile=False)


def test_made_up_methods_make_one_metric(served: Running) -> None:
    for number in range(20):
        served.client.request(f"MADEUP{number}", "/tasks")
    text = served.client.get("/metrics").text
    assert "MADEUP" not in text
    assert 'svfseg_requests_total{method="other",route="/tasks",status="405"} 20.0' in text
