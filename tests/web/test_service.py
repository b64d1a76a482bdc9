"""The service as programs use it: real requests to a real server, and everything it refuses."""

import base64
import contextlib
import io
import json
import os
import re
import runpy
import socket
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from svfseg import FewShotSegmenter
from svfseg.cli.web import run_serve
from svfseg.errors import InputError
from svfseg.web.limits import COOKIE, Limits
from svfseg.web.server import listen
from svfseg.web.uploads import decode_image, decode_mask
from tests.web.serving import (
    CAT,
    MARKED,
    MASK,
    OTHER,
    PHOTO,
    Held,
    Running,
    encoded,
    fit,
    header,
    ids,
    line,
    predict,
    running,
)

ROOT = Path(__file__).resolve().parents[2]


STOPPED = """
import sys
from svfseg import FewShotSegmenter
from svfseg.cli.web import run_serve
from svfseg.errors import InputError

real = FewShotSegmenter.predict
def predict(self, images):
    print("begun", flush=True)
    sys.stdin.readline()
    return real(self, images)
FewShotSegmenter.predict = predict
run_serve(["--tasks", sys.argv[1], "--port", "0", "--device", "cpu"])
"""


@pytest.fixture(scope="module")
def apart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """The command in a process of its own, which starts while other tests run; and its tasks."""
    folder = tmp_path_factory.mktemp("apart")
    process = subprocess.Popen(
        [sys.executable, "-c", STOPPED, str(folder)], text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    yield process, folder
    process.kill()
    process.communicate()


@pytest.fixture(scope="module")
def served(apart: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """With one task, cat."""
    limits = Limits(max_bytes=3_000_000)
    with running(tmp_path_factory.mktemp("tasks"), limits=limits, max_pixels=100_000) as server:
        assert fit(server.client).status_code == 200
        yield server


def test_a_task_from_its_images_to_its_end(served: Running) -> None:
    client = served.client
    answer = fit(
        client,
        "pair",
        (PHOTO, encoded(CAT, "PNG")),
        (MASK, MASK),
        (OTHER,),
        adapt="norm",
        steps=1,
        lr=0.01,
    )
    about = answer.json()
    assert answer.status_code == 200
    assert about["classes"] == ["cat"]
    assert (about["adapt"], about["steps"], about["size"]) == ("norm", 1, 96)
    assert about["supports"] == {"cat": 2}
    assert client.get("/tasks/pair").json() == about
    assert about in client.get("/tasks").json()["tasks"]
    found = predict(client, "pair").json()
    assert (found["width"], found["height"]) == (226, 150)
    mask = ids(base64.b64decode(found["mask"]))
    assert set(np.unique(mask)) == {0, 1}
    both = ((mask == 1) & (MARKED == 1)).sum() / ((mask == 1) | (MARKED == 1)).sum()
    assert both > 0.5
    assert found["share"]["cat"] == pytest.approx((mask == 1).mean(), abs=1e-4)
    file = client.get("/tasks/pair/file")
    assert 'filename="pair.svf"' in file.headers["content-disposition"]
    sent = client.put("/tasks/copy/file", content=file.content)
    assert sent.json() == {**about, "name": "copy"}
    assert predict(client, "copy").json() == found
    for name in ("pair", "copy"):
        assert client.delete(f"/tasks/{name}").status_code == 204
        assert "there is no task" in line(client.get(f"/tasks/{name}"), 404)
        assert "there is no task" in line(predict(client, name), 404)
        assert "there is no task" in line(client.delete(f"/tasks/{name}"), 404)


def test_every_format_says_the_same(served: Running) -> None:
    def asked(kind: str) -> httpx.Response:
        answer = predict(
            served.client, query=f"?format={kind}", filename="..\\../ä%00/nice cat.jpg"
        )
        assert answer.status_code == 200
        return answer

    mask = ids(base64.b64decode(asked("json").json()["mask"]))
    png = asked("png")
    assert png.headers["content-type"] == "image/png"
    assert (ids(png.content) == mask).all()
    shapes = asked("geojson").json()
    assert shapes["type"] == "FeatureCollection"
    assert {each["properties"]["class"] for each in shapes["features"]} == {"cat"}
    coco = asked("coco").json()
    assert coco["images"][0] == {"id": 1, "file_name": "nice cat.jpg", "height": 150, "width": 226}
    assert sum(each["area"] for each in coco["annotations"]) == pytest.approx(
        (mask > 0).sum(), abs=64
    )
    labelme = asked("labelme").json()
    assert (labelme["imagePath"], labelme["imageWidth"]) == ("nice cat.jpg", 226)
    assert len(labelme["shapes"]) == len(shapes["features"])


def test_two_classes_keep_their_ids(served: Running) -> None:
    two = MARKED.copy()
    two[:, 200:] = 2
    answer = fit(
        served.client, "two", masks=(encoded(Image.fromarray(two)),), classes=["cat", "wall"]
    )
    assert answer.json()["classes"] == ["cat", "wall"]
    assert set(np.unique(ids(predict(served.client, "two", query="?format=png").content))) <= {
        0,
        1,
        2,
    }
    served.client.delete("/tasks/two")


def test_the_threshold_of_one_request_changes_no_other(served: Running) -> None:
    client = served.client
    before = predict(client).json()
    low, high = (predict(client, query=f"?threshold={t}").json() for t in (0.05, 0.95))
    assert low["threshold"] == {"cat": 0.05}
    assert low["share"]["cat"] > high["share"]["cat"]
    assert predict(client).json() == before


def test_many_at_once_get_the_same(served: Running) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: predict(served.client), range(8)))
    assert [a.status_code for a in answers] == [200] * 8
    assert len({a.text for a in answers}) == 1


