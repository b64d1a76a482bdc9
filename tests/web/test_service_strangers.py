"""What strangers send to the service: long pictures, odd numbers, things given twice; one line."""

import base64
import errno
import json
import os
import re
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from svfseg.cli.web import run_app, run_label_studio, run_serve
from svfseg.errors import InputError
from svfseg.segmenter.tiling import count_windows, windows
from svfseg.web import uploads
from svfseg.web.app import create_page
from svfseg.web.limits import Limits
from svfseg.web.project import PageProject
from svfseg.web.settings import PageSettings
from svfseg.web.tasks import Tasks
from svfseg.web.uploads import Sight, decode_image, decode_labelme
from tests.web.serving import (
    CAT,
    MARKED,
    MASK,
    OTHER,
    PHOTO,
    Running,
    encoded,
    header,
    line,
    predict,
    running,
)
from tests.web.serving import fit as ask_fit

ORIGIN = "http://localhost:3000"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """With one task, cat; a page of one other origin may ask."""
    limits = Limits(max_bytes=3_000_000, origins=frozenset({ORIGIN}))
    with running(tmp_path_factory.mktemp("tasks"), limits=limits, max_pixels=100_000) as server:
        answer = ask_fit(server.client)
        assert answer.status_code == 200, answer.text
        yield server


def labelme(**changes: Any) -> dict[str, Any]:
    """A file of labelme that marks the cat."""
    points = [[40, 10], [165, 10], [165, 145], [40, 145]]
    shape = {"label": "cat", "shape_type": "polygon", "points": points}
    return {"shapes": [{**shape, **changes}], "imageWidth": 226, "imageHeight": 150}


