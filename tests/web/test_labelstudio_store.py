"""What a backend of Label Studio keeps: whole requests, whatever ends it, and nothing that is odd."""

import base64
import contextlib
import io
import json
import logging
import os
import subprocess
import sys
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from PIL import Image

from svfseg.cli import main
from svfseg.errors import InputError
from svfseg.web.labelstudio.app import LIMITS, create_backend
from svfseg.web.labelstudio.images import ImageSource
from svfseg.web.labelstudio.session import LabelStudioSession
from tests.torture.labelstudio import (
    CONFIG,
    brushed,
    build,
    build_before,
    classes,
    event,
    opened,
    outcome,
    send,
    settled,
)

TOKEN = "open sesame"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes that are fitted, and one that waits for it."""
    build(tmp_path / "f")
    return tmp_path / "f"


def client(session: LabelStudioSession, **limits: Any) -> TestClient:
    app = create_backend(session, replace(LIMITS, **limits))
    return TestClient(app, raise_server_exceptions=False)


@pytest.mark.slow
@pytest.mark.posix
def test_every_request_survives_kills_and_full_disks(tmp_path: Path) -> None:
    """A share of ``python -m tests.torture.labelstudio``."""
    words = ["13", "submit several", "start after an update"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.torture.labelstudio", str(tmp_path), *words],
        capture_output=True, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    found = json.loads(done.stdout)
    assert found["wrong"] == []
    assert found["kills"] >= 4
    assert found["full disks"] >= 2


# what was fitted stays


def test_images_that_are_away_delete_no_task(folder: Path, caplog: Any) -> None:
    (folder / "images").rename(folder / "gone")
    before = (folder / "backend/task.svf").read_bytes()
    session = opened(folder)
    for number, sent in enumerate((
        {"action": "START_TRAINING", "project": {"id": 1}},
        {"action": "ANNOTATIONS_DELETED", "annotations": [{"id": 104}]},
    )):  # fmt: skip
        caplog.clear()
        send(session, sent)
        session.fit()
        assert (folder / "backend/task.svf").read_bytes() == before
        assert session.version == "svfseg-1"
        (line,) = [r.getMessage() for r in caplog.records if r.name == "svfseg.labelstudio"]
        assert f"what was fitted before stays: {3 - number} annotation(s) that mark a" in line
        assert "task" in line
        assert "no image at" in line
    session.close()
    (folder / "gone").rename(folder / "images")
    assert outcome(folder)["waits"]  # it is tried again
    assert settled(folder)["classes"] == ["ant", "bee"]


def test_labels_that_are_gone_delete_no_task(folder: Path) -> None:
    session = opened(folder)
    for name in ("ant", "bee", "cat"):
        session.configure(str(session.label_config).replace(name, f"old {name}"))
    session.fit()
    session.close()
    assert classes(folder) == ["ant", "bee"]


def test_the_task_goes_where_nothing_is_marked(folder: Path) -> None:
    """The image of one without any class may be away then."""
    session = opened(folder)
    gone = {"action": "ANNOTATIONS_DELETED", "annotations": [{"id": n} for n in (101, 102, 104)]}
    send(session, gone)
    (folder / "images/p3.png").unlink()
    session.fit()
    assert session.version is None
    session.close()
    assert classes(folder) == []


def test_deleting_an_annotation_without_an_id_deletes_no_other(folder: Path) -> None:
    session = opened(folder)
    send(session, event("ANNOTATION_UPDATED", 5, [brushed("ant")], id=None))
    send(session, {"action": "ANNOTATIONS_DELETED", "annotations": [{}, {"id": "101"}]})
    send(session, event("ANNOTATION_UPDATED", 6, [], id=None, was_cancelled=True))
    assert sorted(session.store.tasks()) == [1, 2, 3, 4, 5]
    session.close()


def test_one_bad_annotation_of_several_keeps_none(folder: Path) -> None:
    before = outcome(folder)
    with contextlib.closing(opened(folder)) as session:
        good, bad = event("", 5, [brushed("ant")]), event("", 6, [brushed("dog")])
        sent = {"action": "ANNOTATIONS_CREATED", "project": {"id": 1},
                "annotation": [good["annotation"], bad["annotation"]],
                "task": [good["task"], bad["task"]]}  # fmt: skip
        with pytest.raises(InputError, match="unknown label dog"):
            send(session, sent)
    assert outcome(folder) == before


def test_a_full_disk_is_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "x")

    session = opened(folder)
    with client(session) as asked:
        monkeypatch.setattr("svfseg.web.labelstudio.store.write_support", full)
        answer = asked.post("/webhook", json=event("ANNOTATION_CREATED", 5, [brushed("ant")]))
    assert answer.status_code == 507
    assert "No space left" in answer.json()["detail"]
    assert 5 not in outcome(folder)["records"]  # type: ignore[operator]


# what lies in the folder


def test_a_folder_of_before_the_database_is_migrated_once(folder: Path, caplog: Any) -> None:
    old = folder.parent / "old"
    build_before(old, folder)
    held = {p.name: p.read_bytes() for p in (old / "backend").rglob("*") if p.is_file()}
    found = outcome(old)
    new = outcome(folder)
    assert {k: v for k, v in found.items() if k != "files"} == {
        k: v for k, v in new.items() if k != "files"
    }
    kept = old / "backend/before-migration"
    assert {p.name: p.read_bytes() for p in kept.rglob("*") if p.is_file()} == held
    assert sum("brought to the form" in r.getMessage() for r in caplog.records) == 1
    caplog.clear()
    assert settled(old)["classes"] == ["ant", "bee", "cat"]
    assert not caplog.records


def test_damaged_files_of_before_are_named_and_stay(folder: Path) -> None:
    old = folder.parent / "old"
    build_before(old, folder)
    path = old / "backend/supports/2.json"
    for text in ('{"task": 2}', "{", "[]"):
        path.write_text(text)
        with pytest.raises(InputError, match=r"2\.json"):
            opened(old)
        assert path.read_text() == text
        assert not (old / "backend/labelstudio.sqlite").exists()
    path.write_text(json.dumps({"task": 10**30, "edit": 7, "annotation": 1, "image": "p1.png",
                                "result": []}))  # fmt: skip
    assert set(outcome(old)["records"]) == {1, 3, 4}  # type: ignore[call-overload]


def test_other_folders_are_refused(folder: Path, tmp_path: Path) -> None:
    for name, text in (("project.sqlite", ""), ("project.json", '{"classes": [], "images": {}}')):
        home = tmp_path / name / "backend"
        home.mkdir(parents=True)
        (home / name).write_text(text)
        with pytest.raises(InputError, match="holds a project of svfseg app"):
            opened(tmp_path / name)
        assert (home / name).read_text() == text
    session = opened(folder)
    with pytest.raises(InputError, match="is open in another program"):
        opened(folder)
    session.close()
    session.close()
    opened(folder).close()
    (folder / "backend/labelstudio.sqlite").write_text("no database" * 100)
    with pytest.raises(InputError, match=r"labelstudio\.sqlite is damaged"):
        opened(folder)


# odd requests


@pytest.mark.parametrize("odd", ["10**400", "2**63", "True", "'\\ud83d'", "'a\\0b'", "'7'", "1.5"])
def test_odd_ids_are_refused_in_one_line(folder: Path, odd: str) -> None:
    value = eval(odd)
    before = outcome(folder)
    with client(opened(folder)) as asked:
        sent = event("ANNOTATION_CREATED", 5, [brushed("ant")])
        named = {**sent, "task": {**sent["task"], "id": value}}
        several = {**sent, "action": "ANNOTATIONS_CREATED", "task": [named["task"]],
                   "annotation": [{**sent["annotation"], "task": value}]}  # fmt: skip
        task = {**named["task"], "annotations": [sent["annotation"]]}
        for path, body in (
            ("/webhook", named),
            ("/webhook", several),
            ("/webhook", {**sent, "project": {"id": value}}),
            ("/train", {"annotations": [task]}),
            ("/predict", {"tasks": [named["task"]]}),
        ):
            answer = asked.post(path, content=json.dumps(body))
            assert answer.status_code == 400, (path, answer.text)
            assert len(answer.json()["detail"].splitlines()) == 1
            assert len(answer.text) < 400
        if odd != "'7'":
            sent["annotation"]["id"] = value
            assert asked.post("/webhook", content=json.dumps(sent)).status_code == 400
    assert outcome(folder) == before


@pytest.mark.parametrize(
    ("address", "label"),
    [("p1\ud83d.png", "ant"), ("http://[", "ant"), ("p" * 5000, "ant"), ("p5.png", "ant\ud83d"),
     ("loop.png", "ant"), ("p5.png", "x" * 10_000)],
)  # fmt: skip
def test_odd_texts_are_refused_in_one_line(folder: Path, address: str, label: str) -> None:
    (folder / "images/loop.png").symlink_to("loop.png")
    before = outcome(folder)
    with client(opened(folder)) as asked:
        sent = event("ANNOTATION_CREATED", 5, [brushed(label)])
        sent["task"]["data"]["photo"] = address
        answer = asked.post("/webhook", content=json.dumps(sent))
        assert answer.status_code == 400, answer.text
        assert len(answer.json()["detail"].splitlines()) == 1
        assert len(answer.text) < 600
    assert outcome(folder) == before


def test_odd_bodies_are_no_bugs(folder: Path) -> None:
    before = outcome(folder)
    with client(opened(folder)) as asked:
        for depth in (300, 900, 980, 5000, 100_000):
            sent = event("ANNOTATION_CREATED", 5, ["deep"])
            body = json.dumps(sent).replace('"deep"', "[" * depth + "]" * depth)
            assert asked.post("/webhook", content=body).status_code == 400
        for config in ("<View>\ud83d</View>", "<View>\0</View>", CONFIG.replace("$photo", "photo")):
            answer = asked.post("/setup", content=json.dumps({"schema": config}))
            assert answer.status_code in (400, 500)
            assert "bug" not in answer.text
        big = json.dumps({"action": "START_TRAINING", "number": 1}).replace("1", "1" * 5000)
        assert asked.post("/webhook", content=big).status_code == 400
    assert outcome(folder) == before


# images


def data_address(size: tuple[int, int]) -> str:
    content = io.BytesIO()
    Image.new("1", size).save(content, "PNG")
    return "data:image/png;base64," + base64.b64encode(content.getvalue()).decode()


@pytest.mark.parametrize(
    ("size", "words"), [((13000, 13000), "is too large"), ((20000, 1), "times the shorter one")]
)
def test_pictures_in_tasks_are_bounded(size: tuple[int, int], words: str) -> None:
    with pytest.raises(InputError, match=words):
        ImageSource().read(data_address(size))
    assert ImageSource().read(data_address((1000, 10))).shape == (10, 1000, 3)


def test_the_bytes_of_pictures_in_tasks_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("svfseg.web.labelstudio.images.MAX_BYTES", 1_000_000)
    with pytest.raises(InputError, match="more than 1 MB"):
        ImageSource().read("data:image/png;base64," + "A" * 1_500_000)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names")
def test_a_pipe_is_not_waited_for(folder: Path) -> None:
    (folder / "images/p5.png").unlink()
    os.mkfifo(folder / "images/p5.png")
    with client(opened(folder)) as asked:
        sent = event("ANNOTATION_CREATED", 5, [brushed("ant")])
        answer = asked.post("/webhook", json=sent)
        assert answer.status_code == 400
        assert "not a regular file" in answer.text
        answer = asked.post("/predict", json={"tasks": [sent["task"]]})
        assert "not a regular file" in answer.text


# the token


def basic(password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"me:{password}".encode()).decode()}


def test_a_token_is_asked_for(folder: Path) -> None:
    with client(opened(folder), token=TOKEN, local=False) as asked:
        assert asked.get("/health").status_code == 200
        for headers in (
            {}, basic("wrong"), {"Authorization": f"Bearer {TOKEN}x"}, {"Authorization": "Basic *"},
            {"Authorization": "Basic " + base64.b64encode(TOKEN.encode()).decode()},
        ):  # fmt: skip
            for path in ("/setup", "/predict", "/webhook", "/train", "/versions"):
                answer = asked.post(path, json={"action": "x"}, headers=headers)
                assert answer.status_code == 401, (path, headers)
                assert "the token is missing or wrong" in answer.json()["error"]
        for headers in (basic(TOKEN), {"Authorization": f"Bearer {TOKEN}"}):
            answer = asked.post("/setup", json={}, headers=headers)
            assert answer.json() == {"model_version": "svfseg-1"}


def test_other_machines_need_a_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.delenv("SVFSEG_TOKEN", raising=False)
    words = ["label-studio", "--project", str(tmp_path / "p"), "--port", "0"]
    for more, found in (
        (["--host", "0.0.0.0"], "there is no token"),
        (["--token", " "], "the token is blank"),
    ):
        assert main([*words, *more]) == 2
        assert found in capsys.readouterr().err
    assert not (tmp_path / "p").exists()


def test_the_command_asks_for_its_token(tmp_path: Path) -> None:
    words = ["label-studio", "--project", str(tmp_path / "p"), "--port", "0", "--device", "cpu"]
    process = subprocess.Popen(
        [sys.executable, "-m", "svfseg", *words], text=True, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, env={**os.environ, "SVFSEG_TOKEN": TOKEN},
    )  # fmt: skip
    try:
        assert process.stderr is not None
        assert process.stderr.readline() == "loading\n"
        url = process.stderr.readline().split()[-1]
        statuses = []
        for headers in ({}, basic(TOKEN), {**basic(TOKEN), "Host": "elsewhere.example"}):
            asked = urllib.request.Request(f"{url}/is_training", headers=headers)
            try:
                with urllib.request.urlopen(asked, timeout=30) as answer:
                    statuses.append(answer.status)
            except urllib.error.HTTPError as error:
                statuses.append(error.code)
                error.close()
        assert statuses == [401, 200, 421]
    finally:
        process.kill()
        process.communicate()


def test_the_log_of_a_refusal_is_one_line(folder: Path, caplog: Any) -> None:
    caplog.set_level(logging.WARNING)
    with client(opened(folder)) as asked:
        asked.post("/webhook", json={"action": "ANNOTATION_CREATED"})
    assert [len(r.getMessage().splitlines()) for r in caplog.records] == [1]
