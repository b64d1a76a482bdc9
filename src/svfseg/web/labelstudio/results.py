"""Read labeling configurations, and convert results of annotations to masks and back."""

import logging
import math
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar
from xml.etree import ElementTree

import numpy as np
from pydantic import BaseModel, FiniteFloat, ValidationError
from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

from svfseg.annotations.marks import draw_marks
from svfseg.data.images import Array, decoded
from svfseg.data.opening import open_picture
from svfseg.errors import InputError
from svfseg.segmenter import Segmentation
from svfseg.web.labelstudio.images import decode_address
from svfseg.web.labelstudio.rle import Mask, decode_mask, encode_mask
from svfseg.web.validation import first_problem

logger = logging.getLogger(__name__)
M = TypeVar("M", bound=BaseModel)
# A result as Label Studio sends it: anything, until it is read.
ResultJson = object

_BRUSH = "BrushLabels"
_CONTROLS = (
    _BRUSH, "PolygonLabels", "RectangleLabels", "KeyPointLabels", "EllipseLabels", "BitmaskLabels",
)  # fmt: skip
# Results that say something of the image as a whole, or of other results.
_NO_REGIONS = frozenset((
    "choices", "taxonomy", "rating", "number", "textarea", "datetime", "ranker", "relation",
    "pairwise", "chatmessage",
))  # fmt: skip
_CORNERS = 128  # of an ellipse


class _Result(BaseModel):
    """What every result may hold; a result that is not a mark of the image may lack all of it."""

    from_name: str | None = None
    to_name: str | None = None
    type: str | None = None
    value: dict[str, Any] = {}


class _Frame(BaseModel):
    """The image that a result was drawn on."""

    original_width: int
    original_height: int
    image_rotation: float | None = None


class _Brush(BaseModel):
    rle: list[Any]


class _Polygon(BaseModel):
    points: list[tuple[FiniteFloat, FiniteFloat]]


class _Ellipse(BaseModel):
    x: FiniteFloat
    y: FiniteFloat
    radiusX: FiniteFloat  # noqa: N815 (Label Studio's name)
    radiusY: FiniteFloat  # noqa: N815
    rotation: FiniteFloat = 0


class _Bitmask(BaseModel):
    imageDataURL: str  # noqa: N815


class _KeyPoint(BaseModel):
    x: FiniteFloat
    y: FiniteFloat


class _Box(_KeyPoint):
    width: FiniteFloat
    height: FiniteFloat
    rotation: FiniteFloat = 0


class _Labels(BaseModel):
    labels: list[str]


class _Mark(NamedTuple):
    """A mark in pixels; its kind is one of `svfseg.annotations.marks.KINDS`, or "brush"."""

    kind: str
    points: list[Any]
    inside: Mask | None = None


class BrushValue(TypedDict):
    """A brush mask of one label."""

    format: str
    rle: list[int]
    brushlabels: list[str]


class BrushResult(TypedDict):
    """A result of a prediction: the mask of one class."""

    id: str
    from_name: str
    to_name: str
    type: str
    original_width: int
    original_height: int
    image_rotation: int
    score: float
    value: BrushValue


class Prediction(TypedDict):
    """A prediction of a task, as Label Studio reads it."""

    result: list[BrushResult]
    score: float
    model_version: str


@dataclass(frozen=True)
class Labeling:
    """The part of a labeling configuration that is about masks of one image.

    Attributes:
        brush: name of the BrushLabels tag, which predictions use.
        image: name of the Image tag.
        key: the key of the image's address in the data of a task.
        labels: labels of the brush, which are the classes, in their order.
        controls: name of a tag that marks the image -> all its labels.
    """

    brush: str
    image: str
    key: str
    labels: tuple[str, ...]
    controls: Mapping[str, tuple[str, ...]]


