"""Your own annotated folder: images/NAME.jpg, masks/NAME.png, classes.txt."""

from itertools import pairwise
from pathlib import Path

from svfseg.data.images import check_same_size, read_image, read_mask
from svfseg.data.index import SET_ROOT, Index, Pixels, Sample, class_pixels
from svfseg.errors import InputError, MissingFileError
from svfseg.files import read_text

IMAGE_ENDS = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")


def folder(root: str | Path) -> Index:
    """Index a folder; every file is read once, so that training meets no damaged one.

    classes.txt has one class name a line; the id in the masks is the line's number. Masks are
    palette or grey PNGs of ids, 255 is ignored. Up to four folds of neighbouring classes.

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
    paths = sorted(p for p in (root / "images").glob("*") if p.suffix.lower() in IMAGE_ENDS)
    if not paths:
        raise MissingFileError(f"no images in {root / 'images'} ({', '.join(IMAGE_ENDS)})")
    masks = [root / "masks" / f"{path.stem}.png" for path in paths]
    pixels: list[Pixels] = []
    problems = []
    for path, mask_path in zip(paths, masks, strict=True):
        try:
            mask = read_mask(mask_path)
            check_same_size(read_image(path), mask, path.name)
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
        return Sample(read_image(paths[position]), read_mask(masks[position]))

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