def no_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on whatever decodes pixels fails."""

    def never(*_: object, **__: object) -> None:
        raise AssertionError("pixels were decoded")

    for name in ("rgb_of", "ids_of", "values_of"):
        monkeypatch.setattr(uploads, name, never)


def test_pictures_of_which_nothing_would_be_seen_are_refused_by_their_header(
    served: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_decoding(monkeypatch)
    client = served.client
    thin, long = encoded(Image.new("1", (20_000, 1))), header(19_300, 5)
    upright, tall = header(5, 19_300), "expected a longer side of at most 192 times the shorter"
    for image, message in ((thin, "20000x1"), (long, tall), (upright, tall)):
        assert message in line(predict(client, image=image), 422)
        assert message in line(ask_fit(client, "no", images=(image,)), 422)
        assert message in line(ask_fit(client, "no", negatives=(image,)), 422)
    assert "of at most 640 times" in line(
        ask_fit(client, "no", images=(header(19_300, 5),), size=320), 422
    )
    default = client.post("/tasks/no/fit", files={"images": long, "masks": MASK})
    size = served.app.state.tasks.size
    assert f"fitted to {size}: expected a longer side of at most {2 * size} times" in line(
        default, 422
    )


def test_the_bound_is_where_less_than_half_a_pixel_is_left() -> None:
    most = 10**6
    Sight(96).check(19_200, 100, most, "it")
    with pytest.raises(InputError, match="it is 100x19201, of which less than a pixel is left"):
        Sight(96).check(100, 19_201, most, "it")
    Sight(96, tile=True).check(19_300, 5, most, "it")  # each tile shows its part in full
    Sight(2048, tile=True).check(10, 10, most, "it")  # enlarged to one tile
    for sides in ((1_000_000, 1), (1, 1_000_000)):
        with pytest.raises(InputError, match=r"which makes 13,889 tiles of 42.7 million pixels"):
            Sight(96, tile=True).check(*sides, most, "it")
    with pytest.raises(InputError, match="expected at most 4 million; scale it down"):
        Sight(96, tile=True, overlap=0.75).check(1000, 1000, most, "it")
    for sides in ((96, 96), (97, 300), (5, 1000), (1234, 777)):
        for overlap in (0, 0.25, 0.75, 0.99):
            assert count_windows(*sides, 96, overlap) == len(windows(*sides, 96, overlap))


def test_a_page_that_knows_no_network_takes_no_longer_picture(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert decode_image(encoded(Image.new("L", (65_600, 24))), 10**7).shape == (24, 65_600, 3)
    no_decoding(monkeypatch)
    with pytest.raises(InputError, match="a is 400000x90: expected a longer side of at most 4,096"):
        decode_image(encoded(Image.new("1", (400_000, 90))), 40_000_000, "a")


def test_a_fit_is_compared_by_headers_before_pixels_are_decoded(
    served: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_decoding(monkeypatch)
    client = served.client
    for images, masks, message in (
        ((header(1, 1),), (header(300, 300),), "mask 1: the image is 1x1, its mask 300x300"),
        ((PHOTO, PHOTO), (MASK, header(300, 300)), "mask 2: the image is 226x150, its mask 300x300"),
        ((header(300, 300),) * 9, (header(300, 300),) * 9, "0.81 million pixels in all, expected at most 800,000"),
        ((PHOTO,), (header(400, 400),), "mask 1 is too large"),
        ((PHOTO,), (b"text",), "mask 1 is not an image"),
    ):  # fmt: skip
        assert message in line(ask_fit(client, "no", images=images, masks=masks), 422)


def test_a_mask_of_a_picture_that_its_camera_turned_is_taken(served: Running) -> None:
    """As it is stored, it has the sides of the header; as it is seen, the other way round."""
    turned = Image.Exif()
    turned[0x0112] = 6
    photo = encoded(CAT, "JPEG", exif=turned)
    for mask in (MASK, encoded(Image.fromarray(np.rot90(MARKED, -1).copy()))):
        answer = ask_fit(served.client, "turned", images=(photo,), masks=(mask,))
        assert answer.status_code == 200
    served.client.delete("/tasks/turned")


def test_files_of_labelme_are_masks(served: Running) -> None:
    client = served.client
    answer = ask_fit(
        client, "lm", images=(PHOTO, PHOTO), masks=(json.dumps(labelme()).encode(), MASK)
    )
    assert answer.status_code == 200
    assert answer.json()["classes"] == ["cat"]
    client.delete("/tasks/lm")
    pixels = np.asarray(CAT.convert("RGB"))
    drawn = decode_labelme(json.dumps(labelme()).encode(), pixels, ["cat"], 10**6)
    assert (drawn == MARKED).mean() > 0.98


def test_files_of_labelme_that_cost_too_much_or_are_damaged_are_refused(
    served: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "DRAWN", 5 * MARKED.size)
    part = base64.b64encode(header(300, 300)).decode()
    masks = {
        "shapes": [{"label": "cat", "shape_type": "mask", "points": [[0, 0]], "mask": part}] * 2
    }
    bomb = base64.b64encode(header(60_000, 60_000)).decode()
    far = [[-(10**6), 0], [0, 10], [10**6, 50]]
    for content, message in (
        (labelme(label="dog"), "mask 1 marks dog: expected cat"),
        (labelme(label="\ud800"), "mask 1 marks \\ud800: expected cat"),
        (labelme(points=[[10**400, 1]] * 3), "shape 1 of mask 1 has the point"),
        (labelme(points=far), "far outside of the image"),
        (labelme(points="\ud800"), "has no list of points"),
        (labelme(shape_type="mask", mask=bomb), "the mask of shape 1 of mask 1 is too large"),
        (labelme(shape_type="mask", mask="ä"), "is not base64"),
        (masks, "0.18 million pixels in all, expected at most 100,000"),
        ({**labelme(), "imageWidth": 10**9}, "mask 1 was drawn on an image of 1000000000x150"),
        ({"shapes": [{}] * 6}, "mask 1 has 6 shapes, expected at most 5 for an image of its size"),
        ({"shapes": [None]}, "its shape 1 is NoneType"),
        ({"annotations": []}, "mask 1 is JSON without shapes"),
    ):
        answer = ask_fit(served.client, "no", masks=(json.dumps(content).encode(),))
        assert message in line(answer, 422)
        assert tempfile.gettempdir() not in answer.text
    for sent in (
        b"{" * 100_000,
        b'{"shapes":' + b"[" * 100_000,
        b'{"shapes":' + b"1" * 5000 + b"}",
        b"{\xff\x00",
    ):
        assert "mask 1 is not JSON" in line(ask_fit(served.client, "no", masks=(sent,)), 422)


def test_what_is_given_twice_or_not_used_is_refused(served: Running) -> None:
    client = served.client
    two = [("image", ("a.jpg", PHOTO)), ("image", ("b.jpg", OTHER))]
    other = [("image", ("a.jpg", PHOTO)), ("images", ("b.jpg", OTHER))]
    assert "image is sent 2 times" in line(client.post("/tasks/cat/predict", files=two), 422)
    assert "'images' is not used here: expected image" in line(
        client.post("/tasks/cat/predict", files=other), 422
    )
    assert "format is sent 2 times" in line(predict(client, query="?format=png&format=json"), 422)
    assert "'formt' is not used here: expected format, threshold" in line(
        predict(client, query="?formt=png"), 422
    )
    assert "size is sent 2 times" in line(ask_fit(client, "no", size=[64, 96]), 422)
    assert "'tiles' is not used here" in line(ask_fit(client, "no", tiles=1), 422)
    answer = line(ask_fit(client, "no", classes=["disc,cup"]), 422)
    assert answer.startswith("classes.0 is 'disc,cup': it holds a comma: repeat classes")


def test_yolo_is_a_format(served: Running) -> None:
    for name in ("photo.jpg", "classes.jpg"):  # the latter is YOLO's name of another file
        answer = predict(served.client, query="?format=yolo", filename=name)
        assert answer.headers["content-type"].startswith("text/plain")
        for row in answer.text.splitlines():
            number, *shares = row.split()
            assert number == "0"
            assert len(shares) >= 6
            assert all(0 <= float(share) <= 1 for share in shares)
        assert answer.text


def test_health_answers_head_and_a_refused_method_names_all_others_once(served: Running) -> None:
    client = served.client
    assert client.head("/health").status_code == 200
    for path, methods in (
        ("/health", "GET, HEAD"), ("/tasks", "GET"), ("/tasks/cat", "GET, DELETE"),
        ("/tasks/cat/file", "GET, PUT"), ("/tasks/cat/predict", "POST"),
    ):  # fmt: skip
        answer = client.patch(path)
        assert "PATCH" in line(answer, 405)
        assert [v for k, v in answer.headers.multi_items() if k == "allow"] == [methods]


@pytest.mark.parametrize(
    "odd", ["1" + "0" * 400, "-1", "1e400", "6000", "\0", "\ud800", "9" * 5000]
)
def test_odd_values_get_one_line(served: Running, odd: str) -> None:
    """In each place that takes a value, whether of a form, a query or a path."""
    client, address = served.client, served.address.partition("//")[2]
    raw = odd.encode("utf-8", "surrogatepass")
    boundary = {"content-type": "multipart/form-data; boundary=b"}

    def part(name: bytes, content: bytes, more: bytes = b"") -> bytes:
        head = b'--b\r\ncontent-disposition: form-data; name="' + name + b'"' + more
        return head + b"\r\n\r\n" + content + b"\r\n"

    files = part(b"images", PHOTO, b'; filename="a"') + part(b"masks", MASK, b'; filename="a"')
    for name in (b"size", b"steps", b"seed", b"lr", b"threshold", b"seconds", b"adapt", b"tile"):
        if (name, odd) == (b"seed", "6000"):
            continue
        answer = client.post(
            "/tasks/no/fit", content=files + part(name, raw) + b"--b--\r\n", headers=boundary
        )
        assert name.decode() in line(answer, 422)
    quoted = "".join(f"%{byte:02X}" for byte in raw)
    for query in (f"threshold={quoted}", f"format={quoted}", f"{quoted}=1"):
        line(predict(client, query=f"?{query}"), 422)
    for method, rest in (("GET", ""), ("GET", "/file"), ("DELETE", ""), ("PUT", "/file")):
        if odd in ("-1", "6000", "1e400"):  # a task may be called so
            continue
        assert client.request(method, f"/tasks/{quoted}{rest}").status_code in (404, 422)
    for name in ("content-length", "host", "origin", "cookie", "authorization", "content-type"):
        host, port = address.split(":")
        with socket.create_connection((host, int(port)), timeout=5) as connection:
            first = b"" if name == "host" else b"Host: localhost\r\n"
            connection.sendall(
                b"POST /tasks/cat/predict HTTP/1.1\r\n"
                + first
                + name.encode()
                + b": "
                + raw
                + b"\r\nConnection: close\r\n\r\n"
            )
            assert b" 4" in connection.recv(13)


def test_a_class_with_half_a_surrogate_or_nul_is_refused(served: Running) -> None:
    for name, message in (
        ("a\0b", "the character U+0000"),
        ("a\nb", "the character U+000A"),
        ("a\u2028b", "U+2028"),
    ):
        assert message in line(ask_fit(served.client, "no", classes=[name]), 422)


def full_disk(number: int = errno.ENOSPC) -> OSError:
    return OSError(number, os.strerror(number), "/secret/place")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_not_a_bug(
    served: Running, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise full_disk(number)

    client = served.client
    whole = client.get("/tasks/cat/file").content
    with monkeypatch.context() as patch:
        patch.setattr(Tasks, "save", fails)
        assert "the disk of the server is full" in line(ask_fit(client, "cat"), 507)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", fails)
        assert "the disk of the server is full" in line(
            client.put("/tasks/cat/file", content=whole), 507
        )
    with monkeypatch.context() as patch:  # where an adapter is unpacked
        patch.setattr("svfseg.web.tasks.FewShotSegmenter.load", fails)
        assert "the disk of the server is full" in line(
            client.put("/tasks/cat/file", content=whole), 507
        )
        served.app.state.tasks._loaded.clear()
        assert "the disk of the server is full" in line(predict(client), 507)
    with monkeypatch.context() as patch:  # where an upload is kept while it comes
        patch.setattr("starlette.formparsers.SpooledTemporaryFile", fails)
        answer = predict(client)
        assert "the disk of the server is full" in line(answer, 507)
        assert "secret" not in answer.text
    assert client.get("/tasks/cat/file").content == whole


def test_another_error_of_the_system_is_a_bug(
    served: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise full_disk(errno.EIO)

    monkeypatch.setattr(Tasks, "save", fails)
    assert "a bug of the server" in line(ask_fit(served.client, "cat"), 500)


def test_pages_of_a_named_origin_may_ask(served: Running) -> None:
    client = served.client
    asked = {
        "origin": ORIGIN,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization",
    }
    answer = client.options("/tasks/cat/predict", headers=asked)
    assert answer.status_code == 204
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    assert "POST" in answer.headers["access-control-allow-methods"]
    assert "Authorization" in answer.headers["access-control-allow-headers"]
    found = client.post("/tasks/cat/predict", files={"image": PHOTO}, headers={"origin": ORIGIN})
    assert found.status_code == 200
    assert found.headers["access-control-allow-origin"] == ORIGIN
    assert "Origin" in found.headers["vary"]
    refused = client.get("/tasks/no", headers={"origin": ORIGIN})
    assert refused.status_code == 404
    assert refused.headers["access-control-allow-origin"] == ORIGIN  # else its page cannot read why
    for origin in ("http://evil.example", "http://localhost:3001", "null"):
        for method in ("OPTIONS", "GET"):
            answer = client.request(method, "/tasks", headers={**asked, "origin": origin})
            assert f"page of {origin}" in line(answer, 403)
            assert "allow_origin" in answer.text
            assert "access-control-allow-origin" not in answer.headers


def test_a_browser_that_asks_in_advance_sends_no_token(tmp_path: Path) -> None:
    limits = Limits(token="plain", origins=frozenset({ORIGIN}))
    with running(tmp_path, limits=limits) as server:
        asked = {"origin": ORIGIN, "access-control-request-method": "GET"}
        assert server.client.options("/tasks", headers=asked).status_code == 204
        answer = server.client.get("/tasks", headers={"origin": ORIGIN})
        assert "token" in line(answer, 401)
        assert answer.headers["access-control-allow-origin"] == ORIGIN
        bearer = {"origin": ORIGIN, "authorization": "Bearer plain"}
        assert server.client.get("/tasks", headers=bearer).status_code == 200


@pytest.mark.parametrize("command", [run_serve, run_app])
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--token", " "], "the token is blank"),
        (["--token", ""], "the token is blank"),
        (["--token", "a\nb"], "control character"),
        (["--max-upload", "inf"], "max_upload is inf: expected at most 1,000,000,000"),
        (["--max-upload", "nan"], "max_upload is nan: expected more than 0"),
        (["--max-upload", "1e300"], "max_upload is 1e+300: expected at most"),
        (["--max-pixels", "0"], "max_pixels is 0: expected more than 0"),
    ],
)
def test_settings_that_protect_nothing_are_refused_at_the_start(
    command: Callable[[list[str]], None], words: list[str], message: str, tmp_path: Path
) -> None:
    where = ["--tasks", str(tmp_path / "new")] if command is run_serve else [str(tmp_path / "new")]
    with pytest.raises(InputError, match=re.escape(message)):
        command([*where, "--port", "0", *words])
    assert not (tmp_path / "new").exists()


def test_a_blank_token_is_refused_by_every_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the option or of the environment."""
    commands = {run_serve: [], run_app: [], run_label_studio: ["--project", str(tmp_path / "new")]}
    for command, words in commands.items():
        for option, variable in ((["--token", ""], "good"), ([], " ")):
            monkeypatch.setenv("SVFSEG_TOKEN", variable)
            with pytest.raises(InputError, match="the token is blank"):
                command([*words, "--host", "0.0.0.0", "--port", "0", *option])


