"""Your own annotated folder: images/NAME.jpg, masks/NAME.png, classes.txt."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from svfseg.data.images import check_same_size, read_image
from svfseg.data.index import SET_ROOT, Index, Pixels, Sample, class_pixels
from svfseg.data.masks import read_mask, turned_with
from svfseg.errors import InputError, MissingFileError
from svfseg.files import read_text

IMAGE_ENDS = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".tif", ".tiff", ".webp")


# What is compressed with loss is no mask of several classes, so it is looked for last.
LOSSY_ENDS = (".jpg", ".jpeg", ".webp")
MASK_ENDS = (".png", ".tif", ".tiff", ".bmp", ".gif", *LOSSY_ENDS)


def by_name(paths: Iterable[Path]) -> dict[str, Path]:
    """Give files by their names, in letters of one case."""
    return {path.name.casefold(): path for path in paths}


def mask_of(image: Path, files: Mapping[str, Path], ends: Sequence[str] = MASK_ENDS) -> Path | None:
    """Find the mask of an image by its name: NAME, NAME_mask, mask_NAME, or the image's whole name.

    Args:
        image: path of the image.
        files: what `by_name` gave.
        ends: ends to look for, in this order.
    """
    stems = (image.stem, f"{image.stem}_mask", f"mask_{image.stem}", image.name)
    names = [f"{stem}{end}".casefold() for stem in stems for end in ends]
    return next((files[name] for name in names if name in files), None)


def folder(root: str | Path) -> Index:
    """Index a folder; every file is read once, so that training meets no damaged one.

    classes.txt has one class name a line; the id in the masks is the line's number. Masks are
    palette or grey pictures of ids, found as `mask_of` says; 255 is ignored. Images are turned
    upright. Up to four folds of neighbouring classes.

    Raises:
        MissingFileError: the folder, classes.txt or images are missing.
        InputError: broken or mismatched files, all of them named.

    Example:
        >>> from pathlib import Path
        >>> import numpy as np
        >>> from PIL import Image
        >>> root = Path("cracks")
        >>> for name in ("images", "masks"):
        ...     (root / name).mkdir(parents=True)
        >>> Image.new("RGB", (64, 64), "grey").save(root / "images" / "a.jpg")
        >>> Image.fromarray(np.eye(64, dtype=np.uint8)).save(root / "masks" / "a.png")
        >>> with (root / "classes.txt").open("w") as file:
        ...     print("crack", file=file)
        ...     print("leaf", file=file)
        >>> index = folder(root)
        >>> index.classes, index.pixels
        (('crack', 'leaf'), ({1: 64},))
    """
    root = Path(root)
    if not (root / "classes.txt").is_file():
        raise MissingFileError(
            f"there is no classes.txt in {root}: expected images/, masks/ and classes.txt with "
            f"one class per line; {SET_ROOT}"
        )
    lines = read_text(root / "classes.txt").splitlines()
    classes = tuple(line.strip() for line in lines if line.strip())
    if len(classes) < 2:
        raise InputError(f"{root / 'classes.txt'} names {len(classes)} class(es): a fold to test "
                         "and one to train need at least 2")  # fmt: skip
    paths = sorted(p for p in (root / "images").glob("[!.]*") if p.suffix.lower() in IMAGE_ENDS)
    if not paths:
        raise MissingFileError(f"no images in {root / 'images'} ({', '.join(IMAGE_ENDS)})")
    files = by_name(root.glob("masks/[!.]*"))
    masks = [mask_of(path, files) or root / "masks" / f"{path.stem}.png" for path in paths]
    pixels: list[Pixels] = []
    problems = []
    for path, mask_path in zip(paths, masks, strict=True):
        try:
            mask = _pair(path, mask_path).mask
        except (OSError, InputError) as error:
            problems.append(str(error))
            continue
        counts = class_pixels(mask)
        unknown = sorted(c for c in counts if c > len(classes))
        if unknown:
            problems.append(f"{mask_path.name} holds ids {unknown}, classes.txt has {len(classes)}")
        pixels.append(counts)
    if problems:
        raise InputError(f"{len(problems)} files in {root} cannot be used: {'; '.join(problems)}")

    def load(position: int) -> Sample:
        return _pair(paths[position], masks[position])

    count = min(4, len(classes))
    edges = [1 + len(classes) * i // count for i in range(count + 1)]
    return Index(
        name=f"folder {root.name}",
        classes=classes,
        folds=tuple(tuple(range(a, b)) for a, b in pairwise(edges)),
        items=tuple(path.stem for path in paths),
        pixels=tuple(pixels),
        load=load,
        min_pixels=1,
    )


def _pair(image: Path, mask: Path) -> Sample:
    """Read an image, upright, and its mask."""
    pixels = read_image(image, upright=True)
    ids = turned_with(pixels, read_mask(mask), image, f"{mask}")
    check_same_size(pixels, ids, image.name)
    return Sample(pixels, ids)