def read_labeling(config: str) -> Labeling:
    """Find the first BrushLabels tag of a configuration, its image, and what else marks that image.

    Args:
        config: the XML of the project's labeling interface.

    Raises:
        InputError: it is not XML, or has no BrushLabels with labels for an Image with a variable.
    """
    try:
        root = ElementTree.fromstring(config)
    except (ElementTree.ParseError, ValueError) as error:  # ValueError of text that is not Unicode
        raise InputError(f"the labeling configuration is not XML ({error})") from None
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
    names = (label.get("alias") or label.get("value") for label in tag.iter("Label"))
    return tuple(name for name in names if name)


def marked_classes(results: Sequence[ResultJson], labeling: Labeling) -> set[str]:
    """Give the labels of the brush that results of an annotation have.

    Raises:
        InputError: a damaged result, or a label that the configuration does not have.
    """
    return {name for result in results for name in _names(_read(_Result, result), labeling)}


def draw_results(results: Sequence[ResultJson], labeling: Labeling, image: Array) -> Array | None:
    """Draw the mask of an annotation.

    Polygons, boxes and key points are drawn as `svfseg.annotations.marks.draw_marks` says, brushes
    over them. Results of one label are united; where two labels overlap, the later one counts.

    Args:
        results: results of one annotation.
        labeling: what its project offers.
        image: (height, width, 3) uint8, the image of the task.

    Returns:
        (height, width) uint8: 0, 1 ... in the order of the labels, 255 unknown; None where
        nothing is marked.

    Raises:
        InputError: an unknown label, a damaged result, or one of another image.
    """
    marks: dict[str, list[dict[str, Any]]] = {}
    brushes = []
    degenerate = None
    for content in results:
        result = _read(_Result, content)
        ids = [labeling.labels.index(name) + 1 for name in _names(result, labeling)]
        if not ids:
            continue
        _check_frame(_read(_Frame, content), image)
        mark = _mark(result, image)
        if mark.kind == "polygons" and len(mark.points) < 3:
            logger.warning("a polygon of %d point(s) is left out", len(mark.points))
            degenerate = len(mark.points)
            continue
        if mark.inside is not None:
            brushes += [(class_id, mark.inside) for class_id in ids]
        else:
            marks.setdefault(mark.kind, []).extend(
                {"points": mark.points, "class": class_id} for class_id in ids
            )
    if degenerate is not None and not marks and not brushes:
        raise InputError(f"a polygon has {degenerate} points: expected 3 or more")
    mask = draw_marks(marks, image, len(labeling.labels)).copy()
    for class_id, inside in brushes:
        mask[inside] = class_id
    return mask if ((mask > 0) & (mask < 255)).any() else None


def _read(kind: type[M], content: object) -> M:
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        raise InputError(
            f"a result of the annotation is damaged ({first_problem(error)})"
        ) from error


def _names(result: _Result, labeling: Labeling) -> list[str]:
    """Classes of a result; none of a result that is not a mark of the image."""
    kind = result.type or ""
    known = labeling.controls.get(result.from_name or "")
    is_region = result.to_name == labeling.image and kind not in _NO_REGIONS
    if known is None:
        if is_region and result.value:
            raise InputError(
                f"a region is of the type {kind}, of a tag {result.from_name} that gives it no "
                f"label: expected one of {', '.join(_CONTROLS).lower()}"
            )
        return []
    names = _read(_Labels, {"labels": result.value.get(kind) or []}).labels
    if not names and is_region:
        raise InputError(f"a region of {result.from_name} ({kind}) has no label: give it one")
    unknown = [name for name in names if name not in known]
    if unknown:
        raise InputError(
            f"unknown label {unknown[0]}: the labeling configuration has {', '.join(known)}"
        )
    return [name for name in names if name in labeling.labels]


def _check_frame(frame: _Frame, image: Array) -> None:
    height, width = image.shape[:2]
    if (frame.original_width, frame.original_height) != (width, height):
        raise InputError(
            f"the annotation was drawn on an image of {frame.original_width}x"
            f"{frame.original_height}, this one has {width}x{height}: import the image again"
        )
    if frame.image_rotation:
        raise InputError(
            f"the image is turned by {frame.image_rotation:g} degrees in Label Studio: turn the "
            "file instead, and import it again"
        )


