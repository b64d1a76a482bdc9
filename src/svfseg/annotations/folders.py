"""Find images, masks and class names in folders, lists and files."""

import csv
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from svfseg.annotations.labelme import marked_labels
from svfseg.data.folder import IMAGE_ENDS
from svfseg.data.images import image_size
from svfseg.errors import InputError, MissingFileError
from svfseg.files import read_text

logger = logging.getLogger(__name__)
# Images that are not read, and missed if nobody says so.
OTHER_ENDS = (".gif", ".heic", ".heif", ".avif", ".jp2", ".svg", ".psd", ".dcm", ".nii")


def find_images(places: Sequence[Path], none: bool = False) -> list[Path]:
    """List images of files and folders (not of folders in them), in order, each name once.

    Args:
        places: files and folders.
        none: whether there may be no image.

    Raises:
        MissingFileError: a path is not there.
        InputError: two images whose masks would have one name, or no image.
    """
    paths: list[Path] = []
    for path in places:
        if path.is_dir():
            inside = sorted(path.iterdir())
            paths += [p for p in inside if p.suffix.lower() in IMAGE_ENDS]
            other = [p.name for p in inside if p.suffix.lower() in OTHER_ENDS]
            if other and paths:
                logger.warning(
                    "left out %d file(s) that are not read, first %s: save them as PNG or JPEG",
                    len(other),
                    other[0],
                )
        elif path.is_file():
            paths.append(path)
        else:
            raise MissingFileError(f"there is no image or folder at {path}")
    by_name: dict[str, Path] = {}
    for path in dict.fromkeys(paths):
        if path.stem in by_name:
            raise InputError(
                f"{by_name[path.stem]} and {path} have one name: their masks would overwrite each "
                "other"
            )
        by_name[path.stem] = path
    if not by_name and not none:
        where, ends = ", ".join(map(str, places)), ", ".join(IMAGE_ENDS)
        raise InputError(f"no images in {where} ({ends}){_elsewhere(places)}")
    return list(by_name.values())


def _elsewhere(places: Sequence[Path]) -> str:
    """What folders without images hold instead, for a message."""
    inside = [p for folder in places if folder.is_dir() for p in sorted(folder.iterdir())]
    below = [
        p for p in inside if p.is_dir() and any(q.suffix.lower() in IMAGE_ENDS for q in p.iterdir())
    ]
    if below:
        return f": its folders have some; give {' '.join(map(str, below[:3]))}"
    others = sorted({p.suffix.lower() for p in inside if p.is_file() and p.suffix})
    return (
        f": found files of {', '.join(others[:5])} only; save them as PNG or JPEG" if others else ""
    )


def check_images(paths: Sequence[Path]) -> None:
    """Look at the head of every file, before anything is computed; some may be damaged.

    Raises:
        InputError: none is an image, the first ones named.
    """
    problems = []
    for path in paths:
        try:
            image_size(path)
        except (OSError, InputError) as error:
            problems.append(str(error))
    if problems and len(problems) == len(paths):
        more = f" (and {len(problems) - 3} more)" if len(problems) > 3 else ""
        raise InputError(f"{'; '.join(problems[:3])}{more}: give images")


class SupportFiles(NamedTuple):
    """Supports by their files.

    Attributes:
        images: paths of the images.
        masks: as many paths of masks, labelme files or marks; None for an image without any class.
        classes: names of the ids 1, 2 ... in the masks.
    """

    images: list[Path]
    masks: list[Path | None]
    classes: tuple[str, ...]


