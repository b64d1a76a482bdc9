"""A page's project: each change whole or not at all, ids for life, older changes refused."""

import errno
import io
import json
import os
import re
import sqlite3
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from svfseg import FewShotSegmenter
from svfseg.errors import InputError
from svfseg.web.errors import OutdatedError
from svfseg.web.project import PageProject
from svfseg.web.project_view import view_project
from svfseg.web.results import final_mask, zip_masks
from svfseg.web.worker import Worker
from tests.torture.page import CLASSES, picture, stripes
from tests.torture.stops import KILLED, stopped_at
from tests.web.browser import (
    browser,
    drag,
    needs_chromium,
    open_image,
    page_of,
    place,
    served,
    started,
    wait_saved,
)


@pytest.fixture
def project(tmp_path: Path) -> PageProject:
    """Three classes, marked in two of three images."""
    project = PageProject(tmp_path / "p")
    project.set_classes(CLASSES)
    for number in range(3):
        project.add_image(f"p{number}.png", picture(number), 10**6)
    for number in range(2):
        project.set_mask(f"p{number}.png", stripes(number))
    return project


def ids_of(project: PageProject, name: str) -> set[int]:
    return set(np.unique(project.mask(project.record(name))).tolist()) - {0}


def wait(worker: Worker) -> None:
    assert worker._thread is not None
    worker._thread.join(60)


def learn(project: PageProject) -> Worker:
    worker = Worker(project, "default", "cpu")
    worker.learn(None, False, False, 64, 0)
    wait(worker)
    assert "error" not in worker.job, worker.job
    return worker


