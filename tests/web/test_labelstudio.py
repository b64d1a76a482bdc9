"""The Label Studio backend: its masks, its labeling, and the protocol over HTTP."""

import base64
import contextlib
import dataclasses
import functools
import http.server
import io
import json
import logging
import re
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image
from skimage import data

from svfseg import FewShotSegmenter
from svfseg.web.labelstudio.app import LIMITS, create_backend
from svfseg.web.labelstudio.images import ImageSource
from svfseg.web.labelstudio.results import draw_results, read_labeling
from svfseg.web.labelstudio.rle import decode_bytes, decode_mask, encode_bytes, encode_mask
from svfseg.web.labelstudio.session import LabelStudioSession
from svfseg.web.limits import Limits
from svfseg.web.server import listen
from tests.test_docs import ROOT, script

CONFIG = """<View>
  <Image name="image" value="$photo"/>
  <BrushLabels name="tag" toName="image"><Label value="cat"/><Label value="cup"/></BrushLabels>
  <PolygonLabels name="shape" toName="image"><Label value="cat"/><Label value="cup"/></PolygonLabels>
  <RectangleLabels name="box" toName="image"><Label value="cup"/></RectangleLabels>
  <KeyPointLabels name="point" toName="image"><Label value="cat"/></KeyPointLabels>
  <Choices name="quality" toName="image"><Choice value="good"/></Choices>
</View>"""
# What label-studio-converter 0.0.59 makes of them (brush.mask2rle, brush.encode_rle).
GOLDEN_MASK = [0, 0, 0, 60, 57, 27, 254, 23, 0, 183, 255, 133, 192, 0]
GOLDEN_VALUES = [0, 1, 18, 163, 57, 27, 252, 64, 224, 0, 128, 4, 0, 31, 1, 43, 0, 255, 255, 255,
                 252, 69, 191, 252, 0, 144]  # fmt: skip


# the brush


@given(arrays.arrays(np.uint8, st.integers(0, 600), elements=st.sampled_from([0, 7, 255])))
def test_bytes_come_back(values: np.ndarray) -> None:
    assert (decode_bytes(encode_bytes(values), len(values)) == values).all()


@given(arrays.arrays(bool, st.tuples(st.integers(1, 24), st.integers(1, 24))))
def test_masks_come_back(mask: np.ndarray) -> None:
    assert (decode_mask(encode_mask(mask), *mask.shape) == mask).all()


def test_the_bytes_of_label_studios_own_converter() -> None:
    mask = np.zeros((3, 5), np.uint8)
    mask[1, 1:4] = 1
    # it adds a byte where the last is full
    assert encode_mask(mask) == GOLDEN_MASK[: len(encode_mask(mask))]
    assert (decode_mask(GOLDEN_MASK, 3, 5) == mask).all()
    values = np.array([7] * 3 + [1, 2, 3] + [0] * 300 + [255] * 70000 + [9], np.uint8)
    assert (decode_bytes(GOLDEN_VALUES, len(values)) == values).all()


def test_runs_that_list_their_values_and_soft_edges() -> None:
    alpha = [0, 40, 60, 120]  # drawn half transparent, with a soft edge
    pixels = [value for a in alpha for value in (255, 0, 0, a)]
    bits = f"{16:032b}{7:05b}" + "".join(f"{size - 1:04b}" for size in (3, 4, 8, 16))
    bits += "001" + f"{15:04b}" + "".join(f"{value:08b}" for value in pixels)
    bits += "0" * (-len(bits) % 8)
    rle = [int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)]
    assert decode_bytes(rle, 16).tolist() == pixels
    assert decode_mask(rle, 2, 2).tolist() == [[False, False], [False, True]]