def find_supports(
    images: Sequence[Path], masks: Sequence[Path] = (), classes: Sequence[str] = ()
) -> SupportFiles:
    """Find supports in files, in one folder or in one list.

    Args:
        images: images; or one folder (images/, masks/ and classes.txt; or images with labelme's
            files beside them); or one list (.csv or .txt with a row "image,mask" per support, and
            no mask for an image without the class).
        masks: one mask per image, or the folder of masks that belongs to a folder of images.
        classes: names of the classes; by default those of classes.txt or of labelme's files, else
            "class".

    Raises:
        MissingFileError: an image of a folder has no mask, or a part of the folder is missing.
        InputError: there is no image, or the numbers of images and masks differ.

    Example:
        >>> from pathlib import Path
        >>> from PIL import Image
        >>> for folder in ("images", "masks"):
        ...     (Path("mine") / folder).mkdir(parents=True)
        ...     Image.new("L", (32, 32)).save(Path("mine") / folder / "a.png")
        >>> found = find_supports([Path("mine")], classes=["crack"])
        >>> [path.name for path in found.images], found.classes
        (['a.png'], ('crack',))
    """
    if not images:
        raise InputError("no support images: give images and masks, a folder, or a list")
    first, names = images[0], tuple(classes)
    image_paths: list[Path] = list(images)
    mask_paths: list[Path | None] = list(masks)
    if len(images) == 1 and first.is_dir():
        mask_folder = next((path for path in masks if path.is_dir()), None)
        image_paths, mask_paths, listed = _from_folder(first, mask_folder)
        names = names or listed
    elif len(images) == 1 and first.suffix.lower() in (".csv", ".txt") and first.is_file():
        image_paths, mask_paths = _from_list(first)
    elif len(images) != len(masks):
        raise InputError(
            f"found {len(images)} support image(s) and {len(masks)} mask(s): give one mask each"
        )
    drawn = [path for path in mask_paths if path is not None and path.suffix.lower() == ".json"]
    labels = dict.fromkeys(label for path in drawn for label in marked_labels(path))
    return SupportFiles(image_paths, mask_paths, names or tuple(labels) or ("class",))


def _from_folder(
    folder: Path, masks_in: Path | None
) -> tuple[list[Path], list[Path | None], tuple[str, ...]]:

    inside, beside = folder / "images", folder / "masks"
    if masks_in is not None:
        inside, beside = folder, masks_in
    elif not inside.is_dir() and not beside.is_dir():  # as labelme leaves a folder
        inside = beside = folder
    elif not inside.is_dir() or not beside.is_dir():
        raise MissingFileError(f"{folder} has only one of images/ and masks/: expected both")
    images = find_images([inside])
    masks: list[Path | None] = [_mask_of(path, beside) for path in images]
    missing = [path.name for path, mask in zip(images, masks, strict=True) if mask is None]
    if missing:
        raise MissingFileError(
            f"{len(missing)} of {len(images)} images in {folder} have no mask, first {missing[0]}: "
            "expected a .png in masks/ or a .json of labelme; give images without the class "
            "separately",
            settings=("negative",),
        )
    listed = folder / "classes.txt"
    lines = read_text(listed).splitlines() if listed.is_file() else []
    return images, masks, tuple(line.strip() for line in lines if line.strip())


def _mask_of(image: Path, folder: Path) -> Path | None:
    ends = (".json",) if folder == image.parent else (".png", ".json")
    return next((p for p in (folder / f"{image.stem}{e}" for e in ends) if p.is_file()), None)


def _from_list(path: Path) -> tuple[list[Path], list[Path | None]]:
    """Rows of image and mask, with paths as they are or beside the list."""
    images: list[Path] = []
    masks: list[Path | None] = []

    def placed(name: str) -> Path:
        return Path(name) if Path(name).exists() else path.parent / name

    with path.open(newline="") as file:
        for row in csv.reader(file, delimiter="," if path.suffix.lower() == ".csv" else " "):
            words = [word.strip() for word in row if word.strip()]
            if not words or words[0].startswith("#") or words[:2] == ["image", "mask"]:
                continue
            images.append(placed(words[0]))
            masks.append(placed(words[1]) if len(words) > 1 else None)
    if not images:
        raise InputError(f"{path} lists no images: expected image,mask per line")
    return images, masks
