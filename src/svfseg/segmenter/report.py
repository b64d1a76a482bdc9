"""Write a page of predictions, the doubtful ones first."""

import base64
import io
import os
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
    _, rows = read_log(predictions)
    done = {row["mask"]: row for row in rows if "left_out" not in row}
    names = {row["image"] for row in done.values()}
    out = {row["image"]: row for row in rows if "left_out" in row and row["image"] not in names}
    lines = sorted(done.values(), key=lambda line: min(line["confidence"].values()))
    if not lines:
        raise InputError(f"no image in {predictions} is done yet: run svfseg predict to its end")
    page = predictions / "report.html" if page is None else page
    drawn = [predictions / f"{Path(line['mask']).stem}_overlay.jpg" for line in lines]
    entries = [
        {
            "name": _shown(line["image"]),
            "picture": _embedded(overlay),
            "whole": quote(os.fsencode(os.path.relpath(overlay, page.parent))),
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
    template = (Path(__file__).parent / "templates" / "report.html").read_text()
    environment = jinja2.Environment(autoescape=True)
    text = environment.from_string(template).render(
        images=entries,
        empty=sum(line["empty"] for line in entries),
        doubtful=sum(line["least"] < 0.5 for line in entries),
        supports=sum(line["support"] for line in entries),
        left_out=[
            {"name": _shown(line["image"]), "why": line["left_out"]} for line in out.values()
        ],
        version=__version__,
    )
    write_text(page, text)
    return page


def _shown(path: str) -> str:
    """The name of a file in letters that every text holds."""
    return os.fsencode(Path(path).name).decode("utf-8", "replace")


def _embedded(path: Path) -> str:
    with Image.open(path, formats=("JPEG", "PNG")) as image:  # of ours; torch is not loaded for it
        small = image.convert("RGB")
        small.thumbnail((SIDE, SIDE))
        buffer = io.BytesIO()
        small.save(buffer, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def read_log(out: Path) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
    """Read the log of a folder of predictions: its head, None if it is empty, and its lines.

    Raises:
        MissingFileError: there is no log.
        InputError: damaged; a last line that a stop cut off is left out.
    """
    log = out / LOG
    if not log.exists():
        raise MissingFileError(f"there are no predictions in {out}: run svfseg predict first")
    if not log.is_file():
        raise InputError(f"{log} is not a regular file: choose another folder", settings=("out",))
    with log.open("rb") as file:
        begins = file.read(1)
    if begins not in (b"", b"{"):  # one line that is not JSON could be one that a stop cut off
        raise InputError(
            f"{log} is there already, and is not a log of this command: choose another folder",
            settings=("out",),
        )
    rows = read_json_lines(log)
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict) or not (number == 1 or _is_line(row)):
            raise InputError(
                f"{log} is damaged in its line {number}: choose another folder, or remove it",
                settings=("out",),
            )
    if rows and "task" not in rows[0]:
        raise InputError(f"{log} is damaged: choose another folder, or remove it",
                         settings=("out",))  # fmt: skip
    return (rows[0] if rows else None), rows[1:]


def _is_line(row: dict[str, Any]) -> bool:
    if not isinstance(row.get("image"), str):
        return False
    if "left_out" in row:
        return isinstance(row["left_out"], str)
    numbers = [row.get("share"), row.get("confidence")]
    return (
        isinstance(row.get("mask"), str)
        and Path(row["mask"]).name == row["mask"]
        and all(isinstance(each, dict) and each for each in numbers)
        and all(isinstance(v, (int, float)) for each in numbers if each for v in each.values())
        and all(isinstance(name, str) for name in row.get("files", []))
    )
