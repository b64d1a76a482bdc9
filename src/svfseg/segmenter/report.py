"""Write a page of predictions, the doubtful ones first."""

import base64
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
from PIL import Image

from svfseg._version import __version__
from svfseg.errors import InputError, MissingFileError
from svfseg.files import read_json_lines, write_text

LOG = "predictions.jsonl"
# Longer side of the pictures on the page, in pixels.
SIDE = 480


def write_report(predictions: Path, page: Path | None = None) -> Path:
    """Write one HTML file, with small pictures in it, of a folder of `predict_folder`.

    Each picture leads to the whole one, where that still lies beside the page.

    Args:
        predictions: the folder.
        page: the file; report.html in the folder by default.

    Raises:
        MissingFileError: no predictions there.
        InputError: none finished yet.
    """
    lines = sorted(read_predictions(predictions), key=lambda x: min(x["confidence"].values()))
    if not lines:
        raise InputError(f"no image in {predictions} is done yet: run svfseg predict to its end")
    page = predictions / "report.html" if page is None else page
    drawn = [predictions / f"{Path(line['mask']).stem}_overlay.jpg" for line in lines]
    entries = [
        {
            "name": Path(line["image"]).name,
            "picture": _embedded(overlay),
            "whole": quote(os.path.relpath(overlay, page.parent)),
            "classes": [
                {"name": n, "share": 100 * line["share"][n], "confidence": c}
                for n, c in line["confidence"].items()
            ],
            "least": min(line["confidence"].values()),
            "empty": not any(line["share"].values()),
            "support": line.get("support", False),
        }
        for line, overlay in zip(lines, drawn, strict=True)
    ]
    out = list(read_left_out(predictions))
    template = (Path(__file__).parent / "templates" / "report.html").read_text()
    environment = jinja2.Environment(autoescape=True)
    text = environment.from_string(template).render(
        images=entries,
        empty=sum(line["empty"] for line in entries),
        doubtful=sum(line["least"] < 0.5 for line in entries),
        supports=sum(line["support"] for line in entries),
        left_out=[{"name": Path(line["image"]).name, "why": line["left_out"]} for line in out],
        version=__version__,
    )
    write_text(page, text)
    return page


def _embedded(path: Path) -> str:
    with Image.open(path, formats=("JPEG", "PNG")) as image:  # of ours; torch is not loaded for it
        small = image.convert("RGB")
        small.thumbnail((SIDE, SIDE))
        buffer = io.BytesIO()
        small.save(buffer, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def read_predictions(out: Path) -> Iterator[dict[str, Any]]:
    """Read the lines of the images that are done, of a folder of predictions.

    Raises:
        MissingFileError: no such folder.
    """
    return (line for line in _read(out) if "left_out" not in line)


def read_left_out(out: Path) -> Iterator[dict[str, Any]]:
    """Read the lines of images that could not be read; "left_out" says why."""
    return (line for line in _read(out) if "left_out" in line)


def _read(out: Path) -> Iterator[dict[str, Any]]:
    if not (out / LOG).is_file():
        raise MissingFileError(f"there are no predictions in {out}: run svfseg predict first")
    yield from read_json_lines(out / LOG)[1:]