def test_a_file_that_changed_is_read_again(tmp_path: Path) -> None:
    with running(tmp_path, keep=1) as server:
        client, tasks = server.client, server.app.state.tasks
        chosen = fit(client, "a").json()["threshold"]["cat"]
        fit(client, "b", threshold=0.7)
        assert chosen != 0.7
        assert predict(client, "a").json()["threshold"] == {"cat": chosen}
        assert predict(client, "b").json()["threshold"] == {"cat": 0.7}
        assert len(tasks) == 1
        os.replace(tmp_path / "a.svf", tmp_path / "b.svf")
        assert predict(client, "b").json()["threshold"] == {"cat": chosen}
        (tmp_path / "b.svf").write_bytes(b"cut off")
        (tmp_path / "not a name.svf").write_bytes(b"")
        assert "b.svf is not a task" in line(predict(client, "b"), 409)
        assert str(tmp_path) not in client.get("/tasks/b").text
        assert client.get("/tasks").json() == {"tasks": [], "damaged": ["b"]}
        client.delete("/tasks/b")
        assert len(tasks) == 0


def test_files_that_cannot_be_used_are_refused_and_the_old_stays(served: Running) -> None:
    client = served.client
    whole = client.get("/tasks/cat/file").content

    def changed(name: str, content: bytes) -> bytes:
        made = io.BytesIO()
        with (
            zipfile.ZipFile(io.BytesIO(whole)) as old,
            zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as new,
        ):
            for each in old.namelist():
                new.writestr(each, content if each == name else old.read(each))
        return made.getvalue()

    about = json.loads(zipfile.ZipFile(io.BytesIO(whole)).read("task.json"))
    huge = {**about, "size": 100_000}
    nameless = {n: value for n, value in about.items() if n != "svfseg"}
    rules = [{**about["rules"][0], "threshold": float("nan")}]
    tiled = {**about, "parameters": {**about["parameters"], "tile": True, "overlap": 0.999}}
    for sent, message in (
        (b"", "not a zip file"),
        (whole[:-200], "not a zip file"),
        (whole[:500] + b"\xff" * 40 + whole[540:], "not a task that can be used"),
        (changed("task.json", b"[]"), "not a task that can be used"),
        (changed("task.json", b"{}"), "format"),
        (changed("task.json", json.dumps({**about, "fingerprint": "0"}).encode()), "other weights"),
        (changed("task.json", json.dumps(huge).encode()), "has the size 100000"),
        (changed("task.json", json.dumps(tiled).encode()), "its overlap is not between"),
        (changed("task.json", json.dumps(nameless).encode()), "svfseg"),
        (changed("task.json", json.dumps({**about, "rules": rules}).encode()), "has the rule"),
        (changed("views.safetensors", b"\0" * 13_000_000), "unpacks to 13,"),
    ):
        assert message in line(client.put("/tasks/cat/file", content=sent), 422)
        assert client.get("/tasks/cat/file").content == whole
    # the model that a file names is not followed: neither a path nor a download
    elsewhere = json.dumps({**about, "model": "some/repository"}).encode()
    assert client.put("/tasks/cat/file", content=changed("task.json", elsewhere)).status_code == 200


