"""A page of svfseg as a user starts it, in a real browser without a window."""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import uvicorn
from playwright.sync_api import Browser, Page, sync_playwright

from svfseg.web.app import create_page
from svfseg.web.limits import Limits
from svfseg.web.project import PageProject
from svfseg.web.settings import PageSettings

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)
if not CHROMIUM and os.environ.get("CI"):
    raise RuntimeError("CI must install chromium")
needs_chromium = pytest.mark.skipif(not CHROMIUM, reason="no chromium on this machine")


@contextmanager
def started(project: Path, *words: str) -> Iterator[str]:
    """The address of ``svfseg app PROJECT``; stopped as a user would, with status 0."""
    command = [sys.executable, "-m", "svfseg", "app", str(project), "--port", "0", "--no-browser"]
    process = subprocess.Popen(
        [*command, *words], stdout=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"http://\S+", line)
        assert found, line
        yield found[0]
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


@contextmanager
def served(project: Path, *images: Path) -> Iterator[str]:
    """The address of the same page, run in this process: what takes long is loaded already."""
    opened = PageProject(project)
    for path in images:
        opened.add_image(path.name, path.read_bytes(), 20_000_000)
    limits = Limits(max_bytes=2_000_000, at_once=64)
    config = uvicorn.Config(
        create_page(opened, PageSettings(limits, 20_000_000)), port=0, log_level="warning"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(60)


@contextmanager
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@contextmanager
def page_of(chromium: Browser, address: str, **options: object) -> Iterator[Page]:
    """A page that is ready; no script of it may fail, and none may ask another host."""
    context = chromium.new_context(**{"viewport": {"width": 1280, "height": 800}, **options})
    page = context.new_page()
    failures: list[str] = []
    page.on("pageerror", lambda error: failures.append(str(error)))
    page.on(
        "request",
        lambda request: (
            None
            if request.url.startswith((address.split("/open")[0], "blob:", "data:"))
            else failures.append(request.url)
        ),
    )
    page.goto(address)
    page.wait_for_selector("#classes input")
    yield page
    context.close()
    assert not failures


def open_image(page: Page, name: str) -> None:
    page.click(f'#images li[data-name="{name}"] button')
    page.wait_for_selector(f'#images li[data-name="{name}"] [aria-current="true"], '
                           f'#photo[alt="{name}"]')  # fmt: skip
    page.wait_for_selector(f'#photo[alt="{name}"]')


def place(page: Page, x: float, y: float) -> tuple[float, float]:
    """Where on the page a point of the picture is, as shares of its width and height."""
    box = page.locator("#sheet").bounding_box()
    assert box is not None
    return box["x"] + x * box["width"], box["y"] + y * box["height"]


def click_outline(page: Page, mask: np.ndarray) -> None:
    """Mark a thing by clicking the corners of its outline."""
    from skimage import measure

    page.click('[data-tool="polygon"]')
    height, width = mask.shape
    for ring in measure.find_contours(np.pad(mask, 1).astype(float), 0.5):
        if len(ring) < 40:
            continue
        for y, x in measure.approximate_polygon(ring, 2)[:-1] - 1:
            page.mouse.click(*place(page, (x + 0.5) / width, (y + 0.5) / height))
        page.keyboard.press("Enter")


def drag(page: Page, *points: tuple[float, float], steps: int = 12) -> None:
    """A stroke through points of the picture."""
    page.mouse.move(*place(page, *points[0]))
    page.mouse.down()
    for point in points[1:]:
        page.mouse.move(*place(page, *point), steps=steps)
    page.mouse.up()


def wait_saved(page: Page) -> None:
    page.locator("#status", has_text=": example").wait_for()


def wait_done(page: Page, seconds: float = 120) -> None:
    page.locator("#running").wait_for(state="hidden", timeout=1000 * seconds)
