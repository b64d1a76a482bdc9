"""Pascal-5i: the 20 classes of VOC 2012 in four folds of five (Shaban et al., BMVC 2017)."""

from collections.abc import Iterable
from pathlib import Path

from svfseg.data.images import check_same_size, read_image
from svfseg.data.index import (
    SET_ROOT,
    Index,
    Sample,
    class_pixels,
    count_pixels,
    read_list,
)
from svfseg.data.masks import read_mask
from svfseg.data.verify import ListReport, list_report
from svfseg.errors import InputError, MissingFileError

CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle",
    "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person",
    "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
FOLDS = tuple(tuple(range(5 * fold + 1, 5 * fold + 6)) for fold in range(4))


def pascal5i(root: str | Path, lists: Iterable[str]) -> Index:
    """Index one or more image lists of a VOC2012 folder.

    Args:
        root: the folder with JPEGImages, ImageSets, and SegmentationClassAug (the SBD-augmented
            masks) or SegmentationClass.
        lists: names in ImageSets/Segmentation ("val"), or files; an image in two lists counts once.

    Raises:
        MissingFileError: the tree, a list, or a mask is missing.
        InputError: an empty list, or masks that cannot be read.
    """
    root, lists = Path(root), tuple(lists)
    masks = mask_folder(root)
    names = tuple(dict.fromkeys(name for one in lists for name in read_list(find_list(root, one))))
    label = f"pascal5i {'+'.join(Path(one).stem for one in lists)}"

    def load(position: int) -> Sample:
        name = names[position]
        image = read_image(root / "JPEGImages" / f"{name}.jpg")
        return Sample(image, read_mask(masks / f"{name}.png"))

    return Index(
        name=label,
        classes=CLASSES,
        folds=FOLDS,
        items=names,
        pixels=count_pixels([masks / f"{name}.png" for name in names], label),
        load=load,
    )


def mask_folder(root: Path) -> Path:
    """Find the folder of the masks in a VOC2012 folder.

    Raises:
        MissingFileError: the tree is not there, or has none.
    """
    for name in ("SegmentationClassAug", "SegmentationClass"):
        if (root / name).is_dir():
            return root / name
    raise MissingFileError(
        f"no VOC2012 at {root or '(empty path)'}: expected a folder with JPEGImages, ImageSets and "
        f"SegmentationClassAug; {SET_ROOT}"
    )


def find_list(root: Path, name: str) -> Path:
    """Find the file of a list given by name or path.

    Raises:
        MissingFileError: neither is there; names the lists that are.
    """
    folder = root / "ImageSets" / "Segmentation"
    for path in (folder / f"{name}.txt", Path(name)):
        if path.is_file():
            return path
    there = sorted(path.stem for path in folder.glob("*.txt"))
    raise MissingFileError(f"no image list {name} in {folder}: it holds {', '.join(there)}")


def verify(root: str | Path, name: str) -> ListReport:
    """Decode every image and mask of a list and count classes and folds.

    Raises:
        MissingFileError: no such tree or list.
    """
    root = Path(root)
    masks = mask_folder(root)
    names = read_list(find_list(root, name))
    problems, pixels, readable = [], [], []
    for item in names:
        try:
            image = read_image(root / "JPEGImages" / f"{item}.jpg")
            mask = read_mask(masks / f"{item}.png")
            check_same_size(image, mask, item)
        except (OSError, InputError) as error:
            problems.append(str(error))
            continue
        counts = class_pixels(mask)
        unknown = sorted(set(counts) - set(range(1, len(CLASSES) + 1)))
        if unknown:
            problems.append(f"{item}: the mask holds unknown ids {unknown}")
            continue
        readable.append(item)
        pixels.append(counts)

    def unused(position: int) -> Sample:
        raise NotImplementedError

    index = Index(f"pascal5i {name}", CLASSES, FOLDS, tuple(readable), tuple(pixels), unused)
    return list_report(index, name, len(names), problems)