@pytest.mark.slow
@pytest.mark.posix
def test_every_change_survives_kills_and_full_disks(tmp_path: Path) -> None:
    """A share of ``python -m tests.torture.page``."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.torture.page", str(tmp_path), "7"],
        capture_output=True, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    found = json.loads(done.stdout)
    assert found["wrong"] == []
    assert found["kills"] > 20
    assert found["full disks"] > 10


def test_an_id_is_of_one_class_for_ever(project: PageProject) -> None:
    project.remove_class(1)
    assert [(each.id, each.name) for each in project.state.classes] == [(2, "bee"), (3, "cat")]
    assert ids_of(project, "p0.png") == {2, 3}
    project.set_classes(["bee", "cat", "dog"])
    assert [each.id for each in project.state.classes] == [2, 3, 4]
    # what was painted before: what is left of it means what it meant
    with pytest.raises(OutdatedError, match="of classes that were removed"):
        project.set_mask("p0.png", stripes(1))
    mask = stripes(1)
    mask[mask == 1] = 0
    project.set_mask("p0.png", mask)
    assert ids_of(project, "p0.png") == {2, 3}
    with pytest.raises(InputError, match=r"ids \[9\]: expected those of the 3 classes"):
        project.set_mask("p0.png", np.full((64, 64), 9, np.uint8))
    with pytest.raises(InputError, match="there is no class 1"):
        project.remove_class(1)
    # what is saved numbers the classes in their order
    with zipfile.ZipFile(io.BytesIO(zip_masks(project, "png"))) as file:
        saved = np.asarray(Image.open(io.BytesIO(file.read("p0.png"))))
    assert set(np.unique(saved).tolist()) == {0, 1, 2}
    assert np.array_equal(saved == 1, mask == 2)


def test_ids_come_to_an_end(project: PageProject) -> None:
    project.set_classes([*CLASSES, *(f"c{i}" for i in range(4, 255))])
    project.remove_class(254)
    with pytest.raises(InputError, match="start a new project"):
        project.set_classes([*(each.name for each in project.state.classes), "more"])
    assert len(project.state.classes) == 253


def test_of_two_windows_the_later_one_is_told(project: PageProject) -> None:
    seen = project.revision
    project.set_mask("p0.png", stripes(2), seen)
    project.set_mask("p1.png", stripes(2), seen)  # another image: nothing of it was changed
    for change in (
        lambda: project.set_mask("p0.png", stripes(1), seen),
        lambda: project.set_without("p0.png", True, seen),
        lambda: project.forget_marks("p0.png", seen),
        lambda: project.remove_image("p0.png", seen),
        lambda: project.examples(seen),
    ):
        with pytest.raises(OutdatedError, match="in another window meanwhile"):
            change()
    project.remove_class(1, seen)
    with pytest.raises(OutdatedError, match="the classes were changed"):
        project.remove_class(2, seen)
    with pytest.raises(OutdatedError, match="the classes were changed"):
        project.set_classes(["a", "b"], seen)
    assert len(project.state.classes) == 2
    assert np.array_equal(project.mask(project.record("p1.png")) == 2, stripes(2) == 2)
    project.set_mask("p0.png", stripes(0) * (stripes(0) > 1), project.revision)


def test_the_page_answers_an_older_change_with_409(tmp_path: Path) -> None:
    mask = Path(tmp_path / "m.png")
    Image.fromarray(stripes(0) // 2).save(mask)
    Path(tmp_path / "a.png").write_bytes(picture(1))
    with served(tmp_path / "p", tmp_path / "a.png") as address, httpx.Client() as client:
        api = f"{address}/api"
        client.put(f"{api}/classes", json=["cat", "dog"]).raise_for_status()
        seen = client.get(f"{api}/state").json()["revision"]
        content = mask.read_bytes()
        url = f"{api}/images/a.png/mask"
        first = client.put(url, content=content, params={"revision": seen})
        assert first.status_code == 200
        again = client.put(url, content=content, params={"revision": seen})
        assert again.status_code == 409
        assert "in another window" in again.json()["error"]
        last = {"revision": first.json()["version"]}
        assert client.put(url, content=content, params=last).status_code == 200
        assert client.delete(f"{api}/classes/1", params={"revision": seen}).status_code == 200
        assert client.delete(f"{api}/classes/2", params={"revision": seen}).status_code == 409
        assert client.put(url, content=content).status_code == 409  # it holds the removed class
        assert client.get(f"{api}/state").json()["classes"] == ["dog"]


def test_what_a_request_may_not_hold_is_answered_in_one_line(tmp_path: Path) -> None:
    Path(tmp_path / "a.png").write_bytes(picture(1))
    with served(tmp_path / "p", tmp_path / "a.png") as address, httpx.Client() as client:
        api = f"{address}/api"
        box = {"boxes": [{"points": [0, 0, 1e9, 1e9], "class": 1}]}
        many = {"clicks": [{"points": [1, 1], "class": 1}] * 2000}
        wrong = {"clicks": [{"points": [1, 1], "class": 7}]}
        for method, path, content in (
            ("PUT", "classes", '["ok\\ud83d"]'),
            ("PUT", "classes", '["a\\u0000b"]'),
            ("PUT", "classes", '[" "]'),
            ("PUT", "classes", "[" * 5000 + "]" * 5000),
            ("POST", "learn", '{"size": 6000}'),
            ("POST", "learn", f'{{"size": 1{"0" * 400}}}'),
            ("POST", "learn", '{"seconds": 1e999}'),
            ("POST", "images/a.png/grow", json.dumps(box)),
            ("POST", "images/a.png/grow", json.dumps(many)),
            ("POST", "images/a.png/grow", json.dumps(wrong)),
            ("PUT", "thresholds/1", "NaN"),
            ("PUT", f"thresholds/1{'0' * 400}", "0.5"),
            ("DELETE", f"classes/1{'0' * 400}", ""),
            ("GET", f"state?revision=1{'0' * 400}", ""),
            ("DELETE", f"images/a.png?revision=1{'0' * 400}", ""),
        ):
            answer = client.request(method, f"{api}/{path}", content=content,
                                    headers={"Content-Type": "application/json"})  # fmt: skip
            assert answer.status_code in (400, 404, 422), (path, content[:40], answer.text)
            assert "\n" not in answer.json()["error"]
        odd = client.post(f"{api}/images", files=[("images", ("x" * 252 + ".png", picture(2))),
                                                  ("images", ("nul\x00.png", picture(3)))])  # fmt: skip
        assert len(odd.json()["added"]) == 2, odd.text
        assert client.get(f"{api}/state").json()["classes"] == ["thing"]


def test_exports_take_any_name(project: PageProject) -> None:
    """Long names, names that are no text, and that of a file of the format itself."""
    for number, name in enumerate(("x" * 252 + ".png", "a\x00b.png", "classes.png", "coco.png")):
        project.add_image(name, picture(20 + number), 10**6)
        added = list(project.state.images)[-1]
        project.set_mask(added, stripes(0))
    for kind in ("png", "yolo", "coco", "labelme", "geojson"):
        with zipfile.ZipFile(io.BytesIO(zip_masks(project, kind))) as file:
            names = file.namelist()
            if kind == "yolo":
                assert file.read("labels/classes.txt").decode().split() == list(CLASSES)
                assert "labels/classes_.txt" in names
            if kind != "coco":
                assert len(names) >= 6


def test_a_class_that_is_removed_while_it_is_learned(
    project: PageProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is learned of a class that is no more is dropped; no other class gets its name."""
    begun, go_on = threading.Event(), threading.Event()
    fit = FewShotSegmenter.fit

    def slow(self: FewShotSegmenter, *words: object) -> object:
        begun.set()
        assert go_on.wait(60)
        return fit(self, *words)

    monkeypatch.setattr(FewShotSegmenter, "fit", slow)
    worker = Worker(project, "default", "cpu")
    worker.learn(None, False, False, 64, 0)
    assert begun.wait(60)
    project.remove_class(1)
    project.remove_image("p1.png")  # what is learned from stays until it is learned
    go_on.set()
    wait(worker)
    assert worker.job["error"] == "a class was removed while it was learned: learn again"
    assert project.state.fit is None
    assert all(not image.results for image in project.state.images.values())
    monkeypatch.setattr(FewShotSegmenter, "fit", fit)
    worker = learn(project)
    assert project.state.fit is not None
    assert [each.class_id for each in project.state.fit.classes] == [2, 3]
    assert [each.class_id for each in project.record("p2.png").results] == [2, 3]
    # a new class leaves what was learned; a learned one that is removed takes it along
    project.set_classes(["bee", "cat", "dog"])
    view = view_project(project)
    assert view["learned"] == 2
    assert view["thresholds"][2] is None
    project.remove_class(4)
    assert project.state.fit is not None
    project.remove_class(3)
    assert project.state.fit is None
    assert not list((project.folder / "results").iterdir())
    assert not list((project.folder / "tasks").iterdir())


