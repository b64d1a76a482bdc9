"""The route of the service that outlines the classes of a task in an image."""

import base64
import copy
import io
import re
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

from fastapi import APIRouter, File, Query, Response, UploadFile
from PIL import Image
from pydantic import BaseModel, Field

from svfseg.annotations.writers import WRITERS, Named, join_coco, palette
from svfseg.data.images import Array
from svfseg.segmenter import FewShotSegmenter, Segmentation
from svfseg.web.routes.service_dependencies import (
    DAMAGED,
    UNKNOWN,
    AsDescribed,
    MetricsDep,
    Name,
    SettingsDep,
    TasksDep,
    WorkDep,
    binary_responses,
)
from svfseg.web.uploads import Sight, decode_image

MEDIA = {
    "png": "image/png",
    "geojson": "application/geo+json",
    "coco": "application/json",
    "labelme": "application/json",
    "yolo": "text/plain",
}

router = APIRouter(prefix="/tasks")


class Prediction(BaseModel):
    """What was found in an image."""

    width: int
    height: int
    classes: list[str]
    mask: str = Field(description="A PNG in base64: 0 is background, i the i-th class.")
    confidence: dict[str, float] = Field(
        description="How sure the answer for a class is, an empty mask too, in [0, 1]."
    )
    share: dict[str, float] = Field(description="Share of the image's pixels that a class has.")
    threshold: dict[str, float] = Field(
        description="Probability from which a pixel belongs to a class."
    )


@router.post(
    "/{name}/predict",
    summary="Outline a task's classes in an image",
    response_model=Prediction,
    responses={**binary_responses(*dict.fromkeys(MEDIA.values())), **UNKNOWN, **DAMAGED},
    dependencies=[AsDescribed],
    openapi_extra={"x-curl": "-F image=@photo.jpg"},
)
async def predict(
    name: Name,
    image: Annotated[UploadFile, File(description="The image.")],
    tasks: TasksDep,
    work: WorkDep,
    metrics: MetricsDep,
    settings: SettingsDep,
    format: Annotated[
        Literal["json", "png", "geojson", "coco", "labelme", "yolo"],
        Query(description="json holds the mask and what is known of it, png the mask alone."),
    ] = "json",
    threshold: Annotated[
        float | None,
        Query(
            gt=0,
            lt=1,
            description="Probability from which a pixel belongs to a class; by default the task's.",
        ),
    ] = None,
) -> Prediction | Response:
    """The answer is JSON, or the mask as a file in another format."""
    tasks.path(name)  # a request for an unknown task need not wait
    data = await image.read()

    def run() -> Prediction | Response:
        segmenter = _with_threshold(tasks.load(name), threshold)
        sight = Sight(segmenter.predictor_.size, segmenter.tile, segmenter.overlap)
        result = segmenter.predict(decode_image(data, settings.max_pixels, sight=sight))
        if format == "json":
            return _prediction(result, segmenter)
        # of YOLO's labels the name is nowhere, and "classes" would be that of another file
        path = Path("image") if format == "yolo" else _file_name(image.filename)
        named = Named(path, result.mask, result.classes, result.confidence)
        return Response(_in_format(named, format), media_type=MEDIA[format])

    answer = await work.run(work.predicting, run)
    metrics.images.inc()
    return answer


def _with_threshold(segmenter: FewShotSegmenter, threshold: float | None) -> FewShotSegmenter:
    if threshold is None:
        return segmenter
    own = copy.copy(segmenter)  # other requests use the same one
    own.thresholds_ = {i: replace(rule, threshold=threshold) for i, rule in own.thresholds_.items()}
    return own


def _prediction(result: Segmentation, segmenter: FewShotSegmenter) -> Prediction:
    ids = list(enumerate(result.classes, start=1))
    return Prediction(
        width=result.mask.shape[1],
        height=result.mask.shape[0],
        classes=list(result.classes),
        mask=base64.b64encode(_png(result.mask, len(ids))).decode(),
        confidence=result.confidence,
        share={name: round(float((result.mask == i).mean()), 5) for i, name in ids},
        threshold={name: segmenter.thresholds_[i].threshold for i, name in ids},
    )


def _in_format(named: Named, kind: str) -> bytes:
    """The bytes of a mask as a file for another program."""
    if kind == "png":
        return _png(named.mask, len(named.classes))
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        WRITERS[kind](folder, named)
        if kind == "coco":
            return join_coco(folder).read_bytes()
        # YOLO's labels lie in a folder, beside the names of the classes
        return next(p for p in folder.rglob(f"{named.stem}.*") if p.is_file()).read_bytes()


def _png(mask: Array, classes: int) -> bytes:
    """A palette image: its values are the ids, and its colours tell them apart."""
    image, file = Image.fromarray(mask), io.BytesIO()
    image.putpalette([channel for color in palette(classes) for channel in color])
    image.save(file, "PNG")
    return file.getvalue()


def _file_name(sent: str | None) -> Path:
    """The name of an uploaded file, safe to use for a file of this machine."""
    name = re.split(r"[/\\]", sent or "")[-1]
    return Path(re.sub(r"[^\w .-]", "_", name)[-100:].strip(". ") or "image")