def test_bad_input_gets_one_line(served: Running) -> None:
    client = served.client
    small = encoded(Image.new("L", (5, 5), 1))
    deep = encoded(Image.new("I;16", (226, 150)))
    bomb, wide = header(60_000, 60_000), header(1_000, 900)
    for answer, status, message in (
        (predict(client, "no"), 404, "there is no task no"),
        (predict(client, "a.b"), 422, "name is 'a.b'"),
        (predict(client, "x" * 65), 422, "name is"),
        (predict(client, image=b"text"), 422, "not an image that can be read"),
        (predict(client, image=b""), 422, "is empty: expected an image file"),
        (predict(client, image=PHOTO[:2000]), 422, "the image is a damaged image"),
        (predict(client, image=b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"), 422, "not an image"),
        (predict(client, image=deep), 422, "16 bits per channel"),
        (predict(client, image=bomb), 422, "too large"),
        (predict(client, image=wide), 422, "1000x900 are 0.9 million pixels, expected at most 100,000"),
        (predict(client, query="?format=gif"), 422, "format is 'gif'"),
        (predict(client, query="?threshold=2"), 422, "threshold is '2'"),
        (predict(client, query="?threshold=nan"), 422, "threshold is 'nan'"),
        (client.post("/tasks/cat/predict", data={"image": "text"}), 422, "expected a file"),
        (client.post("/tasks/cat/predict"), 422, "image: field required"),
        (client.post("/tasks/cat/predict", json={"image": 1}), 422, "image: field required"),
        (client.post("/tasks/cat/predict", content=b"x",
                     headers={"content-type": "multipart/form-data"}), 400, "cannot be read"),
        (client.post("/tasks/cat/predict", content=b"--a\r\nbroken",
                     headers={"content-type": "multipart/form-data; boundary=a"}), 422, "image: field required"),
        (fit(client, "no", masks=()), 422, "masks: field required"),
        (fit(client, "no", images=(PHOTO, PHOTO)), 422, "2 images and 1 masks"),
        (fit(client, "no", masks=(small,)), 422, "both must be one size"),
        (fit(client, "no", masks=(PHOTO,)), 422, "mask 1 is not a mask of class ids: it has colours"),
        (fit(client, "no", masks=(encoded(Image.new("L", (226, 150))),)), 422, "is empty"),
        (fit(client, "no", classes=["a", "b"]), 422, "no support shows class 2"),
        (fit(client, "no", classes=["a", "a"]), 422, "different names"),
        (fit(client, "no", classes=[" "]), 422, "classes.0"),
        (fit(client, "no", size=3), 422, "size is '3'"),
        (fit(client, "no", size="inf"), 422, "size is 'inf'"),
        (fit(client, "no", size=10**9), 422, "size is"),
        (fit(client, "no", adapt="all", tile="perhaps"), 422, "(and 1 more)"),
        (fit(client, "no", images=(wide,)), 422, "image 1 is too large"),
        (fit(client, "no", negatives=(PHOTO,) * 30), 422, "million pixels in all"),
        (client.get("/nothing"), 404, "GET /nothing is not a route"),
        (client.post("/tasks"), 405, "POST /tasks is not a route"),
    ):  # fmt: skip
        assert message in line(answer, status)
    assert [each["name"] for each in client.get("/tasks").json()["tasks"]] == ["cat"]


def test_images_as_cameras_and_programs_write_them() -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    assert decode_image(encoded(CAT, "JPEG", exif=turned), 10**6).shape == (226, 150, 3)
    for mode in ("L", "LA", "RGBA", "CMYK", "P", "1"):
        kind = "JPEG" if mode == "CMYK" else "PNG"
        assert decode_image(encoded(CAT.convert(mode), kind), 10**6).shape == (150, 226, 3)
    black = Image.fromarray(MARKED * 255).convert("1")
    assert set(np.unique(decode_mask(encoded(black), 10**6))) == {0, 1}
    grey = Image.fromarray(MARKED * 2)
    for mode in ("L", "RGB", "RGBA", "I;16"):  # as painting programs and browsers save it
        assert (decode_mask(encoded(grey.convert(mode)), 10**6) == MARKED * 2).all()


def test_uploads_are_measured(served: Running) -> None:
    """By what they say of themselves, and by what comes."""
    client, much = served.client, b"\0" * 4_000_000
    said = client.put("/tasks/cat/file", content=much)
    assert "4,000,000 bytes, and at most 3,000,000" in line(said, 413)
    for path, headers in (
        ("/tasks/cat/file", {}),
        ("/tasks/cat/predict", {"content-type": "multipart/form-data; boundary=a"}),
    ):
        start = b'--a\r\ncontent-disposition: form-data; name="image"; filename="a"\r\n\r\n'
        parts = iter([start, much[:2_000_000], much[2_000_000:]])
        answer = client.request(
            "PUT" if not headers else "POST", path, content=parts, headers=headers
        )
        assert "content-length" not in answer.request.headers
        assert "at most 3,000,000" in line(answer, 413)
    assert client.get("/tasks/cat").status_code == 200


def test_the_token_is_asked_for(tmp_path: Path) -> None:
    with running(tmp_path, limits=Limits(token="gehéim")) as server:
        client = server.client
        assert client.get("/health").status_code == 200
        for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "Basic gehéim"}):
            for path in ("/tasks", "/metrics", "/docs", "/openapi.json", "/nothing"):
                answer = client.get(path, headers={k: v.encode() for k, v in headers.items()})
                assert "Authorization: Bearer" in line(answer, 401)
                assert answer.headers["www-authenticate"] == "Bearer"
        right = {"authorization": "Bearer gehéim".encode()}
        assert client.get("/tasks", headers=right).json() == {"tasks": [], "damaged": []}
        assert 'Bearer $SVFSEG_TOKEN"' in client.get("/docs", headers=right).text.replace(
            "&#34;", '"'
        )
    with running(tmp_path, limits=Limits(token="plain")) as server:
        cookie = {"cookie": f"{COOKIE}=plain"}
        own, other = server.address, "http://elsewhere.example"
        assert server.client.get("/tasks", headers=cookie).status_code == 200
        assert server.client.get("/tasks", headers={**cookie, "origin": own}).status_code == 200
        for origin in (other, "null", "http://[", ""):
            answer = server.client.post("/tasks/a/fit", headers={**cookie, "origin": origin})
            assert "only this service's own pages" in line(answer, 403)
        bearer = {"authorization": "Bearer plain", "origin": other}  # no browser adds that itself
        assert server.client.get("/tasks", headers=bearer).status_code == 200