def test_no_file_is_left_or_lost(project: PageProject) -> None:
    learn(project)
    for number in (2, 3, 0):
        project.set_mask("p0.png", stripes(number))
    learn(project)
    project.remove_image("p1.png")
    state = project.state
    referred = {f for i in state.images.values()
                for f in (i.file, i.mask, *(r.file for r in i.results)) if f}  # fmt: skip
    assert state.fit is not None
    there = {str(p.relative_to(project.folder)) for part in ("images", "marks", "results", "tasks")
             for p in (project.folder / part).iterdir()}  # fmt: skip
    assert there == referred | {state.fit.file}
    # a person's own file stays, what a stop left goes
    own = project.folder / "images/holiday-2026.png"
    own.write_bytes(picture(5))
    (project.folder / "marks/.svfseg-99999999-abcd").write_bytes(b"half")
    left = project.files.put("marks", "gone", ".png", picture(6))
    project.close()
    project = PageProject(project.folder)
    assert own.is_file()
    assert not (project.folder / left).exists()
    assert not (project.folder / "marks/.svfseg-99999999-abcd").exists()


def test_files_stay_while_somebody_reads(project: PageProject) -> None:
    with project.reading() as state:
        mask = state.images["p0.png"].mask
        assert mask is not None
        project.set_mask("p0.png", stripes(3))
        project.remove_image("p1.png")
        assert project.path(mask).is_file()
        assert final_mask(project, state, state.images["p1.png"]) is not None
    assert not (project.folder / mask).exists()
    assert len(list((project.folder / "marks").iterdir())) == 1


def test_a_full_disk_changes_nothing(project: PageProject, monkeypatch: pytest.MonkeyPatch) -> None:
    before = view_project(project)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        project.set_mask("p0.png", stripes(3))
    with pytest.raises(OSError, match="No space"):
        project.add_image("new.png", picture(8), 10**6)
    assert view_project(project) == before


def test_a_damaged_or_later_database_is_named(project: PageProject) -> None:
    project.close()
    path = project.folder / "project.sqlite"
    whole = path.read_bytes()
    for damaged in (b"SQLite no more", whole[:5000], whole[:100] + b"x" * 4000 + whole[4100:]):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match="is damaged"):
            PageProject(project.folder)
    path.write_bytes(whole)
    with sqlite3.connect(path) as sql:
        sql.execute("PRAGMA user_version = 99")
    sql.close()
    with pytest.raises(InputError, match="later version of svfseg"):
        PageProject(project.folder)


def test_a_missing_file_is_named_and_hurts_no_other(project: PageProject) -> None:
    mask = project.record("p0.png").mask
    assert mask is not None
    (project.folder / mask).unlink()
    (project.folder / project.record("p2.png").file).unlink()
    with pytest.raises(InputError, match="is missing: put it back"):
        project.mask(project.record("p0.png"))
    assert ids_of(project, "p1.png") == {1, 2, 3}
    project.remove_image("p2.png")
    project.forget_marks("p0.png")
    learn(project)


