"""Write masks in the formats of other programs."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from svfseg.annotations.coco_masks import compressed, run_lengths
from svfseg.annotations.things import Thing, opened, things
from svfseg.data.images import Array, write_picture
from svfseg.files import read_json, write_json, write_text


@dataclass(frozen=True)
class Named:
    """A mask with what a file says about it.

    Attributes:
        image: path of the image.
        mask: (height, width) of ids, 0 being background.
        classes: names of the ids 1, 2 ...
        confidence: class -> how good its answer is, in [0, 1].
        probabilities: (classes, height, width) in [0, 1]; None of a mask that somebody drew.
        name: what files are called, without their ends; the image's own name by default.
    """

    image: Path
    mask: Array
    classes: tuple[str, ...]
    confidence: Mapping[str, float]
    probabilities: npt.NDArray[np.float16] | None = None
    name: str = ""

    @property
    def stem(self) -> str:
        """What files are called, without their ends."""
        return self.name or self.image.stem

    @cached_property
    def things(self) -> list[Thing]:
        """Connected parts of the classes, found once for all formats."""
        return things(self.mask)


def write_png(folder: Path, named: Named) -> None:
    """Write NAME.png: 0 and 255 of one class, a palette of ids of several."""
    image = Image.fromarray(named.mask * 255 if len(named.classes) == 1 else named.mask)
    if len(named.classes) > 1:
        image.putpalette([channel for color in palette(len(named.classes)) for channel in color])
    write_picture(folder / f"{named.stem}.png", image, "PNG")


def write_yolo(folder: Path, named: Named) -> None:
    """Write labels/NAME.txt: class and outline per thing, in shares of the sides.

    An outline is cut open to its holes, as the format has one ring for each thing.
    """
    (folder / "labels").mkdir(exist_ok=True)
    height, width = named.mask.shape
    lines = []
    for thing in named.things:
        points = (opened(thing.outer, thing.holes) / (width, height)).round(6).reshape(-1)
        lines.append(f"{thing.class_id - 1} {' '.join(f'{v:g}' for v in points)}")
    labels = folder / "labels"
    write_text(labels / f"{named.stem}.txt", "".join(f"{x}\n" for x in lines))
    write_text(labels / "classes.txt", "".join(f"{c}\n" for c in named.classes))


def write_labelme(folder: Path, named: Named) -> None:
    """Write NAME.json as labelme reads it: a polygon per thing, cut open to its holes."""
    height, width = named.mask.shape
    content = {
        "version": "5.5.0",
        "flags": {},
        "shapes": [
            {
                "label": named.classes[thing.class_id - 1],
                "points": opened(thing.outer, thing.holes).round(2).tolist(),
                "group_id": None,
                "shape_type": "polygon",
                "flags": {},
            }
            for thing in named.things
        ],
        "imagePath": _seen_from(folder, named.image),
        "imageData": None,
        "imageHeight": height,
        "imageWidth": width,
    }
    write_json(folder / f"{named.stem}.json", content)


def _seen_from(folder: Path, image: Path) -> str:
    """Path of an image from a folder; its name where it lies nowhere, or on another drive."""
    if not os.path.isfile(image):  # not of Path, which fails where a name is too long
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
        for thing in named.things
    ]
    content = {"type": "FeatureCollection", "features": features}
    write_json(folder / f"{named.stem}.geojson", content, None)


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
        write_picture(part / f"{named.stem}.png", Image.fromarray(grey), "PNG")


def write_coco(folder: Path, named: Named) -> None:
    """Write the part of coco.json for one image; `join_coco` joins the parts."""
    (folder / "coco").mkdir(exist_ok=True)
    height, width = named.mask.shape
    annotations = []
    for thing in named.things:
        (left, top), (rows, columns) = thing.corner, thing.part.shape
        counts = run_lengths(thing.part, thing.corner, (height, width))
        annotations.append(
            {
                "category_id": thing.class_id,
                "segmentation": {"size": [height, width], "counts": compressed(counts)},
                "area": int(thing.part.sum()),
                "bbox": [left, top, columns, rows],
                "iscrowd": 0,
                "score": named.confidence[named.classes[thing.class_id - 1]],
            }
        )
    content = {"file_name": named.image.name, "height": height, "width": width}
    part = {"image": content, "annotations": annotations, "classes": named.classes}
    write_json(folder / "coco" / f"{named.stem}.json", part, None)


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