@pytest.mark.parametrize("origin", ["*", "null", "localhost:3000", "http://A.b", "http://a.b/"])
def test_an_origin_that_no_browser_sends_is_refused(origin: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected an origin as browsers send it"):
        run_serve(["--tasks", str(tmp_path), "--port", "0", "--allow-origin", origin])


@pytest.mark.parametrize("words", [["--max-seconds", "inf"], ["--workers", "1000"]])
def test_numbers_without_end_are_refused(words: list[str], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected at most"):
        run_serve(["--tasks", str(tmp_path), "--port", "0", *words])


def test_a_link_to_the_page_with_another_token_lets_nobody_in(tmp_path: Path) -> None:
    settings = PageSettings(Limits(token="sécret", open_paths=frozenset({"/open/*"})))
    server = Running(create_page(PageProject(tmp_path / "p"), settings))
    try:
        for sent in ("%ED%A0%80", "%FF", "%00", "wrong", "secret", "1" * 500):
            answer = server.client.get(f"/open/{sent}")
            assert "the link has another token" in line(answer, 401)
            assert "set-cookie" not in answer.headers
        assert server.client.get("/api/state").status_code == 401
        assert server.client.get("/open/sécret").status_code == 303
        assert server.client.get("/api/state").status_code == 200  # with the cookie
    finally:
        server.stop()