def old_project(folder: Path) -> dict[str, object]:
    """A folder as the page wrote it before there was a database, with an image of each kind."""
    (folder / "found/c").mkdir(parents=True)
    for part in ("images", "masks"):
        (folder / part).mkdir()
    for name, kind in (("a.jpg", "JPEG"), ("b.png", "PNG"), ("c.png", "PNG")):
        Image.new("RGB", (4, 3), "red").save(folder / "images" / name, kind)
    images = {
        "a.jpg": {"width": 4, "height": 3, "marked": [1], "original": "a.jpg", "version": 3},
        "b.png": {"width": 4, "height": 3, "marked": [], "original": "b.bmp", "version": 2,
                  "without": True},
        "c.png": {"width": 4, "height": 3, "marked": [], "original": "c.png", "version": 5,
                  "found": {"confidence": [0.75], "present": [True], "fit": 1}},
    }  # fmt: skip
    stored = {"classes": ["cow", "hay"], "images": images, "learned": 1, "thresholds": [0.4],
              "as_learned": [0.5], "fits": 2, "ticks": 5}  # fmt: skip
    (folder / "project.json").write_text(json.dumps(stored))
    Image.new("L", (4, 3), 110).save(folder / "found/c/1.png")  # 0.43
    Image.new("L", (4, 3), 1).save(folder / "masks/a.png")
    (folder / "task.svf").write_bytes(b"what was learned")
    return stored


def test_a_project_of_before_the_database_is_brought_over_once(tmp_path: Path) -> None:
    stored = old_project(tmp_path)
    project = PageProject(tmp_path)
    view = view_project(project)
    assert [image["name"] for image in view["images"]] == ["a.jpg", "b.png", "c.png"]
    assert [image["found"] for image in view["images"]] == [
        None,
        None,
        {"class_ids": [1], "confidence": [0.75], "present": [True], "fit": 1, "old": True},
    ]
    assert [image["without"] for image in view["images"]] == [False, True, False]
    assert view["classes"] == ["cow", "hay"]
    assert view["thresholds"] == [0.4, None]
    assert view["as_learned"] == [0.5, None]
    state = project.state
    masks = [final_mask(project, state, image) for image in state.images.values()]
    assert [None if m is None else int(m.max()) for m in masks] == [1, 0, 1]
    assert state.fit is not None
    assert project.path(state.fit.file).read_bytes() == b"what was learned"
    # the copy that is kept
    kept = tmp_path / "before-migration"
    assert json.loads((kept / "project.json").read_text()) == stored
    assert (kept / "masks/a.png").is_file()
    assert (kept / "found/c/1.png").is_file()
    project.remove_image("a.jpg")
    project.close()
    project = PageProject(tmp_path)
    assert list(project.state.images) == ["b.png", "c.png"]
    project.close()