def _mark(result: _Result, image: Array) -> _Mark:
    """The pixels of a mark whose numbers are percents of the image's sides."""
    height, width = image.shape[:2]
    scale = np.array((width, height)) / 100
    if result.type == "brushlabels":
        return _Mark("brush", [], decode_mask(_read(_Brush, result.value).rle, height, width))
    if result.type == "polygonlabels":
        points = np.array(_read(_Polygon, result.value).points, float).reshape(-1, 2)
        return _Mark("polygons", (points * scale).tolist())
    if result.type == "ellipselabels":
        ellipse = _read(_Ellipse, result.value)
        turns = np.linspace(0, 2 * np.pi, _CORNERS, endpoint=False)
        round_ = np.stack([np.cos(turns), np.sin(turns)], axis=1)
        round_ *= np.array((ellipse.radiusX, ellipse.radiusY)) * scale
        angle = math.radians(ellipse.rotation)
        turn_ = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
        return _Mark(
            "polygons", (round_ @ turn_ + np.array((ellipse.x, ellipse.y)) * scale).tolist()
        )
    if result.type == "bitmasklabels":
        return _Mark("brush", [], _bitmask(_read(_Bitmask, result.value).imageDataURL, image))
    if result.type == "keypointlabels":
        point = _read(_KeyPoint, result.value)
        return _Mark("clicks", (np.array((point.x, point.y)) * scale).tolist())
    if result.type != "rectanglelabels":
        raise InputError(
            f"a result is of type {result.type}: expected one of {', '.join(_CONTROLS).lower()}"
        )
    box = _read(_Box, result.value)
    # Label Studio turns a box around its first corner; the box that holds the turned one is taken
    corner = np.array((box.x, box.y)) * scale
    turn = math.radians(box.rotation)
    across = np.array((math.cos(turn), math.sin(turn))) * box.width * scale[0]
    down = np.array((-math.sin(turn), math.cos(turn))) * box.height * scale[1]
    corners = np.array([corner, corner + across, corner + down, corner + across + down])
    return _Mark("boxes", [*corners.min(axis=0).tolist(), *corners.max(axis=0).tolist()])


def _bitmask(address: str, image: Array) -> Mask:
    """Decode a mask that a result holds as a picture: what is neither black nor clear is inside."""
    content = decode_address(address)
    with open_picture(content, "a bitmask", max_pixels=image.shape[0] * image.shape[1]) as opened:
        values = decoded(lambda: np.asarray(opened.convert("RGBA")), "a bitmask")
    if values.shape[:2] != image.shape[:2]:
        raise InputError(
            f"a bitmask is of {values.shape[1]}x{values.shape[0]}, its image of "
            f"{image.shape[1]}x{image.shape[0]}"
        )
    inside: Mask = (values[..., 3] > 0) & (values[..., :3].max(axis=2) > 0)
    return inside


def make_prediction(segmentation: Segmentation, labeling: Labeling, version: str) -> Prediction:
    """Make a prediction of Label Studio: one brush mask for each class that was found.

    Args:
        segmentation: segmentation of the image.
        labeling: what the project offers; classes that it has no more are left out.
        version: version of the fitted task.
    """
    height, width = segmentation.mask.shape
    results: list[BrushResult] = [
        {
            "id": uuid.uuid4().hex[:10],
            "from_name": labeling.brush,
            "to_name": labeling.image,
            "type": "brushlabels",
            "original_width": width,
            "original_height": height,
            "image_rotation": 0,
            "score": segmentation.confidence[name],
            "value": {
                "format": "rle",
                "rle": encode_mask(segmentation.mask == class_id),
                "brushlabels": [name],
            },
        }
        for class_id, name in enumerate(segmentation.classes, start=1)
        if name in labeling.labels and (segmentation.mask == class_id).any()
    ]
    return {"result": results, "score": segmentation.least_confidence, "model_version": version}
