"""``svfseg app``, ``serve`` and ``label-studio``: what answers in a browser or over HTTP."""

import os
import sys
import webbrowser
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from svfseg.cli.parse import parse
from svfseg.errors import InputError, MissingFileError
from svfseg.web.server import address_of, is_local_host, listen, need_packages, serve


@dataclass(frozen=True)
class AppArguments:
    """Mark, learn, look through and save, on a page in the browser."""

    project: Positional[Path] = Path("project")
    """Folder in which all is kept as you go; made if it is not there."""
    images: tuple[Path, ...] = ()
    """Images or folders of images to copy into it, those that it does not have yet."""
    host: str = "127.0.0.1"
    """Address to listen on; one that others reach needs a token."""
    port: int = 7860
    """Port to listen on; 0 takes a free one."""
    token: str | None = None
    """What browsers must show, by the link that is printed; by default $SVFSEG_TOKEN."""
    allow_host: tuple[str, ...] = ()
    """Names to answer to beside localhost, such as that of a proxy in front."""
    max_upload: float = 400
    """Largest upload, MB."""
    max_pixels: int = 60_000_000
    """Most pixels of an image."""
    no_browser: bool = False
    """Only print the address."""
    model: str = "default"
    """default, a run folder, or owner/name on the Hugging Face hub."""
    device: str = "auto"
    """auto (a GPU if there is one), cpu, cuda, mps."""


def run_app(arguments: Sequence[str]) -> None:
    """Run ``svfseg app PROJECT``."""
    parsed = parse(AppArguments, "app", arguments)
    need_packages("fastapi", "uvicorn", "python_multipart")
    token = parsed.token or os.environ.get("SVFSEG_TOKEN") or None
    local = is_local_host(parsed.host, token)
    with listen(parsed.host, parsed.port) as listening:
        print("loading", file=sys.stderr)
        from svfseg.annotations.folders import find_images
        from svfseg.segmenter.hub import find_model
        from svfseg.web.app import create_page
        from svfseg.web.limits import Limits
        from svfseg.web.project import PageProject
        from svfseg.web.settings import PageSettings

        find_model(parsed.model)  # better missed now than after an hour of painting
        wanted = find_images(parsed.images) if parsed.images else []
        project = PageProject(parsed.project)
        for path in wanted:
            if not project.has(path.name):
                try:
                    project.add_image(path.name, path.read_bytes(), parsed.max_pixels)
                except InputError as error:
                    print(f"left out: {error}", file=sys.stderr)
        # a page asks for many small pictures at once
        limits = Limits(
            token, local, frozenset(parsed.allow_host), int(parsed.max_upload * 1e6), 64, 600,
            frozenset({"/open/*", "/static/*"}), frozenset({"/api/state", "/api/stop"}),
        )  # fmt: skip
        page = create_page(
            project, PageSettings(limits, parsed.max_pixels, parsed.model, parsed.device)
        )
        address = address_of(parsed.host, listening) + ("" if token is None else f"/open/{token}")
        print(f"{parsed.project} is open at {address}", flush=True)
        if not parsed.no_browser and sys.stdout.isatty():
            webbrowser.open(address)
        serve(page, listening, 10, lambda: int(page.state.worker.running))
        print(f"stopped; all is kept in {parsed.project}")


@dataclass(frozen=True)
class ServeArguments:
    """Fit, predict and keep tasks for programs, over HTTP."""

    tasks: Path = Path("tasks")
    """Folder of the tasks' files, NAME.svf; made if it is not there."""
    host: str = "127.0.0.1"
    """Address to listen on; one that others reach needs a token."""
    port: int = 8000
    """Port to listen on; 0 takes a free one."""
    token: str | None = None
    """What requests must carry (Authorization: Bearer TOKEN); by default $SVFSEG_TOKEN, which other
    users of this machine cannot see."""
    allow_host: tuple[str, ...] = ()
    """Names to answer to beside localhost, such as that of a proxy in front."""
    max_upload: float = 64
    """Largest upload, MB."""
    max_pixels: int = 40_000_000
    """Most pixels of an image; a fit may have eight times as many in all."""
    max_seconds: float = 120
    """Longest time of a request; on a stop, running ones have as long to finish."""
    at_once: int = 16
    """Requests that may run or wait; more are told to try again."""
    workers: int = 1
    """Fits and predictions computed at once; with two, predictions do not wait for a fit."""
    model: str = "default"
    """Base model of all tasks: default, a run folder, or owner/name on the Hugging Face hub."""
    device: str = "auto"
    """auto (a GPU if there is one), cpu, cuda, mps."""