@pytest.mark.parametrize("damage", ["list", "key", "mask", "classes"])
def test_what_an_old_project_lost_is_said(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    stored = old_project(tmp_path)
    if damage == "list":
        (tmp_path / "project.json").write_text("[]")
    if damage == "key":
        del stored["images"]["a.jpg"]["width"]  # type: ignore[index]
        (tmp_path / "project.json").write_text(json.dumps(stored))
    if damage in ("list", "key"):
        with pytest.raises(InputError, match="is damaged"):
            PageProject(tmp_path)
        assert not (tmp_path / "before-migration").exists()
        return
    if damage == "mask":  # a stop between two files, as the old version could leave
        (tmp_path / "masks/a.png").unlink()
    else:  # a class that was removed while it was learned
        (tmp_path / "project.json").write_text(json.dumps({**stored, "learned": 3}))
    project = PageProject(tmp_path)
    if damage == "mask":
        assert "the marks of a.jpg are left out" in caplog.text
        assert not project.record("a.jpg").is_example
    else:
        assert "learn again" in caplog.text
        assert project.state.fit is None
        assert not project.record("c.png").results
    project.close()


def test_a_folder_of_label_studio_stays_as_it_is(tmp_path: Path) -> None:
    """Both wrote a project.json before they had databases; that of the backend has no images."""
    for content, other in (
        ('{"label_config": "<View/>", "fits": 2}', "supports"),
        ("", "labelstudio.sqlite"),
    ):
        folder = tmp_path / other
        folder.mkdir()
        (folder / "project.json").write_text(content) if content else None
        (folder / other).write_text("")
        with pytest.raises(InputError, match="is not a project"):
            PageProject(folder)
        assert len(list(folder.iterdir())) == (2 if content else 1)


@pytest.mark.posix
def test_a_migration_survives_every_kill(tmp_path: Path) -> None:
    killed = 0
    for number in range(0, 200, 3):
        folder = tmp_path / str(number)
        old_project(folder)
        status = stopped_at(number, lambda folder=folder: PageProject(folder))
        assert status in (0, KILLED)
        project = PageProject(folder)
        state = project.state
        masks = [final_mask(project, state, image) for image in state.images.values()]
        assert [None if m is None else int(m.max()) for m in masks] == [1, 0, 1]
        project.close()
        assert (folder / "before-migration/project.json").is_file()
        assert (folder / "before-migration/masks/a.png").is_file()
        assert not (folder / "project.json").exists()
        killed += status == KILLED
        if status == 0:
            break
    assert killed > 5


def test_the_page_works_below_a_path_and_by_a_link_in_a_mail(tmp_path: Path) -> None:
    """No address begins at the root, the cookie comes along from other sites, / is a page."""
    with (
        started(tmp_path / "p", "--token", "secret") as entrance,
        httpx.Client(base_url=entrance.removesuffix("/open/secret")) as client,
    ):
        assert client.get("/", headers={"Accept": "text/html"}).status_code == 200
        page = client.get("/").text
        links = re.findall(r'(?:src|href)="([^"#]+)"', page)
        assert len(links) >= 3
        assert not [link for link in links if link.startswith("/")]
        for name in ("app.js", "editor.js", "pixels.js"):
            code = client.get(f"/static/{name}").text
            assert not re.findall(r"""["'`]/(?:api|static|open)""", code)
        assert client.get("/api/state").status_code == 401
        answer = client.get("/open/secret")
        assert answer.headers["location"] == "../"
        assert "samesite=lax" in answer.headers["set-cookie"].lower()
        assert client.get("/api/state").status_code == 200


@pytest.mark.slow
@needs_chromium
def test_two_windows_and_a_slow_click(tmp_path: Path) -> None:
    """Of one image that two windows paint, the later one is asked; a click is kept for its image."""
    for number in range(2):
        (tmp_path / f"p{number}.png").write_bytes(picture(number))
    with (
        served(tmp_path / "p", tmp_path / "p0.png", tmp_path / "p1.png") as address,
        browser() as chromium,
        page_of(chromium, address) as one,
        page_of(chromium, address) as two,
    ):

        def marked(name: str) -> np.ndarray:
            data = httpx.get(f"{address}/api/images/{name}/mask").content
            return np.asarray(Image.open(io.BytesIO(data)))

        for window in (one, two):
            open_image(window, "p0.png")
        drag(one, (0.1, 0.2), (0.9, 0.2))
        wait_saved(one)
        first = marked("p0.png")
        asked: list[str] = []
        two.once("dialog", lambda dialog: (asked.append(dialog.message), dialog.dismiss()))
        drag(two, (0.1, 0.8), (0.9, 0.8))
        wait_saved(two)
        assert "in another window" in asked[0]
        assert np.array_equal(marked("p0.png"), first)  # dropped, as was answered
        two.wait_for_timeout(500)  # what is stored is loaded
        drag(two, (0.1, 0.8), (0.9, 0.8))
        expect(two.locator("#status")).not_to_contain_text("saving")
        both = marked("p0.png")
        assert (both > first).any()
        assert (both[first > 0] > 0).all()
        one.once("dialog", lambda dialog: dialog.accept())
        drag(one, (0.5, 0.1), (0.5, 0.9))
        expect(one.locator("#status")).not_to_contain_text("saving")
        assert marked("p0.png")[32, 32] == 1  # kept, as was answered
        # a click whose region takes its time, and the next image at once
        two.route("**/grow", lambda route: (time.sleep(1), route.continue_()))
        open_image(two, "p1.png")
        two.keyboard.press("c")
        two.mouse.click(*place(two, 0.5, 0.5))
        two.keyboard.press(",")
        two.wait_for_selector('#photo[alt="p0.png"]')
        assert marked("p1.png").any()
        # painted while it is on its way, both are kept
        open_image(two, "p1.png")
        two.keyboard.press("e")
        two.locator("#radius").fill("100")
        drag(two, (0.1, 0.1), (0.9, 0.9))
        two.keyboard.press("c")
        two.mouse.click(*place(two, 0.5, 0.5))
        two.keyboard.press("b")
        two.locator("#radius").fill("2")
        drag(two, (0.1, 0.05), (0.4, 0.05))
        two.wait_for_timeout(1500)
        expect(two.locator("#status")).not_to_contain_text("saving")
        assert marked("p1.png")[32, 32] == 1
        assert marked("p1.png")[3, 16] == 1
