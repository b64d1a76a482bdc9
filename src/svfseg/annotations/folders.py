"""Find images, masks and class names in folders, lists and files."""

import logging
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

from svfseg.annotations.lists import read_list
from svfseg.annotations.marks_files import MARK_ENDS, marked_labels
from svfseg.data.folder import IMAGE_ENDS, LOSSY_ENDS, MASK_ENDS, by_name, mask_of
from svfseg.data.images import image_size
from svfseg.errors import InputError, MissingFileError
from svfseg.files import LIST_ENDS, read_text

logger = logging.getLogger(__name__)
# Files that lie beside images and that nobody misses.
_NO_IMAGES = ("classes.txt", "thumbs.db", "desktop.ini")


def find_images(places: Sequence[Path], none: bool = False, tell: bool = True) -> list[Path]:
    """List images of files and folders (not of folders in them), in order, each name once.

    Names that begin with a dot are passed over; other files of a folder that are not read are
    counted in a warning.

    Args:
        places: files and folders.
        none: whether there may be no image.
        tell: warn of files in the folders that are not read.

    Raises:
        MissingFileError: a path is not there.
        InputError: two images whose masks would have one name, or no image.
    """
    by_stem: dict[str, Path] = {}
    for path in images_in(places, tell):
        if path.stem in by_stem:
            raise InputError(
                f"{by_stem[path.stem]} and {path} have one name: their masks would overwrite each "
                "other"
            )
        by_stem[path.stem] = path
    if not by_stem and not none:
        where, ends = ", ".join(map(str, places)), ", ".join(IMAGE_ENDS)
        raise InputError(f"no images in {where} ({ends}){_elsewhere(places)}")
    return list(by_stem.values())


def images_in(places: Sequence[Path], tell: bool = True) -> list[Path]:
    """List images of files and folders, in order, whatever their names.

    Args:
        places: files and folders.
        tell: warn of files in the folders that are not read.

    Raises:
        MissingFileError: a path is not there.
    """
    paths: list[Path] = []
    for place in places:
        if not place.is_dir():
            if not place.exists():
                raise MissingFileError(f"there is no image or folder at {place}")
            paths.append(place)
            continue
        inside = _inside(place)
        images = [path for path in inside if path.suffix.lower() in IMAGE_ENDS]
        if tell and images:
            _tell_of_others(place, inside, {path.stem for path in images})
        paths += images
    return list(dict.fromkeys(paths))


def _inside(folder: Path) -> list[Path]:
    """Files of a folder in order, without hidden ones (macOS leaves ._NAME beside each)."""
    return [p for p in sorted(folder.iterdir()) if not p.name.startswith(".") and not p.is_dir()]


def _tell_of_others(folder: Path, inside: Sequence[Path], stems: Collection[str]) -> None:
    """Warn of files that are not read, once for all of them."""
    rest = [path for path in inside if path.suffix.lower() not in IMAGE_ENDS]
    other = [path for path in rest if not _is_beside(path, stems)]
    if other:
        logger.warning(
            "left out %d file(s) of %s that are not images that are read, first %s: save them as "
            "PNG or JPEG", len(other), folder, other[0].name,
        )  # fmt: skip


def _is_beside(path: Path, stems: Collection[str]) -> bool:
    """Whether a file belongs to an image, or to the system, and nobody misses it."""
    return path.name.lower() in _NO_IMAGES or (
        path.suffix.lower() in MARK_ENDS and path.stem in stems
    )


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
            files or masks beside them); or one list (.csv, .tsv or .txt with a row
            "image,mask" per support, and no mask for an image without the class).
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
    elif len(images) == 1 and first.suffix.lower() in LIST_ENDS and first.is_file():
        image_paths, mask_paths = read_list(first)
    elif len(images) != len(masks):
        raise InputError(
            f"found {len(images)} support image(s) and {len(masks)} mask(s): give one mask each"
        )
    drawn = [path for path in mask_paths if path is not None and path.suffix.lower() in MARK_ENDS]
    labels = dict.fromkeys(label for path in drawn for label in marked_labels(path))
    return SupportFiles(image_paths, mask_paths, names or tuple(labels) or ("class",))


def _from_folder(
    folder: Path, masks_in: Path | None
) -> tuple[list[Path], list[Path | None], tuple[str, ...]]:
    inside, beside = (folder, masks_in) if masks_in is not None else _parts(folder)
    if inside == beside and not any(p.suffix.lower() == ".json" for p in _inside(inside)):
        images, masks = _side_by_side(images_in([inside]))
    else:
        images = find_images([inside])
        files = by_name(_inside(beside))
        masks = [
            files.get(f"{path.stem}.json".casefold())  # beside an image lies another image
            if beside == path.parent
            else mask_of(path, files, (*MASK_ENDS, *MARK_ENDS))
            for path in images
        ]
    if not images:
        find_images([inside])  # says what is there instead
    missing = [path.name for path, mask in zip(images, masks, strict=True) if mask is None]
    if missing:
        name = Path(missing[0]).stem
        raise MissingFileError(
            f"{len(missing)} of {len(images)} images in {folder} have no mask, first {missing[0]}: "
            f"expected {name}.png, {name}_mask.png or mask_{name}.png in {beside.name}/ (or .tif, "
            f".bmp, .gif), or {name}.json of labelme; give images without the class separately",
            settings=("negative",),
        )
    named = (folder / "classes.txt", beside / "classes.txt")
    listed = next((path for path in named if path.is_file()), None)
    lines = read_text(listed).splitlines() if listed is not None else []
    return images, masks, tuple(line.strip() for line in lines if line.strip())


# Folders of images and of their masks or marks, as people name them.
_LAYOUTS = (("images", "masks"), ("images", "labels"), ("JPEGImages", "SegmentationClass"))


def _parts(folder: Path) -> tuple[Path, Path]:
    """The folders of images and of masks in a folder; the folder itself where labelme left it."""
    for images, masks in _LAYOUTS:
        if (folder / images).is_dir() and (folder / masks).is_dir():
            return folder / images, folder / masks
    if (folder / "images").is_dir() or (folder / "masks").is_dir():
        raise MissingFileError(f"{folder} has only one of images/ and masks/: expected both")
    return folder, folder


def _side_by_side(paths: Sequence[Path]) -> tuple[list[Path], list[Path | None]]:
    """Part images from masks that lie in one folder: a.jpg and a.png, or a.jpg and a_mask.png."""
    files = by_name(paths)
    masks: dict[Path, Path] = {}
    for path in paths:
        lossy = path.suffix.lower() in LOSSY_ENDS
        names = [f"{path.stem}_mask{end}" for end in MASK_ENDS]
        names += [f"mask_{path.stem}{end}" for end in MASK_ENDS]
        names += [f"{path.stem}{end}" for end in MASK_ENDS if lossy and end not in LOSSY_ENDS]
        found = next((files[n.casefold()] for n in names if n.casefold() in files), None)
        if found is not None:
            masks[path] = found
    taken = set(masks.values())
    images = [path for path in paths if path not in taken]
    return images, [masks.get(path) for path in images]