def test_other_names_of_this_machine_are_not_answered(tmp_path: Path) -> None:
    with running(tmp_path, limits=Limits(hosts=frozenset({"proxy.example"}))) as server:
        for host, status in (
            ("localhost", 200), ("127.0.0.1:80", 200), ("[::1]:80", 200), ("proxy.example", 200),
            ("evil.example", 421), ("127.0.0.1.evil.example", 421), ("localhost@evil.example", 421),
            ("", 421), ("[", 421),
        ):  # fmt: skip
            answer = server.client.get("/tasks", headers={"host": host})
            assert answer.status_code == status, host
        origin = {"origin": "https://proxy.example"}
        assert server.client.get("/tasks", headers=origin).status_code == 200
    with running(tmp_path, limits=Limits(local=False)) as server:
        assert server.client.get("/health", headers={"host": "10.0.0.7"}).status_code == 200


def test_a_full_house_says_so_and_health_answers_during_a_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held(monkeypatch, "fit")
    with running(tmp_path, limits=Limits(at_once=2)) as server, ThreadPoolExecutor(2) as pool:
        fits = [pool.submit(fit, server.client, "a")]
        assert held.begun.wait(60)
        assert server.client.get("/health").json()["status"] == "ok"
        assert server.client.get("/tasks").json() == {"tasks": [], "damaged": []}
        fits.append(pool.submit(fit, server.client, "b"))  # waits for its turn
        while "svfseg_busy 2.0" not in server.client.get("/metrics").text:
            pass
        answer = predict(server.client)
        assert "2 requests are waiting or running" in line(answer, 503)
        assert int(answer.headers["retry-after"]) > 0
        assert server.client.get("/health").status_code == 200
        held.go.set()
        assert [each.result().status_code for each in fits] == [200, 200]
        assert predict(server.client, "a").status_code == 200


