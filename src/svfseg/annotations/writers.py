"""Write masks in the formats of other programs."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from svfseg.annotations.outlines import Ring, number_parts, simplify, trace_rings
from svfseg.data.images import Array
from svfseg.files import read_json, replace_file, write_json, write_text

# Corners of an outline may lie off it by this, in pixels.
TOLERANCE = 0.75
# Smaller specks are no objects of their own.
LEAST_AREA = 16


class Thing(NamedTuple):
    """A connected part of a class.

    Attributes:
        class_id: id of the class.
        part: (height, width) bool.
        outer: (points, 2) of (x, y), its outline in pixels.
        holes: the same for each hole.
    """

    class_id: int
    part: npt.NDArray[np.bool_]
    outer: Ring
    holes: list[Ring]


class Named(NamedTuple):
    """A mask with what a file says about it.

    Attributes:
        image: path of the image.
        mask: (height, width) of ids, 0 being background.
        classes: names of the ids 1, 2 ...
        confidence: class -> how good its answer is, in [0, 1].
        probabilities: (classes, height, width) in [0, 1]; None of a mask that somebody drew.
    """

    image: Path
    mask: Array
    classes: tuple[str, ...]
    confidence: Mapping[str, float]
    probabilities: npt.NDArray[np.float16] | None = None


def things(mask: Array) -> list[Thing]:
    """Find the connected parts of every class, with their outlines.

    Args:
        mask: (height, width) of ids, 0 being background.
    """
    result = []
    for class_id in sorted(set(np.unique(mask).tolist()) - {0, 255}):
        numbered = number_parts(mask == class_id)
        for number in range(1, int(numbered.max()) + 1):
            part = numbered == number
            if part.sum() < LEAST_AREA:
                continue
            rings = [
                np.clip(simplify(ring, TOLERANCE), 0, part.shape[::-1])
                for ring in trace_rings(part)
            ]
            rings = sorted((r for r in rings if len(r) > 3), key=lambda ring: -abs(_area(ring)))
            if rings:
                result.append(Thing(class_id, part, rings[0], rings[1:]))
    return result


def write_png(folder: Path, named: Named) -> None:
    """Write NAME.png: 0 and 255 of one class, a palette of ids of several."""
    image = Image.fromarray(named.mask * 255 if len(named.classes) == 1 else named.mask)
    if len(named.classes) > 1:
        image.putpalette([channel for color in palette(len(named.classes)) for channel in color])
    with replace_file(folder / f"{named.image.stem}.png") as fresh:
        image.save(fresh, "PNG")


def write_yolo(folder: Path, named: Named) -> None:
    """Write labels/NAME.txt: class and outline per thing, in shares of the sides; no holes."""
    (folder / "labels").mkdir(exist_ok=True)
    height, width = named.mask.shape
    lines = []
    for thing in things(named.mask):
        points = (thing.outer[:-1] / (width, height)).round(6).reshape(-1)
        lines.append(f"{thing.class_id - 1} {' '.join(f'{v:g}' for v in points)}")
    labels = folder / "labels"
    write_text(labels / f"{named.image.stem}.txt", "".join(f"{x}\n" for x in lines))
    write_text(labels / "classes.txt", "".join(f"{c}\n" for c in named.classes))


def write_labelme(folder: Path, named: Named) -> None:
    """Write NAME.json as labelme reads it: a polygon per thing; no holes."""
    height, width = named.mask.shape
    content = {
        "version": "5.5.0",
        "flags": {},
        "shapes": [
            {
                "label": named.classes[thing.class_id - 1],
                "points": thing.outer[:-1].round(2).tolist(),
                "group_id": None,
                "shape_type": "polygon",
                "flags": {},
            }
            for thing in things(named.mask)
        ],
        "imagePath": _seen_from(folder, named.image),
        "imageData": None,
        "imageHeight": height,
        "imageWidth": width,
    }
    write_json(folder / f"{named.image.stem}.json", content)


def _seen_from(folder: Path, image: Path) -> str:
    """Path of an image from a folder; its name where it lies nowhere, or on another drive."""
    if not image.is_file():
        return image.name
    try:
        return Path(os.path.relpath(image, folder)).as_posix()
    except ValueError:
        return str(image.resolve())


def write_geojson(folder: Path, named: Named) -> None:
    """Write NAME.geojson: a polygon with holes per thing, in pixels, y downwards."""
    features = [
        {
            "type": "Feature",
            "geometry": {
                "type": "Polygon",
                "coordinates": [r.round(2).tolist() for r in (thing.outer, *thing.holes)],
            },
            "properties": {
                "class": named.classes[thing.class_id - 1],
                "confidence": named.confidence[named.classes[thing.class_id - 1]],
            },
        }
        for thing in things(named.mask)
    ]
    content = {"type": "FeatureCollection", "features": features}
    write_json(folder / f"{named.image.stem}.geojson", content, None)


def write_probability(folder: Path, named: Named) -> None:
    """Write probability/NAME.png, 255 being certain; of several classes probability/ID/NAME.png.

    Raises:
        ValueError: a mask without probabilities.
    """
    if named.probabilities is None:
        raise ValueError(f"the mask of {named.image} has no probabilities")
    for class_id, share in enumerate(named.probabilities, start=1):
        part = folder / "probability"
        if len(named.classes) > 1:
            part /= f"{class_id}"
        part.mkdir(parents=True, exist_ok=True)
        grey = np.rint(255 * share.astype(np.float32)).astype(np.uint8)
        with replace_file(part / f"{named.image.stem}.png") as fresh:
            Image.fromarray(grey).save(fresh, "PNG")


def write_coco(folder: Path, named: Named) -> None:
    """Write the part of coco.json for one image; `join_coco` joins the parts."""
    (folder / "coco").mkdir(exist_ok=True)
    height, width = named.mask.shape
    annotations = []
    for thing in things(named.mask):
        rows, columns = np.nonzero(thing.part)
        left, top = int(columns.min()), int(rows.min())
        annotations.append(
            {
                "category_id": thing.class_id,
                "segmentation": {"size": [height, width], "counts": run_lengths(thing.part)},
                "area": int(thing.part.sum()),
                "bbox": [left, top, int(columns.max()) - left + 1, int(rows.max()) - top + 1],
                "iscrowd": 0,
                "score": named.confidence[named.classes[thing.class_id - 1]],
            }
        )
    content = {"file_name": named.image.name, "height": height, "width": width}
    part = {"image": content, "annotations": annotations, "classes": named.classes}
    write_json(folder / "coco" / f"{named.image.stem}.json", part, None)


def join_coco(folder: Path) -> Path:
    """Join all parts that `write_coco` wrote to coco.json, as pycocotools reads it."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    classes: Sequence[str] = ()
    for number, path in enumerate(sorted((folder / "coco").glob("*.json")), start=1):
        part = read_json(path)
        images.append({"id": number, **part["image"]})
        classes = part["classes"]
        for annotation in part["annotations"]:
            annotations.append({"id": len(annotations) + 1, "image_id": number, **annotation})
    document = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": i, "name": name} for i, name in enumerate(classes, start=1)],
    }
    path = folder / "coco.json"
    write_json(path, document, None)
    return path