@pytest.mark.parametrize(
    ("rle", "message"),
    [
        (GOLDEN_MASK[:-3], "cut off after 11 bytes"),
        (GOLDEN_MASK[:4], "cut off"),
        ([0, 0, 1, *GOLDEN_MASK[3:]], "four per pixel of the image"),
        ([255] * 16, "expected 60 of 8"),
        ([0, 0, 0, 60, 57, 255, 255, 255, 255, 255], "beyond its end"),
        (["a"], "not a list of bytes"),
        ([300], "not a list of bytes"),
        (None, "not a list of bytes"),
    ],
)
def test_a_broken_brush_mask_is_refused(rle: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decode_mask(rle, 3, 5)


@settings(max_examples=200)
@given(st.lists(st.integers(0, 255), max_size=40))
def test_any_bytes_are_a_mask_or_refused(rest: list[int]) -> None:
    with contextlib.suppress(ValueError):
        assert decode_bytes([0, 0, 0, 8, *rest], 8).shape == (8,)


# the labeling


def test_what_a_configuration_offers() -> None:
    labeling = read_labeling(CONFIG)
    assert (labeling.brush, labeling.image, labeling.key) == ("tag", "image", "photo")
    assert labeling.labels == ("cat", "cup")
    assert set(labeling.controls) == {"tag", "shape", "box", "point"}
    aliased = CONFIG.replace('value="cup"', 'value="Cup of coffee" alias="cup"')
    assert read_labeling(aliased).labels == ("cat", "cup")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("<View", "not XML"),
        ("<View/>", "no BrushLabels"),
        (CONFIG.replace('name="image"', 'name="other"'), "no BrushLabels"),
        (CONFIG.replace("$photo", "photo"), r"expected \$NAME"),
    ],
)
def test_a_configuration_without_a_brush_is_refused(config: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_labeling(config)


def result(name: str, kind: str, label: str, value: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "id": "r1", "from_name": name, "to_name": "image", "type": kind, "original_width": 40,
        "original_height": 20, "image_rotation": 0, "value": {**value, kind: [label]}, **more,
    }  # fmt: skip


def brushed(mask: np.ndarray, label: str) -> dict[str, Any]:
    height, width = mask.shape
    value = {"format": "rle", "rle": encode_mask(mask)}
    return result("tag", "brushlabels", label, value, original_width=width, original_height=height)


def test_results_become_one_mask() -> None:
    """Brushes and polygons of one label are united; another label is another id."""
    image = np.zeros((20, 40, 3), np.uint8)
    image[:, 20:] = 250
    left = np.zeros((20, 40), bool)
    left[2:6, 2:6] = True
    square = {"points": [[50, 50], [75, 50], [75, 90], [50, 90]], "closed": True}
    drawn = draw_results(
        [
            brushed(left, "cat"),
            result("shape", "polygonlabels", "cat", square),
            result("shape", "polygonlabels", "cup", {"points": [[80, 0], [99, 0], [99, 30]]}),
            {"from_name": "quality", "type": "choices", "value": {"choices": ["good"]}},
        ],
        read_labeling(CONFIG),
        image,
    )
    assert drawn is not None
    assert (drawn[2:6, 2:6] == 1).all()
    assert (drawn[11:17, 21:29] == 1).all()
    assert drawn[1, 38] == 2
    assert (drawn == 0)[:, 8:18].all()


def test_boxes_and_key_points_are_grown() -> None:
    image = np.full((20, 40, 3), 30, np.uint8)
    image[5:15, 10:20] = (250, 200, 0)
    box = {"x": 22.5, "y": 20, "width": 30, "height": 60, "rotation": 0}
    labeling = read_labeling(CONFIG)
    drawn = draw_results([result("box", "rectanglelabels", "cup", box)], labeling, image)
    assert drawn is not None
    assert (drawn[7:13, 12:18] == 2).all()
    assert (drawn[:3] == 0).all()
    # the same box, turned by a right angle around its first corner
    turned = {**box, "x": 52.5, "rotation": 90}
    again = draw_results([result("box", "rectanglelabels", "cup", turned)], labeling, image)
    assert (again == drawn).all()
    point = {"x": 37.5, "y": 50, "width": 1}
    drawn = draw_results([result("point", "keypointlabels", "cat", point)], labeling, image)
    assert drawn is not None
    assert (drawn[7:13, 12:18] == 1).all()
    assert (drawn[:, 30:] == 0).all()


def test_nothing_marked_is_an_image_without_the_class() -> None:
    image, labeling = np.zeros((20, 40, 3), np.uint8), read_labeling(CONFIG)
    erased = brushed(np.zeros((20, 40), bool), "cat")
    choice = {"from_name": "quality", "type": "choices", "value": {"choices": ["good"]}}
    for results in ([], [erased], [choice]):
        assert draw_results(results, labeling, image) is None


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (result("shape", "polygonlabels", "dog", {"points": []}), "unknown label dog"),
        (result("shape", "polygonlabels", "cat", {"points": [[1, 1]]}), "1 points"),
        (result("tag", "brushlabels", "cat", {"rle": [1, 2]}), "cut off"),
        (result("tag", "brushlabels", "cat", {}), "damaged"),
        (result("box", "rectanglelabels", "cup", {"x": 1}), "damaged"),
        ("text", "damaged"),
        (result("tag", "brushlabels", "cat", {"rle": []}, original_width=41), "image of 41x20"),
        (result("tag", "brushlabels", "cat", {"rle": []}, image_rotation=90), "turned by 90"),
    ],
)
def test_a_broken_result_is_refused(broken: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        draw_results([broken], read_labeling(CONFIG), np.zeros((20, 40, 3), np.uint8))


# images


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of images as Label Studio keeps it, and one file beside it."""
    home = tmp_path_factory.mktemp("media")
    folder = home / "photos"
    (folder / "upload/1").mkdir(parents=True)
    cat = data.chelsea()
    Image.fromarray(cat).save(folder / "cat.png")
    Image.fromarray(cat[:, ::-1]).save(folder / "turned.png")
    Image.fromarray(cat[10:, 30:]).save(folder / "upload/1/cut cat.png")
    Image.fromarray(data.coffee()).save(folder / "coffee.png")
    Image.fromarray(data.rocket()).save(folder / "rocket.jpg")
    whole = (folder / "rocket.jpg").read_bytes()
    (folder / "broken.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "text.png").write_text("no image")
    Image.fromarray(cat).save(home / "secret.png")
    (folder / "link.png").symlink_to(home / "secret.png")
    return folder


def test_where_images_may_come_from(photos: Path) -> None:
    source = ImageSource(photos)
    for address in ("cat.png", str(photos / "cat.png"), "/data/local-files/?d=cat.png"):
        assert (source.read(address) == data.chelsea()).all()
    assert source.read("/data/upload/1/cut%20cat.png").shape == (290, 421, 3)
    body = base64.b64encode((photos / "coffee.png").read_bytes()).decode()
    assert (source.read(f"data:image/png;base64,{body}") == data.coffee()).all()


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("../secret.png", "lies outside"),
        ("link.png", "lies outside"),
        ("/etc/passwd", "lies outside"),
        ("/data/local-files/?d=../secret.png", "lies outside"),
        ("/data/local-files/?d=/etc/passwd", "lies outside"),
        ("/data/upload/..%2F..%2Fsecret.png", "lies outside"),
        ("file:///etc/passwd", "is not read"),
        ("s3://bucket/cat.png", "is not read"),
        ("http://169.254.169.254/latest", "is not read"),
        ("//127.0.0.1/cat.png", "is not read"),
        ("cat.png\0", "null"),
        ("text.png", "not an image"),
        ("broken.jpg", "damaged image"),
        ("gone.png", "no image at"),
        ("data:image/png;base64,AAAA", "not an image"),
        ("data:image/png;base64,*", "damaged base64"),
        ("data:text/plain,hello", "not an image in base64"),
        ("", "expected its address"),
    ],
)
def test_other_addresses_are_refused(photos: Path, address: str, message: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        ImageSource(photos).read(address)
    if message == "lies outside":  # nor is it asked of the host then
        with pytest.raises(ValueError, match=message):
            ImageSource(photos, "http://127.0.0.1:9", "token").read(address)


def test_images_of_label_studio_need_its_token() -> None:
    """A host that gives a picture to who has the token, and sends others elsewhere."""
    picture = io.BytesIO()
    Image.fromarray(data.coffee()).save(picture, "PNG")
    asked = []

    class Host(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append((self.path, self.headers["Authorization"]))
            found = self.headers["Authorization"] == "Token right"
            self.send_response(302 if "away" in self.path else 200 if found else 401)
            self.send_header("Location", "http://127.0.0.1:9/elsewhere")
            self.end_headers()
            self.wfile.write(picture.getvalue() if found else b"")

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Host)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{server.server_port}"
        source = ImageSource(None, url, "right")
        for address in ("/data/upload/1/a%20b.png", f"{url}/data/upload/1/a%20b.png"):
            assert (source.read(address) == data.coffee()).all()
        assert asked[-1] == ("/data/upload/1/a%20b.png", "Token right")
        for refused, message in (
            (ImageSource(None, url, "wrong"), "401"),
            (ImageSource(None, url, None), "is not read"),
        ):
            with pytest.raises(ValueError, match=message):
                refused.read("/data/upload/1/a.png")
        with pytest.raises(ValueError, match="302"):
            source.read("/data/away.png")
        count = len(asked)
        for address in ("http://127.0.0.1:9/a.png", f"https://127.0.0.1:{server.server_port}/a",
                        f"http://right@127.0.0.1:{server.server_port}/a", "//127.0.0.1:9/a.png",
                        "@127.0.0.1:9/a.png"):  # fmt: skip
            with pytest.raises(ValueError, match="is not"):
                source.read(address)
        assert len(asked) == count
    finally:
        server.shutdown()
        server.server_close()


# the backend over HTTP


def ask(url: str, path: str, body: Any = None) -> tuple[int, Any]:
    """Status and answer of a request."""
    content = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url + path, content, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


@functools.cache
def blank() -> FewShotSegmenter:
    """Small and loaded once: a project fits a copy of it."""
    segmenter: FewShotSegmenter = FewShotSegmenter.from_pretrained(
        size=128, reject_absent=False, device="cpu"
    )
    return segmenter


@contextlib.contextmanager
def running(folder: Path, images: Path, limits: Limits = LIMITS, **settings: Any) -> Iterator[str]:
    """The server with a project; its address."""
    session = LabelStudioSession(folder, ImageSource(images), blank(), wait=0.1, **settings)
    server = uvicorn.Server(uvicorn.Config(create_backend(session, limits), log_level="warning"))
    with listen("127.0.0.1", 0) as listening:
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


def set_up(url: str, config: str = CONFIG) -> tuple[int, Any]:
    return ask(url, "/setup", {
        "project": "1.1700000000", "schema": config, "hostname": "http://localhost:8080",
        "access_token": "not used",
    })  # fmt: skip


def predict(url: str, *names: str) -> tuple[int, Any]:
    tasks = [{"id": i, "data": {"photo": f"/data/local-files/?d={name}"}}
             for i, name in enumerate(names)]  # fmt: skip
    return ask(url, "/predict", {
        "tasks": tasks, "model_version": None, "project": "1.1700000000", "label_config": CONFIG,
        "params": {"login": None, "password": None, "context": None},
    })  # fmt: skip


def event(action: str, number: int, name: str, results: list[Any], **more: Any) -> dict[str, Any]:
    return {
        "action": action,
        "annotation": {"id": 100 + number, "result": results, "task": number,
                       "was_cancelled": False, "ground_truth": False, **more},
        "task": {"id": number, "data": {"photo": f"/data/local-files/?d={name}"}, "project": 1},
        "project": {"id": 1, "title": "Cats", "label_config": CONFIG},
    }  # fmt: skip


def stored(folder: Path) -> dict[int, Any]:
    """What a backend's database holds: results by tasks."""
    with contextlib.closing(sqlite3.connect(folder / "labelstudio.sqlite")) as sql:
        rows = sql.execute("SELECT task, content FROM supports ORDER BY task").fetchall()
    return {task: json.loads(zlib.decompress(content))["result"] for task, content in rows}


def cat_mask() -> np.ndarray:
    mask = np.zeros(data.chelsea().shape[:2], bool)
    mask[20:290, 80:330] = True
    return mask


def until(found: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 60
    while not (value := found()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert value
    return value


def version_after(url: str, before: str) -> str:
    def changed() -> str | None:
        version = set_up(url)[1]["model_version"]
        return version if version != before else None

    return str(until(changed))


def found_masks(prediction: dict[str, Any]) -> dict[str, np.ndarray]:
    return {
        r["value"]["brushlabels"][0]: decode_mask(
            r["value"]["rle"], r["original_height"], r["original_width"]
        )
        for r in prediction["result"]
    }


def test_predict_annotate_fit_predict_restart(
    photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "svfseg.labelstudio")
    folder = tmp_path / "project"
    with running(folder, photos) as url:
        status, health = ask(url, "/health")
        assert (status, health["status"]) == (200, "UP")
        assert set_up(url) == (200, {"model_version": "INITIAL"})
        status, answer = predict(url, "turned.png")
        assert (status, answer["results"]) == (200, [])
        assert "submit an annotation that marks a label" in caplog.text

        made = event("ANNOTATION_CREATED", 1, "cat.png", [brushed(cat_mask(), "cat")])
        assert ask(url, "/webhook", made)[0] == 201
        assert version_after(url, "INITIAL") == "svfseg-1"
        status, answer = predict(url, "turned.png", "broken.jpg")
        assert status == 200
        first, second = answer["results"]
        (found,) = first["result"]
        assert (found["from_name"], found["to_name"]) == ("tag", "image")
        assert (found["type"], found["value"]["format"]) == ("brushlabels", "rle")
        assert (found["original_width"], found["original_height"]) == (451, 300)
        assert 0 < found["score"] <= 1
        assert (first["score"], first["model_version"]) == (found["score"], "svfseg-1")
        mask, truth = found_masks(first)["cat"], cat_mask()[:, ::-1]
        assert (mask & truth).sum() / (mask | truth).sum() > 0.5
        # one image that cannot be read stops no other
        assert second == {"result": [], "score": 0.0, "model_version": "svfseg-1"}
        assert "damaged image" in caplog.text

        # a second class, and an image without any; two events, one fit
        rows, columns = np.mgrid[:400, :600]
        cup = ((rows - 190) / 120) ** 2 + ((columns - 300) / 150) ** 2 < 1
        ask(url, "/webhook", event("ANNOTATION_CREATED", 2, "coffee.png", [brushed(cup, "cup")]))
        ask(url, "/webhook", event("ANNOTATION_CREATED", 3, "rocket.jpg", []))
        assert version_after(url, "svfseg-1") == "svfseg-2"
        first = predict(url, "coffee.png")[1]["results"][0]
        assert "cup" in found_masks(first)
        assert "fitted on 3 image(s): cat, cup" in caplog.text

    with running(folder, photos) as url:  # nothing is set up: it remembers
        again = predict(url, "coffee.png")[1]["results"][0]
        assert set_up(url) == (200, {"model_version": "svfseg-2"})
    for one in (first, again):
        for each in one["result"]:
            each.pop("id")
    assert again == first
    held = {p.name for p in folder.rglob("*") if p.is_file()}
    assert held - {".lock"} == {"task.svf", "labelstudio.sqlite"}


def test_what_is_skipped_updated_or_deleted(photos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "project"
    cat = [brushed(cat_mask(), "cat")]
    with running(folder, photos, newest=1) as url:
        set_up(url)
        ask(url, "/webhook", event("ANNOTATION_CREATED", 1, "rocket.jpg", [], was_cancelled=True))
        ask(url, "/webhook", event("ANNOTATION_CREATED", 2, "cat.png", cat))
        version_after(url, "INITIAL")
        assert list(stored(folder)) == [2]
        smaller = cat_mask() & (np.arange(451) < 250)
        ask(url, "/webhook",
            event("ANNOTATION_UPDATED", 2, "cat.png", [brushed(smaller, "cat")]))  # fmt: skip
        ask(url, "/webhook", {"action": "START_TRAINING", "project": {"id": 1}})
        version_after(url, "svfseg-1")
        results = stored(folder)[2]
        assert (decode_mask(results[0]["value"]["rle"], 300, 451) == smaller).all()
        # of two supports the newest alone is fitted on; this event holds lists
        made = event("ANNOTATIONS_CREATED", 3, "turned.png", [brushed(cat_mask()[:, ::-1], "cat")])
        made |= {"task": [made["task"]], "annotation": [made["annotation"]]}
        assert ask(url, "/webhook", made)[0] == 201
        version_after(url, "svfseg-2")
        loaded = FewShotSegmenter.load(folder / "task.svf", device="cpu")
        assert len(loaded.features_[1]) == 1
        gone = {"action": "ANNOTATIONS_DELETED", "annotations": [{"id": 102}, {"id": 103}]}
        assert ask(url, "/webhook", {**gone, "project": {"id": 1}})[0] == 201
        assert version_after(url, "svfseg-3") == "INITIAL"
        assert predict(url, "turned.png")[1]["results"] == []
        assert not (folder / "task.svf").exists()


def test_train_takes_exported_tasks_at_once(photos: Path, tmp_path: Path) -> None:
    """The older request, which the package still serves."""
    task = {"id": 1, "data": {"photo": "cat.png"},
            "annotations": [{"id": 5, "result": [brushed(cat_mask(), "cat")]}]}  # fmt: skip
    with running(tmp_path / "project", photos) as url:
        set_up(url)
        request = {"annotations": [task], "project": "../../1.17", "label_config": CONFIG,
                   "params": {"login": None, "password": None}}  # fmt: skip
        assert ask(url, "/train", request) == (201, {})
        assert set_up(url)[1]["model_version"] == "svfseg-1"
        assert found_masks(predict(url, "turned.png")[1]["results"][0])["cat"].any()
        assert ask(url, "/train", {**request, "annotations": []})[0] == 400
    assert {p.name for p in tmp_path.iterdir()} == {"project"}


def test_bad_requests_are_answered_and_the_server_lives(photos: Path, tmp_path: Path) -> None:
    cat = [brushed(cat_mask(), "cat")]
    with running(tmp_path / "project", photos) as url:
        early = event("ANNOTATION_CREATED", 1, "cat.png", cat)
        early["project"] = {"id": 1}
        assert ask(url, "/webhook", early) == (
            400, {"detail": "no labeling configuration yet: connect the model in Label Studio"}
        )  # fmt: skip
        status, answer = set_up(url, "<View/>")
        assert status == 500
        assert "add <BrushLabels" in answer["detail"]
        set_up(url)
        dog = result("tag", "brushlabels", "dog", {"rle": []})
        for bad, message in (
            (event("ANNOTATION_CREATED", 1, "cat.png", [dog]), "unknown label dog"),
            (event("ANNOTATION_CREATED", 1, "coffee.png", cat), "drawn on an image of 451x300"),
            (event("ANNOTATION_CREATED", 1, "../secret.png", cat), "lies outside"),
            (event("ANNOTATION_CREATED", 1, "broken.jpg", cat), "damaged image"),
            (event("ANNOTATION_CREATED", 1, "gone.png", cat), "no image at"),
            ({"action": "ANNOTATION_CREATED"}, "not as Label Studio's webhook sends it"),
            ({"action": "ANNOTATIONS_CREATED", "task": ["x"], "annotation": 3}, "sends it"),
            ({"action": "ANNOTATIONS_DELETED", "annotations": [5]}, "let it send the payload"),
            (event("ANNOTATION_CREATED", 1, "cat.png", cat) | {"task": {"id": 1, "data": {}}},
             "the task has no image"),
        ):  # fmt: skip
            status, answer = ask(url, "/webhook", bad)
            assert status == 400, message
            assert message in answer["detail"]
        assert ask(url, "/webhook", {"action": "TASKS_CREATED", "project": {"id": 1}})[0] == 201
        assert stored(tmp_path / "project") == {}

        ask(url, "/webhook", event("ANNOTATION_CREATED", 1, "cat.png", cat))
        version_after(url, "INITIAL")
        foreign = event("ANNOTATION_CREATED", 2, "cat.png", cat) | {"project": {"id": 2}}
        status, answer = ask(url, "/webhook", foreign)
        assert (status, "belongs to project 1" in answer["detail"]) == (400, True)
        for name, message in (("broken.jpg", "damaged image"), ("../secret.png", "lies outside")):
            status, answer = predict(url, name)
            assert status == 500
            assert message in answer["detail"]
        assert found_masks(predict(url, "cat.png")[1]["results"][0])["cat"].any()
        assert ask(url, "/health")[1]["status"] == "UP"


def test_a_damaged_project_is_named(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "project.json").write_text("{")
    with pytest.raises(ValueError, match="project.json is damaged"):
        LabelStudioSession(tmp_path, ImageSource(photos), blank())
    (tmp_path / "project.json").unlink()
    (tmp_path / "task.svf").write_text("no task")
    with pytest.raises(ValueError, match="task.svf is not a task"):
        LabelStudioSession(tmp_path, ImageSource(photos), blank())


def test_requests_of_label_studio_with_the_protocol_of_version_2(
    photos: Path, tmp_path: Path
) -> None:
    """They bring the labeling configuration along: nothing needs a set-up before."""
    request = {"tasks": [{"id": 1, "data": {"photo": "turned.png"}}], "project": "1.17",
               "label_config": CONFIG, "params": {"context": {}}}  # fmt: skip
    with running(tmp_path / "project", photos) as url:
        assert ask(url, "/predict", request) == (200, {"results": [], "model_version": "INITIAL"})
        made = event("ANNOTATION_CREATED", 1, "cat.png", [brushed(cat_mask(), "cat")])
        assert ask(url, "/webhook", made)[0] == 201
        version_after(url, "INITIAL")
        assert set_up(url) == (200, {"model_version": "svfseg-1"})
        status, answer = ask(url, "/predict", request)
        assert (status, answer["model_version"]) == (200, "svfseg-1")
        (prediction,) = answer["results"]
        assert prediction["model_version"] == "svfseg-1"
        assert found_masks(prediction)["cat"].any()


def test_the_answers_of_label_studio_ml(photos: Path, tmp_path: Path) -> None:
    """What the package label-studio-ml 1.0.9 answered to the same requests."""
    up = {"status": "UP", "model_dir": None, "v2": "1"}
    with running(tmp_path / "project", photos) as url:
        assert ask(url, "/") == ask(url, "/health") == (200, up)
        assert ask(url, "/metrics") == (200, {})
        training = {"is_training": False, "backend": "none", "model_version": "INITIAL"}
        assert ask(url, "/is_training?project=1") == (200, training)
        assert ask(url, "/predict", {}) == (200, {"results": [], "model_version": "INITIAL"})
        older = {"versions": [], "model_dir": None, "v2": "1"}
        assert ask(url, "/versions", {"project": "1.17"}) == (200, older)
        assert ask(url, "/setup", {"project": "1.17"}) == (200, {"model_version": "INITIAL"})
        assert ask(url, "/train", {"annotations": []}) == (400, "No annotations found.")
        assert ask(url, "/train", {"annotations": [{"id": 1}]}) == (201, {})
        status, answer = ask(url, "/webhook", {"action": "TASKS_CREATED", "tasks": [{"id": 1}]})
        assert (status, list(answer)) == (201, ["job_id"])
        assert answer["job_id"].isdecimal()
        for body in ({}, {"action": 3}, ["action"]):
            assert ask(url, "/webhook", body)[0] == 400
        for path in ("/predict", "/setup", "/train"):
            assert ask(url, path, ["not an object"])[0] == 400
        for path in ("/job_status", "/docs", "/openapi.json"):
            assert ask(url, path)[0] == 404


def test_uploads_are_measured(photos: Path, tmp_path: Path) -> None:
    assert LIMITS.max_bytes == 200_000_000
    small = dataclasses.replace(LIMITS, max_bytes=10_000)
    with running(tmp_path / "project", photos, small) as url:
        status, answer = ask(url, "/webhook", {"action": "x" * 20_000})
        assert status == 413
        assert "at most 10,000 bytes" in answer["error"]
        assert set_up(url)[0] == 200


def test_a_bug_is_not_an_answer_about_the_input(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, caplog: Any
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise KeyError("secret")

    cat = event("ANNOTATION_CREATED", 1, "cat.png", [brushed(cat_mask(), "cat")])
    with running(tmp_path / "project", photos) as url:
        with monkeypatch.context() as patch:
            patch.setattr("svfseg.web.labelstudio.session.draw_results", broken)
            status, answer = ask(url, "/webhook", cat)
            assert (status, "a bug of the server" in answer["detail"]) == (500, True)
        with monkeypatch.context() as patch:
            patch.setattr(FewShotSegmenter, "fit", broken)
            assert ask(url, "/webhook", cat)[0] == 201
            until(lambda: "KeyError: 'secret'" in caplog.text)
        ask(url, "/webhook", {"action": "START_TRAINING", "project": {"id": 1}})
        version_after(url, "INITIAL")
        with monkeypatch.context() as patch:
            patch.setattr(FewShotSegmenter, "predict", broken)
            status, answer = predict(url, "cat.png")
            assert (status, "a bug of the server" in answer["detail"]) == (500, True)
    assert capsys.readouterr().err.count("Traceback") == 2


def test_a_stop_ends_the_command_with_0(photos: Path, tmp_path: Path) -> None:
    words = ["--project", str(tmp_path), "--images", str(photos), "--port", "0", "--device", "cpu"]
    process = subprocess.Popen(
        [sys.executable, "-m", "svfseg", "label-studio", *words], text=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stderr is not None
        assert process.stderr.readline() == "loading\n"
        address = re.search(r"http://\S+", process.stderr.readline())
        assert address is not None
        assert ask(address[0], "/health")[1]["status"] == "UP"
        process.terminate()
        assert process.wait(30) == 0
        assert "Traceback" not in process.stderr.read()
    finally:
        process.kill()
        process.communicate()


def test_the_documents_table_is_made_from_the_results() -> None:
    text = (ROOT / "docs" / "label-studio.md").read_text()
    label_studio = script("label_studio")
    assert label_studio.table() in text
    for found in json.loads((ROOT / "results" / "label_studio.json").read_text())["classes"]:
        shares = [row["iou"] for row in found["after"]]
        assert shares == sorted(shares)
    assert read_labeling(blocks("xml", text)[0]).labels == ("cow", "sheep")


def blocks(language: str, text: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)
