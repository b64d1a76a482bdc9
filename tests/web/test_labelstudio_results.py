"""Regions of Label Studio as masks: every type is drawn or refused, and none is "nothing here"."""

import base64
import io
import logging

import numpy as np
import pytest
from PIL import Image

from svfseg.errors import InputError
from svfseg.web.labelstudio.results import draw_results, read_labeling

TAGS = ("Brush", "Polygon", "Rectangle", "KeyPoint", "Ellipse", "Bitmask", "Vector")
CONFIG = "<View><Image name='image' value='$image'/>" + "".join(
    f"<{tag}Labels name='{tag.lower()}' toName='image'><Label value='disc'/></{tag}Labels>"
    for tag in TAGS
) + "<Choices name='choice' toName='image'><Choice value='a'/></Choices></View>"  # fmt: skip
LABELING = read_labeling(CONFIG)
HEIGHT, WIDTH = 90, 120
IMAGE = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
SQUARE = [[10, 10], [50, 10], [50, 50], [10, 50]]


def region(tag: str, kind: str | None = None, label: str | None = "disc", **value: object) -> dict:
    kind = f"{tag}labels" if kind is None else kind
    labels = {} if label is None else {kind: [label]}
    return {
        "from_name": tag, "to_name": "image", "type": kind, "original_width": WIDTH,
        "original_height": HEIGHT, "value": {**value, **labels},
    }  # fmt: skip


@pytest.mark.parametrize("turn", [0, 30, 90])
def test_ellipses_are_drawn(turn: float) -> None:
    found = draw_results(
        [region("ellipse", x=50, y=50, radiusX=25, radiusY=20, rotation=turn)], LABELING, IMAGE
    )
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    angle = np.radians(turn)
    x, y = columns - 60, rows - 45
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    wanted = (along / 30) ** 2 + (across / 18) ** 2 <= 1
    inside = found == 1
    assert (inside & wanted).sum() / (inside | wanted).sum() > 0.95


def test_bitmasks_are_drawn() -> None:
    values = np.zeros((HEIGHT, WIDTH, 4), np.uint8)
    values[20:40, 30:60] = 255
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "PNG")
    address = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
    found = draw_results([region("bitmask", imageDataURL=address)], LABELING, IMAGE)
    assert np.array_equal(found == 1, values[..., 0] > 0)
    small = np.zeros((HEIGHT + 1, WIDTH, 3), np.uint8)
    wrong = {**region("bitmask", imageDataURL=address), "original_height": HEIGHT + 1}
    with pytest.raises(InputError, match="a bitmask is of 120x90, its image of 120x91"):
        draw_results([wrong], LABELING, small)


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (region("brush", "brush", None, rle=[0]), "has no label"),
        (region("polygon", label=None, points=SQUARE), "has no label"),
        (region("vector", vertices=[{"x": 1, "y": 2}], closed=True), "type vectorlabels"),
        (region("video", "videorectangle", None, sequence=[1]), "type videorectangle"),
        (region("cuboid", "cuboid", None, x=1), "type cuboid"),
        (region("bitmask", imageDataURL="file:///etc/passwd"), "not an image in base64"),
    ],
)
def test_what_is_not_understood_is_never_an_image_without_the_class(
    result: dict, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        draw_results([result], LABELING, IMAGE)


def test_a_degenerate_region_beside_good_ones_is_passed_over(
    caplog: pytest.LogCaptureFixture,
) -> None:
    good, two = region("polygon", points=SQUARE), region("polygon", points=SQUARE[:2])
    with caplog.at_level(logging.WARNING):
        both = draw_results([two, good], LABELING, IMAGE)
    assert np.array_equal(both, draw_results([good], LABELING, IMAGE))
    assert "polygon of 2 point(s) is left out" in caplog.text


def test_answers_of_the_whole_image_are_no_regions() -> None:
    choice = {"from_name": "choice", "to_name": "image", "type": "choices",
              "value": {"choices": ["a"]}}  # fmt: skip
    assert draw_results([choice], LABELING, IMAGE) is None
