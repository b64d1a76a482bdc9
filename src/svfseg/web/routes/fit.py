"""The route of the service that fits a task."""

import asyncio
from collections.abc import Sequence
from typing import Annotated, Literal

from fastapi import APIRouter, File, Form, UploadFile

from svfseg.annotations.inputs import MaskLike
from svfseg.data.images import Array
from svfseg.data.masks import turned_with
from svfseg.data.opening import open_picture
from svfseg.errors import InputError
from svfseg.segmenter import FewShotSegmenter
from svfseg.web.routes.service_dependencies import (
    DAMAGED,
    AsDescribed,
    ClassName,
    Name,
    SettingsDep,
    TasksDep,
    WorkDep,
)
from svfseg.web.tasks import MAX_SIZE, TaskInfo
from svfseg.web.uploads import (
    Sight,
    decode_image,
    decode_labelme,
    decode_mask,
    is_labelme,
    read_sides,
)

# The images of one fit may have this many times the pixels that one image may have.
FIT_IMAGES = 8

router = APIRouter(prefix="/tasks")


@router.post(
    "/{name}/fit",
    summary="Fit a task on marked images",
    responses=DAMAGED,
    dependencies=[AsDescribed],
    openapi_extra={
        "x-curl": "-F images=@a.jpg -F masks=@a.png -F images=@b.jpg -F masks=@b.png "
        "-F negatives=@without.jpg -F classes=crack"
    },
)
async def fit(
    name: Name,
    images: Annotated[list[UploadFile], File(description="Images that show the classes.")],
    masks: Annotated[
        list[UploadFile],
        File(
            description="The masks of these images, in the same order: PNG files of class ids, or "
            "files of labelme."
        ),
    ],
    tasks: TasksDep,
    work: WorkDep,
    settings: SettingsDep,
    negatives: Annotated[
        list[UploadFile] | None, File(description="Images that show none of the classes.")
    ] = None,
    classes: Annotated[
        list[ClassName] | None,
        Form(description="Names of the ids 1, 2 ... in the masks; by default one class."),
    ] = None,
    seconds: Annotated[
        float,
        Form(
            ge=0,
            le=600,
            description="Time that fitting to the images may take; 0 compares with them alone.",
        ),
    ] = 60.0,
    adapt: Annotated[
        Literal["none", "svf", "norm", "lora", "full"],
        Form(description="Which weights are tuned on the images."),
    ] = "none",
    steps: Annotated[
        int | None,
        Form(ge=0, le=1000, description="Steps of the tuning; by default chosen on the images."),
    ] = None,
    lr: Annotated[
        float | None,
        Form(
            gt=0, le=100, description="Learning rate of the tuning; by default that of its preset."
        ),
    ] = None,
    size: Annotated[
        int | None,
        Form(
            ge=32,
            le=MAX_SIZE,
            description="Side that images or tiles are resized to, pixels; by default the model's.",
        ),
    ] = None,
    tile: Annotated[
        bool, Form(description="Whether images are cut into squares of that side.")
    ] = False,
    threshold: Annotated[
        float | None,
        Form(
            gt=0,
            lt=1,
            description="Probability from which a pixel belongs to a class; by default chosen on "
            "the images.",
        ),
    ] = None,
    seed: Annotated[int, Form(ge=0, lt=2**31, description="Seed of all random choices.")] = 0,
) -> TaskInfo:
    """A task of that name is replaced."""
    if len(images) != len(masks):
        raise InputError(
            f"found {len(images)} images and {len(masks)} masks: send one mask for each image, "
            "in the same order; images without the classes are negatives"
        )
    segmenter = FewShotSegmenter(
        settings.model, adapt=None if adapt == "none" else adapt, steps=steps, lr=lr, size=size,
        tile=tile, seconds=seconds, threshold=threshold, device=settings.device, seed=seed,
    )  # fmt: skip
    image_files = [await each.read() for each in (*images, *(negatives or ()))]
    mask_files = [await each.read() for each in masks]

    names = classes or ["class"]
    sight = Sight(size or tasks.size, tile)

    def run() -> None:
        pixels, marked = _supports(image_files, mask_files, settings.max_pixels, sight, names)
        segmenter.fit(pixels, marked, names)
        tasks.save(name, segmenter)

    await work.run(work.fitting, run)
    return await asyncio.to_thread(tasks.info, name)


def _supports(
    images: Sequence[bytes],
    masks: Sequence[bytes],
    max_pixels: int,
    sight: Sight,
    names: Sequence[str],
) -> tuple[list[Array], list[MaskLike]]:
    """Pixels and masks of a fit; the images after the last mask are negatives, and have None."""
    _check_headers(images, masks, max_pixels, sight)
    pixels = [
        decode_image(data, max_pixels, f"image {i}", sight) for i, data in enumerate(images, 1)
    ]
    marked: list[MaskLike] = []
    for i, (sent, data, image) in enumerate(zip(images, masks, pixels, strict=False), start=1):
        name = f"mask {i}"
        if is_labelme(data):
            marked.append(decode_labelme(data, image, names, max_pixels, name))
            continue
        ids = decode_mask(data, max_pixels, name, blurred=len(names) == 1)
        with open_picture(sent, f"image {i}", max_pixels=max_pixels) as picture:
            marked.append(turned_with(image, ids, picture, name))
    return pixels, marked + [None] * (len(images) - len(masks))


def _check_headers(
    images: Sequence[bytes], masks: Sequence[bytes], max_pixels: int, sight: Sight
) -> None:
    """Raise InputError for what would fill the memory, before anything is decoded."""
    sides = [read_sides(data, max_pixels, f"image {i}", sight) for i, data in enumerate(images, 1)]
    total, most = sum(width * height for width, height in sides), FIT_IMAGES * max_pixels
    if total > most:
        raise InputError(
            f"the images have {total / 1e6:.3g} million pixels in all, expected at most {most:,}: "
            "send fewer of them, or smaller ones"
        )
    for i, (data, own) in enumerate(zip(masks, sides, strict=False), start=1):
        if is_labelme(data):
            continue
        found = read_sides(data, max_pixels, f"mask {i}")
        if sorted(found) != sorted(own):  # either may be turned
            raise InputError(
                f"mask {i}: the image is {own[0]}x{own[1]}, its mask {found[0]}x{found[1]}; both "
                "must be one size"
            )
