"""A running service for tests, pictures to send, and what is sent and answered."""

import contextlib
import io
import struct
import threading
import zlib
from collections.abc import Iterator
from concurrent.futures import wait
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import uvicorn
from fastapi import FastAPI
from PIL import Image
from skimage import data

from svfseg import FewShotSegmenter
from svfseg.web.server import listen
from svfseg.web.service import create_service
from svfseg.web.settings import ServiceSettings


def encoded(image: Image.Image, kind: str = "PNG", **more: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **more)
    return file.getvalue()


def header(width: int, height: int) -> bytes:
    """A PNG that claims a size, and holds no pixel."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content))
            + kind
            + content
            + struct.pack(">I", zlib.crc32(kind + content))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(b""))
        + chunk(b"IEND", b"")
    )


CAT = Image.fromarray(data.chelsea()).resize((226, 150))
MARKED = np.zeros((150, 226), np.uint8)
MARKED[10:145, 40:165] = 1
PHOTO = encoded(CAT, "JPEG")
MASK = encoded(Image.fromarray(MARKED))
OTHER = encoded(Image.fromarray(data.coffee()).resize((150, 100)), "JPEG")


class Running:
    """A server in a thread, and a client of it."""

    def __init__(self, app: FastAPI, **client: Any) -> None:
        self.app = app
        self.socket = listen("127.0.0.1", 0)
        self.address = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        self.server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        self.thread = threading.Thread(target=self.server.run, args=([self.socket],))
        self.thread.start()
        self.client = httpx.Client(base_url=self.address, timeout=60, **client)

    def stop(self) -> None:
        self.client.close()
        self.server.should_exit = True
        self.thread.join()

    def jobs(self) -> None:
        """Wait until no job is left."""
        wait(list(self.app.state.work._jobs))


@contextlib.contextmanager
def running(folder: Path, **settings: Any) -> Iterator[Running]:
    client = settings.pop("client", {})
    server = Running(create_service(folder, ServiceSettings(device="cpu", **settings)), **client)
    try:
        yield server
    finally:
        server.stop()


def fit(client: httpx.Client, name: str = "cat", images: Any = (PHOTO,), masks: Any = (MASK,),
        negatives: Any = (), **form: Any) -> httpx.Response:  # fmt: skip
    files = [("images", ("a.jpg", each)) for each in images]
    files += [("masks", ("a.png", each)) for each in masks]
    files += [("negatives", ("n.jpg", each)) for each in negatives]
    form = {"size": 96, "classes": ["cat"], **form}
    return client.post(f"/tasks/{name}/fit", files=files, data=form)


def predict(client: httpx.Client, name: str = "cat", image: bytes = PHOTO, query: str = "",
            filename: str = "photo.jpg") -> httpx.Response:  # fmt: skip
    return client.post(f"/tasks/{name}/predict{query}", files={"image": (filename, image)})


def line(answer: httpx.Response, status: int) -> str:
    """The one line of a refusal."""
    assert answer.status_code == status, answer.text
    content = answer.json()
    assert list(content) == ["error"]
    assert "\n" not in content["error"]
    assert "Traceback" not in answer.text
    return str(content["error"])


def ids(png: bytes) -> np.ndarray:
    image = Image.open(io.BytesIO(png))
    assert image.format == "PNG"
    return np.asarray(image)


class Held:
    """Stands in for a verb of the segmenter: begins, and ends when it is let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, verb: str) -> None:
        self.begun, self.go = threading.Event(), threading.Event()
        real = getattr(FewShotSegmenter, verb)

        def held(*given: Any, **named: Any) -> Any:
            self.begun.set()
            assert self.go.wait(60)
            return real(*given, **named)

        monkeypatch.setattr(FewShotSegmenter, verb, held)
