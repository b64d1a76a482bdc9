"""``svfseg app``, ``serve`` and ``label-studio``: what answers in a browser or over HTTP."""

import os
import sys
import webbrowser
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from svfseg.cli.parse import parse
from svfseg.errors import InputError, MissingFileError
from svfseg.files import check_output_folder
from svfseg.web.server import address_of, check_token, is_local_host, listen, need_packages, serve

# The most that settings of a server may be: no machine has more.
MOST, MOST_MEGABYTES, MOST_WORKERS = 2**53, 1e9, 256


def _token(given: str | None) -> str | None:
    """The token of an option, or else of the environment, where an empty one is none."""
    token = os.environ.get("SVFSEG_TOKEN") or None if given is None else given
    check_token(token)
    return token


def _check_numbers(parsed: object, **most: float) -> None:
    """Raise InputError for a setting that is 0 or less, no number, or more than any machine has."""
    for name, limit in most.items():
        value = getattr(parsed, name)
        if not value > 0:
            raise InputError(f"{name} is {value}: expected more than 0", settings=(name,))
        if value > limit:
            raise InputError(f"{name} is {value}: expected at most {limit:,.0f}", settings=(name,))


@dataclass(frozen=True)
class AppArguments:
    """Mark, learn, look through and save, on a page in the browser."""

    project: Positional[Path] = Path("project")
    """Folder in which everything is stored while you work; made if it is not there."""
    images: tuple[Path, ...] = ()
    """Images or folders of images to copy into the project; those it has already are left out.
    By default none are copied."""
    host: str = "127.0.0.1"
    """Address to listen on; an address that other machines reach needs a token."""
    port: int = 7860
    """Port to listen on; 0 takes a free one."""
    token: str | None = None
    """Token that browsers must send; the printed link holds it. By default $SVFSEG_TOKEN, or
    no token."""
    allow_host: tuple[str, ...] = ()
    """Host names to answer to besides localhost, such as that of a proxy. By default there are
    none."""
    max_upload: float = 400
    """Size of the largest upload, MB."""
    max_pixels: int = 60_000_000
    """Largest number of pixels of an image."""
    no_browser: bool = False
    """Print the address, and do not open a browser."""
    model: str = "default"
    """Base model: default, a run folder, or owner/name on the Hugging Face hub."""
    device: str = "auto"
    """Device to compute on: auto (a GPU if there is one), cpu, cuda or mps."""


def run_app(arguments: Sequence[str]) -> None:
    """Run ``svfseg app PROJECT``."""
    parsed = parse(AppArguments, "app", arguments)
    need_packages("fastapi", "uvicorn", "python_multipart")
    _check_numbers(parsed, max_upload=MOST_MEGABYTES, max_pixels=MOST)
    token = _token(parsed.token)
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
        paths = find_images(parsed.images) if parsed.images else []
        check_output_folder(parsed.project)
        project = PageProject(parsed.project)
        for path in paths:
            if not project.has(path.name):
                try:
                    project.add_image(path.name, path.read_bytes(), parsed.max_pixels)
                except InputError as error:
                    print(f"left out: {error}", file=sys.stderr)
        # a page asks for many small pictures at once
        limits = Limits(
            token, local, frozenset(parsed.allow_host), int(parsed.max_upload * 1e6), 64, 600,
            # the page itself holds nothing of the project, and says how to be let in
            frozenset({"/", "/open/*", "/static/*"}), frozenset({"/api/state", "/api/stop"}),
        )  # fmt: skip
        page = create_page(
            project, PageSettings(limits, parsed.max_pixels, parsed.model, parsed.device)
        )
        address = address_of(parsed.host, listening) + ("" if token is None else f"/open/{token}")
        print(f"{parsed.project} is open at {address}", flush=True)
        if not parsed.no_browser and sys.stdout.isatty():
            webbrowser.open(address)
        serve(page, listening, 10, lambda: int(page.state.worker.running))
        print(f"stopped; everything is stored in {parsed.project}")


@dataclass(frozen=True)
class ServeArguments:
    """Fit, predict and store tasks for programs, over HTTP."""

    tasks: Path = Path("tasks")
    """Folder with the files of the tasks, NAME.svf; made if it is not there."""
    host: str = "127.0.0.1"
    """Address to listen on; an address that other machines reach needs a token."""
    port: int = 8000
    """Port to listen on; 0 takes a free one."""
    token: str | None = None
    """Token that requests must carry (Authorization: Bearer TOKEN); other users of this machine see
    this option, but not the variable. By default $SVFSEG_TOKEN, or no token."""
    allow_host: tuple[str, ...] = ()
    """Host names to answer to besides localhost, such as that of a proxy. By default there are
    none."""
    allow_origin: tuple[str, ...] = ()
    """Origins whose pages may ask too, such as http://localhost:3000. By default there are none."""
    max_upload: float = 64
    """Size of the largest upload, MB."""
    max_pixels: int = 40_000_000
    """Largest number of pixels of an image; the images of a fit may have eight times as many
    together."""
    max_seconds: float = 120
    """Longest time of a request, seconds; after a stop, running ones have this long to finish."""
    at_once: int = 16
    """Largest number of requests that run or wait; further ones are asked to try again."""
    workers: int = 1
    """Number of fits and predictions that are computed at once; with 2, predictions do not wait for
    a fit."""
    model: str = "default"
    """Base model of all tasks: default, a run folder, or owner/name on the Hugging Face hub."""
    device: str = "auto"
    """Device to compute on: auto (a GPU if there is one), cpu, cuda or mps."""