# What is written beside the PNG of every image, for any mask.
WRITERS: dict[str, Callable[[Path, Named], None]] = {
    "png": write_png,
    "coco": write_coco,
    "yolo": write_yolo,
    "labelme": write_labelme,
    "geojson": write_geojson,
}
# The same for masks that a model answered with.
ANSWER_WRITERS = {**WRITERS, "probability": write_probability}


def run_lengths(part: npt.NDArray[np.bool_]) -> list[int]:
    """Encode a mask as COCO's uncompressed run lengths, column by column, background first."""
    flat = part.ravel(order="F").astype(np.int8)
    edges = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *edges.tolist(), len(flat)]).tolist()
    return [0, *counts] if flat[0] else counts


def palette(count: int) -> list[tuple[int, int, int]]:
    """List the colours of ids 0 to ``count`` as PASCAL VOC has them, by the bits of an id."""
    colors = []
    for number in range(count + 1):
        color, bits = [0, 0, 0], number
        for place in range(7, -1, -1):
            for channel in range(3):
                color[channel] |= (bits >> channel & 1) << place
            bits >>= 3
        colors.append((color[0], color[1], color[2]))
    return colors


def _area(ring: Ring) -> float:
    x, y = ring[:, 0], ring[:, 1]
    return float((x[:-1] * y[1:] - x[1:] * y[:-1]).sum() / 2)
