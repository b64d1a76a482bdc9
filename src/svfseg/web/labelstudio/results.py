"""What a labeling configuration offers, and results of annotations as masks and back."""

import math
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

import numpy as np

from svfseg.annotations.marks import draw_marks
from svfseg.data.images import Array
from svfseg.errors import InputError
from svfseg.segmenter import Segmentation
from svfseg.web.labelstudio.rle import decode_mask, encode_mask

Result = Mapping[str, Any]

_BRUSH = "BrushLabels"
_CONTROLS = (_BRUSH, "PolygonLabels", "RectangleLabels", "KeyPointLabels")


@dataclass(frozen=True)
class Labeling:
    """The part of a labeling configuration that is about masks of one image.

    Attributes:
        brush: name of the BrushLabels tag, which predictions are given to.
        image: name of the Image tag.
        key: of the image's address in the data of a task.
        labels: of the brush: the classes, in their order.
        controls: name of a tag that marks the image -> all labels it has.
    """

    brush: str
    image: str
    key: str
    labels: tuple[str, ...]
    controls: Mapping[str, tuple[str, ...]]


def read_labeling(config: str) -> Labeling:
    """Find the first BrushLabels tag of a configuration, its image and what else marks that.

    Args:
        config: the XML of the project's labeling interface.

    Raises:
        InputError: no XML, or no BrushLabels with labels for an Image with a variable.
    """
    try:
        root = ElementTree.fromstring(config)
    except ElementTree.ParseError as error:
        raise InputError(f"the labeling configuration is no XML ({error})") from None
    images = {tag.get("name"): tag.get("value", "") for tag in root.iter("Image")}
    tags = [tag for kind in _CONTROLS for tag in root.iter(kind) if tag.get("toName") in images]
    brush = next((tag for tag in tags if tag.tag == _BRUSH and _labels(tag)), None)
    if brush is None:
        raise InputError(
            "the labeling configuration has no BrushLabels with labels for an Image: add "
            '<BrushLabels name="tag" toName="image"><Label value="..."/></BrushLabels>'
        )
    image = brush.get("toName", "")
    if not images[image].startswith("$"):
        raise InputError(f"the Image {image} has the value {images[image]}: expected $NAME")
    controls = {tag.get("name", ""): _labels(tag) for tag in tags if tag.get("toName") == image}
    return Labeling(
        brush.get("name", ""), image, images[image].removeprefix("$"), _labels(brush), controls
    )


def _labels(tag: ElementTree.Element) -> tuple[str, ...]:
    # an alias is what annotations hold where there is one
    found = (label.get("alias") or label.get("value") for label in tag.iter("Label"))
    return tuple(name for name in found if name)


def marked_classes(results: Sequence[Result], labeling: Labeling) -> set[str]:
    """Labels of the brush that results of an annotation have.

    Raises:
        InputError: a label that the configuration does not have.
    """
    return {name for result in results for name in _names(result, labeling)}


def _names(result: Result, labeling: Labeling) -> list[str]:
    """Classes of a result; none of a result that is no mark of the image."""
    known = labeling.controls.get(result.get("from_name", ""))
    if known is None:
        return []
    given = result.get("value", {}).get(result.get("type", ""), [])
    unknown = [name for name in given if name not in known]
    if unknown:
        raise InputError(
            f"unknown label {unknown[0]}: the labeling configuration has {', '.join(known)}"
        )
    return [name for name in given if name in labeling.labels]


def draw_results(results: Sequence[Result], labeling: Labeling, image: Array) -> Array | None:
    """The mask of an annotation.

    Polygons, boxes and key points are drawn as `svfseg.annotations.marks.draw_marks` says, brushes
    over them; results of one label are united, the later label has what two claim.

    Args:
        results: of one annotation.
        labeling: what its project offers.
        image: (height, width, 3), the task's.

    Returns:
        (height, width) uint8: 0, 1 ... in the order of the labels, 255 unknown; None where
        nothing is marked.

    Raises:
        InputError: an unknown label, a damaged result, or one of another image.
    """
    height, width = image.shape[:2]
    marks: dict[str, list[dict[str, Any]]] = {}
    brushes = []
    for result in results:
        try:
            names = _names(result, labeling)
            if not names:
                continue
            _check_frame(result, image)
            if result["type"] == "brushlabels":
                inside = decode_mask(result["value"]["rle"], height, width)
                brushes += [(labeling.labels.index(name) + 1, inside) for name in names]
                continue
            kind, points = _points(result, width, height)
        except (AttributeError, KeyError, TypeError) as error:
            raise InputError(f"a result of the annotation is damaged ({error!r})") from None
        marks.setdefault(kind, []).extend(
            {"points": points, "class": labeling.labels.index(name) + 1} for name in names
        )
    mask = draw_marks(marks, image, len(labeling.labels)).copy()
    for class_id, inside in brushes:
        mask[inside] = class_id
    return mask if ((mask > 0) & (mask < 255)).any() else None


def _check_frame(result: Result, image: Array) -> None:
    height, width = image.shape[:2]
    drawn = result["original_width"], result["original_height"]
    if drawn != (width, height):
        raise InputError(
            f"the annotation was drawn on an image of {drawn[0]}x{drawn[1]}, this one has "
            f"{width}x{height}: import the image anew"
        )
    if result.get("image_rotation", 0):
        raise InputError(
            f"the image is turned by {result['image_rotation']} degrees in Label Studio: turn the "
            "file instead, and import it anew"
        )


def _points(result: Result, width: int, height: int) -> tuple[str, Any]:
    """Kind and pixels of a mark whose numbers are percents of the image's sides."""
    value, kind = result["value"], result["type"]
    scale = np.array((width, height)) / 100
    if kind == "polygonlabels":
        return "polygons", (np.array(value["points"], float) * scale).tolist()
    corner = np.array((value["x"], value["y"]), float) * scale
    if kind == "keypointlabels":
        return "clicks", corner.tolist()
    if kind != "rectanglelabels":
        raise InputError(f"a result is of type {kind}: expected one of {', '.join(_CONTROLS)}")
    # Label Studio turns a box around its first corner: what holds the turned one is the box
    turn = math.radians(value.get("rotation", 0))
    across = np.array((math.cos(turn), math.sin(turn))) * value["width"] * scale[0]
    down = np.array((-math.sin(turn), math.cos(turn))) * value["height"] * scale[1]
    corners = np.array([corner, corner + across, corner + down, corner + across + down])
    return "boxes", [*corners.min(axis=0).tolist(), *corners.max(axis=0).tolist()]


def as_prediction(found: Segmentation, labeling: Labeling, version: str) -> dict[str, Any]:
    """A prediction of Label Studio: one brush mask for each class that was found.

    Args:
        found: in the image.
        labeling: what its project offers; classes that it lost are left out.
        version: of the task.
    """
    height, width = found.mask.shape
    results = [
        {
            "id": uuid.uuid4().hex[:10],
            "from_name": labeling.brush,
            "to_name": labeling.image,
            "type": "brushlabels",
            "original_width": width,
            "original_height": height,
            "image_rotation": 0,
            "score": found.confidence[name],
            "value": {
                "format": "rle",
                "rle": encode_mask(found.mask == class_id),
                "brushlabels": [name],
            },
        }
        for class_id, name in enumerate(found.classes, start=1)
        if name in labeling.labels and (found.mask == class_id).any()
    ]
    return {"result": results, "score": found.least_confidence, "model_version": version}