def run_serve(arguments: Sequence[str]) -> None:
    """Run ``svfseg serve --tasks DIR``."""
    parsed = parse(ServeArguments, "serve", arguments)
    need_packages("fastapi", "uvicorn", "python_multipart", "prometheus_client")
    _check_numbers(
        parsed, max_upload=MOST_MEGABYTES, max_pixels=MOST, max_seconds=MOST, at_once=MOST,
        workers=MOST_WORKERS,
    )  # fmt: skip
    token = _token(parsed.token)
    local = is_local_host(parsed.host, token)
    from svfseg.web.cross_origin import check_origins
    from svfseg.web.limits import Limits

    limits = Limits(
        token, local, frozenset(parsed.allow_host), int(parsed.max_upload * 1e6),
        parsed.at_once, parsed.max_seconds, origins=check_origins(parsed.allow_origin),
    )  # fmt: skip
    with listen(parsed.host, parsed.port) as listening:
        print("loading", file=sys.stderr)
        from svfseg.web.service import create_service
        from svfseg.web.settings import ServiceSettings

        settings = ServiceSettings(
            limits, parsed.max_pixels, parsed.model, parsed.device, parsed.workers
        )
        check_output_folder(parsed.tasks)
        service = create_service(parsed.tasks, settings)
        address = address_of(parsed.host, listening)
        print(f"serving {parsed.tasks} on {address} (routes: {address}/docs)", flush=True)
        serve(service, listening, parsed.max_seconds, service.state.work.__len__)


@dataclass(frozen=True)
class LabelStudioArguments:
    """Answer Label Studio: predict masks of its tasks, and fit on what is submitted there."""

    project: Path
    """Folder of what was submitted and fitted, one for each project of Label Studio; made if it is
    not there."""
    images: Path | None = None
    """Folder of the images: what Label Studio serves as local files, or its media folder. By
    default no files are read."""
    url: str | None = None
    """Address of Label Studio, to fetch images from; this needs an API key too. By default no
    images are fetched."""
    api_key: str | None = None
    """Legacy token of a user of Label Studio; other users of this machine see this option, but not
    the variable. By default $LABEL_STUDIO_API_KEY."""
    host: str = "127.0.0.1"
    """Address to listen on; an address that other machines reach needs a token."""
    port: int = 9090
    """Port to listen on; 0 takes a free one."""
    token: str | None = None
    """Token that requests must carry, as the password of basic authentication or as Authorization:
    Bearer TOKEN; other users of this machine see this option, but not the variable. By default
    $SVFSEG_TOKEN, or no token."""
    allow_host: tuple[str, ...] = ()
    """Host names to answer to besides localhost, such as that of a proxy. By default there are
    none."""
    newest: int = 10
    """Largest number of annotations to fit on, per class, and of images without any class; the
    newest ones are taken."""
    wait: float = 2.0
    """Seconds from the last annotation to the fit."""
    model: str = "default"
    """Base model: default, a run folder, or owner/name on the Hugging Face hub."""
    adapt: Literal["none", "svf", "norm", "lora", "full"] = "none"
    """Which weights of the network are tuned on the annotations."""
    seconds: float = 0.0
    """Time that fitting to the annotations may take, in seconds. By default nothing is fitted, and
    an answer is there at once."""
    size: int | None = None
    """Side that images or tiles are resized to, pixels. By default the model's own."""
    tile: bool = False
    """Cut images into squares at their own resolution, for thin or small things."""
    never_empty: bool = False
    """Outline something in every image, even with little evidence."""
    device: str = "auto"
    """Device to compute on: auto (a GPU if there is one), cpu, cuda or mps."""


def run_label_studio(arguments: Sequence[str]) -> None:
    """Run ``svfseg label-studio --project DIR``."""
    parsed = parse(LabelStudioArguments, "label-studio", arguments)
    if parsed.images is not None and not parsed.images.is_dir():
        raise MissingFileError(
            f"there is no folder {parsed.images}: expected the folder of the images",
            settings=("images",),
        )
    if parsed.newest < 1 or parsed.wait < 0:
        raise InputError(
            f"newest is {parsed.newest} and wait {parsed.wait:g}: expected at least 1 and 0",
            settings=("newest", "wait"),
        )
    need_packages("fastapi", "uvicorn", extra="labelstudio")
    token = _token(parsed.token)
    local = is_local_host(parsed.host, token)
    with listen(parsed.host, parsed.port) as listening:
        print("loading", file=sys.stderr, flush=True)
        import logging

        from svfseg.segmenter import FewShotSegmenter
        from svfseg.web.labelstudio.app import LIMITS, create_backend
        from svfseg.web.labelstudio.images import ImageSource
        from svfseg.web.labelstudio.session import LabelStudioSession

        logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
        segmenter = FewShotSegmenter.from_pretrained(
            parsed.model,
            adapt=None if parsed.adapt == "none" else parsed.adapt,
            size=parsed.size,
            tile=parsed.tile,
            seconds=parsed.seconds,
            reject_absent=not parsed.never_empty,
            device=parsed.device,
        )
        api_key = parsed.api_key or os.environ.get("LABEL_STUDIO_API_KEY")
        images = ImageSource(parsed.images, parsed.url, api_key)
        check_output_folder(parsed.project)
        session = LabelStudioSession(parsed.project, images, segmenter, parsed.newest, parsed.wait)
        limits = replace(LIMITS, token=token, local=local, hosts=frozenset(parsed.allow_host))
        backend = create_backend(session, limits)
        logging.getLogger("svfseg.labelstudio").info(
            "answers Label Studio on %s", address_of(parsed.host, listening)
        )
        serve(backend, listening, 10, lambda: int(session.fitting))