def test_with_two_workers_predictions_do_not_wait_for_a_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(tmp_path, workers=2) as server, ThreadPoolExecutor(1) as pool:
        chosen = fit(server.client, "a").json()["threshold"]
        held = Held(monkeypatch, "fit")
        fitting = pool.submit(fit, server.client, "a", threshold=0.4)
        assert held.begun.wait(60)
        assert predict(server.client, "a").json()["threshold"] == chosen
        held.go.set()
        assert fitting.result().json()["threshold"] == {"cat": 0.4}


def test_what_takes_too_long_is_answered_and_finishes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held(monkeypatch, "fit")
    with running(tmp_path, limits=Limits(seconds=1.5)) as server:
        assert "more than 1.5 s" in line(fit(server.client, "begun"), 504)
        assert "more than 1.5 s" in line(fit(server.client, "waited"), 504)
        held.go.set()
        server.jobs()
        assert [path.name for path in tmp_path.iterdir()] == ["begun.svf"]


def test_a_bug_is_not_the_clients_mistake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A ValueError of the program is answered with 500, and its traceback is in the log alone."""
    raised: list[Exception] = [ValueError("secret")]

    def broken(*_: object, **__: object) -> None:
        raise raised[-1]

    with running(tmp_path) as server:
        client = server.client
        assert fit(client, "good").status_code == 200
        for verb, request, status in (
            ("fit", fit, 422), ("predict", predict, 422), ("load", predict, 409),
        ):  # fmt: skip
            with monkeypatch.context() as patch:
                patch.setattr(FewShotSegmenter, verb, broken)
                server.app.state.tasks._loaded.clear()
                assert "a bug of the server" in line(request(client, "good"), 500)
                raised.append(InputError("size is 3"))
                assert "size is 3" in line(request(client, "good"), status)
                raised.pop()
        assert predict(client, "good").status_code == 200
    log = capsys.readouterr().err  # all of it is written once the server has stopped
    assert log.count("Traceback") == log.count("\nValueError: secret") == 3
    assert "size is 3" not in log


def test_a_bug_that_a_forged_file_meets_is_in_the_log(
    served: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    data = served.client.get("/tasks/cat/file").content

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(FewShotSegmenter, "predict", broken)
    answer = served.client.put("/tasks/cat/file", content=data)
    assert "(shapes differ)" in line(answer, 422)
    assert caplog.records[-1].exc_info is not None


def test_metrics_are_what_prometheus_reads(tmp_path: Path) -> None:
    with running(tmp_path, limits=Limits(max_bytes=200_000)) as server:
        client = server.client
        fit(client, "a")
        predict(client, "a")
        predict(client, "b")
        client.put("/tasks/a/file", content=b"\0" * 300_000)
        client.get("/nothing")
        families = {f.name: f for f in text_string_to_metric_families(client.get("/metrics").text)}
    counted = {
        (s.labels["method"], s.labels["route"], s.labels["status"]): s.value
        for s in families["svfseg_requests"].samples
        if s.name == "svfseg_requests_total"
    }
    assert counted == {
        ("POST", "/tasks/{name}/fit", "200"): 1,
        ("POST", "/tasks/{name}/predict", "200"): 1,
        ("POST", "/tasks/{name}/predict", "404"): 1,
        ("PUT", "none", "413"): 1,
        ("GET", "none", "404"): 1,
    }
    assert families["svfseg_request_seconds"].type == "histogram"
    values = {
        n: families[n].samples[0].value
        for n in ("svfseg_images", "svfseg_tasks_loaded", "svfseg_busy")
    }
    assert values == {"svfseg_images": 1, "svfseg_tasks_loaded": 1, "svfseg_busy": 0}


def test_the_description_is_whole_and_its_page_needs_no_other_host(served: Running) -> None:
    schema = served.client.get("/openapi.json").json()
    assert schema["openapi"].startswith("3.1")
    text, names = json.dumps(schema), []
    for reference in set(re.findall(r'"\$ref": "#/([^"]+)"', text)):
        found = schema
        for part in reference.split("/"):
            found = found[part]
    for path, methods in schema["paths"].items():
        for route in methods.values():
            names.append(route["operationId"])
            declared = {p["name"] for p in route.get("parameters", ()) if p["in"] == "path"}
            assert declared == set(re.findall(r"{(\w+)}", path))
            assert all(answer["description"] for answer in route["responses"].values())
            problems = [
                route["responses"][s]["content"] for s in route["responses"] if s[0] in "45"
            ]
            assert all("Problem" in str(content) for content in problems)
    assert len(set(names)) == len(names) == 9
    answer = served.client.get("/docs")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert set(re.findall(r"https?://[^/\s\"<]+", answer.text)) == {served.address}
    assert not re.search(r"<script|@import|url\(|src=|<link", answer.text)
    for path, methods in schema["paths"].items():
        assert all(f"<b>{m.upper()}</b> <code>{path}</code>" in answer.text for m in methods)
    assert answer.text.count("<pre>curl ") == 9
    for path in ("/redoc", "/docs/oauth2-redirect"):
        assert served.client.get(path).status_code == 404


def test_the_document_has_every_route_and_the_measured_table(served: Running) -> None:
    text = (ROOT / "docs" / "service.md").read_text()
    for path in served.client.get("/openapi.json").json()["paths"]:
        assert f"localhost:8000{path.replace('{name}', 'crack')}" in text
    script = runpy.run_path(str(ROOT / "results" / "service.py"))
    assert script["table"]() in text


def test_a_stop_lets_the_running_finish(
    served: Running, apart: tuple[subprocess.Popen[str], Path]
) -> None:
    process, folder = apart
    assert process.stdin is not None
    assert process.stdout is not None
    (folder / "cat.svf").write_bytes(served.client.get("/tasks/cat/file").content)
    address = process.stdout.readline().split(" on ")[1].split()[0]
    with httpx.Client(base_url=address, timeout=60) as client, ThreadPoolExecutor(1) as pool:
        answer = pool.submit(predict, client)
        assert process.stdout.readline() == "begun\n"
        process.terminate()
        with contextlib.suppress(httpx.TransportError):  # until nobody new is let in
            while True:
                httpx.get(f"{address}/health", timeout=5)
        process.stdin.write("\n")
        process.stdin.flush()
        assert answer.result().json()["classes"] == ["cat"]
    assert process.wait(30) == 0
    assert "Traceback" not in process.communicate()[1]
    assert [path.name for path in folder.iterdir()] == ["cat.svf"]


def test_what_cannot_be_served_is_said_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["--tasks", str(tmp_path / "tasks"), "--port", "0"]
    monkeypatch.delenv("SVFSEG_TOKEN", raising=False)
    with pytest.raises(ValueError, match="set SVFSEG_TOKEN, or listen on 127.0.0.1"):
        run_serve([*words, "--host", "0.0.0.0"])
    with pytest.raises(ValueError, match="max_seconds is 0.0: expected more than 0"):
        run_serve([*words, "--max-seconds", "0"])
    with pytest.raises(FileNotFoundError, match="is not a run"):
        run_serve([*words, "--model", "no/such"])
    with pytest.raises(ValueError, match="choose another port"):
        run_serve([*words, "--port", "99999"])
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(ValueError, match="choose another port"),
    ):
        run_serve([*words, "--port", str(taken.getsockname()[1])])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"needs the package fastapi: pip install 'svfseg\[app\]'"):
        run_serve(words)
    assert not (tmp_path / "tasks").exists()


def test_short_answers_are_sent_at_once() -> None:
    """Else they wait for an acknowledgement that the other side delays, 40 ms on Linux."""
    with listen("127.0.0.1", 0) as listening, socket.create_connection(listening.getsockname()):
        accepted = listening.accept()[0]
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        accepted.close()


def test_the_command_alone_loads_nothing_heavy() -> None:
    script = (
        "import sys, svfseg.cli.web, svfseg.web\n"
        "assert not {'torch', 'numpy', 'fastapi', 'uvicorn', 'pydantic'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