def run_serve(arguments: Sequence[str]) -> None:
    """Run ``svfseg serve --tasks DIR``."""
    parsed = parse(ServeArguments, "serve", arguments)
    need_packages("fastapi", "uvicorn", "python_multipart", "prometheus_client")
    for name in ("max_upload", "max_pixels", "max_seconds", "at_once", "workers"):
        if not getattr(parsed, name) > 0:
            raise InputError(
                f"--{name.replace('_', '-')} is {getattr(parsed, name)}: expected more than 0"
            )
    from svfseg.web.limits import Limits

    token = parsed.token or os.environ.get("SVFSEG_TOKEN") or None
    local = is_local_host(parsed.host, token)
    limits = Limits(
        token, local, frozenset(parsed.allow_host), int(parsed.max_upload * 1e6),
        parsed.at_once, parsed.max_seconds,
    )  # fmt: skip
    with listen(parsed.host, parsed.port) as listening:
        print("loading", file=sys.stderr)
        from svfseg.web.service import create_service
        from svfseg.web.settings import ServiceSettings

        settings = ServiceSettings(
            limits, parsed.max_pixels, parsed.model, parsed.device, parsed.workers
        )
        service = create_service(parsed.tasks, settings)
        address = address_of(parsed.host, listening)
        print(f"serving {parsed.tasks} on {address} (routes: {address}/docs)", flush=True)
        serve(service, listening, parsed.max_seconds, service.state.work.__len__)


@dataclass(frozen=True)
class LabelStudioArguments:
    """Answer Label Studio: predict masks of its tasks, fit on what is submitted there."""

    project: Path
    """Folder of what was submitted and fitted; made if it is not there. One for each project."""
    images: Path | None = None
    """Folder of the images: what Label Studio serves as local files, or its media folder."""
    url: str | None = None
    """Address of Label Studio, to fetch images from; needs --api-key too."""
    api_key: str | None = None
    """Legacy token of a user of it; by default $LABEL_STUDIO_API_KEY, which other users of this
    machine cannot see."""
    host: str = "127.0.0.1"
    """Address to listen on; whoever reaches it can predict and submit, no token is asked for."""
    port: int = 9090
    """Port to listen on; 0 takes a free one."""
    newest: int = 10
    """Of each class, and of the images without any, at most so many are fitted on: the newest."""
    wait: float = 2.0
    """Seconds without a further annotation before it fits."""
    model: str = "default"
    """default, a run folder, or owner/name on the Hugging Face hub."""
    adapt: Literal["none", "svf", "norm", "lora", "full"] = "none"
    """What is tuned on the supports."""
    size: int | None = None
    """Side that images or tiles are fitted to, pixels; by default the model's own."""
    tile: bool = False
    """Cut images into squares of --size at their own resolution: for thin or small things."""
    never_empty: bool = False
    """Outline something in every image, whatever the evidence."""
    device: str = "auto"
    """auto (a GPU if there is one), cpu, cuda, mps."""


def run_label_studio(arguments: Sequence[str]) -> None:
    """Run ``svfseg label-studio --project DIR``."""
    parsed = parse(LabelStudioArguments, "label-studio", arguments)
    if parsed.images is not None and not parsed.images.is_dir():
        raise MissingFileError(f"no folder at {parsed.images}: give that of the images")
    if parsed.newest < 1 or parsed.wait < 0:
        raise InputError(
            f"--newest is {parsed.newest} and --wait {parsed.wait:g}: expected at least 1 and 0"
        )
    need_packages("fastapi", "uvicorn", extra="labelstudio")
    with listen(parsed.host, parsed.port) as listening:
        print("loading", file=sys.stderr, flush=True)
        import logging

        from svfseg.segmenter import FewShotSegmenter
        from svfseg.web.labelstudio.app import create_backend
        from svfseg.web.labelstudio.images import ImageSource
        from svfseg.web.labelstudio.session import LabelStudioSession

        logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
        segmenter = FewShotSegmenter.from_pretrained(
            parsed.model,
            adapt=None if parsed.adapt == "none" else parsed.adapt,
            size=parsed.size,
            tile=parsed.tile,
            empty=not parsed.never_empty,
            device=parsed.device,
        )
        token = parsed.api_key or os.environ.get("LABEL_STUDIO_API_KEY")
        images = ImageSource(parsed.images, parsed.url, token)
        session = LabelStudioSession(parsed.project, images, segmenter, parsed.newest, parsed.wait)
        backend = create_backend(session)
        logging.getLogger("svfseg.labelstudio").info(
            "answers Label Studio on %s", address_of(parsed.host, listening)
        )
        serve(backend, listening, 10, lambda: int(session.fitting))
