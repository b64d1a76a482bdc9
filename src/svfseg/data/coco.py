"""COCO-20i: the 80 classes of COCO in four folds of twenty, from COCO's own layout.

Two conventions share the name. Most work since 2021 (BAM, HSNet, SVF) interleaves: fold k tests
classes k + 1, k + 5, ... (Nguyen and Todorovic, ICCV 2019). PANet's folds are contiguous. Class
ids are 1 to 80 in the order of COCO's category ids, which run to 90.
"""

import hashlib
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain
from pathlib import Path
from typing import Any, Literal
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from svfseg.data.images import Array, image_size, read_image
from svfseg.data.index import SET_ROOT, Index, Pixels, Sample
from svfseg.data.verify import ListReport, list_report
from svfseg.errors import InputError, MissingFileError
from svfseg.files import cache_folder, replace_file

Convention = Literal["interleaved", "contiguous"]
CLASSES = 80
FOLDS: dict[Convention, tuple[tuple[int, ...], ...]] = {
    "interleaved": tuple(tuple(range(fold + 1, CLASSES + 1, 4)) for fold in range(4)),
    "contiguous": tuple(tuple(range(20 * fold + 1, 20 * fold + 21)) for fold in range(4)),
}
FORMAT = 1
# list -> (images with an annotation; test images of each interleaved fold), as published
PUBLISHED: dict[str, tuple[int, tuple[int, ...]]] = {
    "train2014": (82_081, ()),
    "val2014": (40_137, (26_052, 15_305, 13_138, 12_640)),
}


@dataclass(frozen=True)
class Instances:
    """What is known of one instances_*.json: outlines stay run lengths, as COCO's tools make them.

    Attributes:
        classes: names, in the order of the category ids.
        names: file name of each image that has an annotation.
        sizes: (images, 2), height and width.
        first: (images + 1,), where each image's outlines begin.
        ids: (outlines,), class of each, 1 to 80, the largest of an image first.
        starts: (outlines + 1,), where each one's run lengths begin in ``runs``.
        runs: bytes.
        pixels: for each image, class id -> visible pixels.
    """

    classes: tuple[str, ...]
    names: tuple[str, ...]
    sizes: npt.NDArray[np.int32]
    first: npt.NDArray[np.int64]
    ids: Array
    starts: npt.NDArray[np.int64]
    runs: Array
    pixels: tuple[Pixels, ...]

    def mask(self, position: int) -> Array:
        """Paint a mask (height, width) of class ids, smaller outlines on top of larger ones."""
        from pycocotools import mask as tools

        height, width = (int(side) for side in self.sizes[position])
        painted = np.zeros((height, width), np.uint8)
        for outline in range(self.first[position], self.first[position + 1]):
            counts = self.runs[self.starts[outline] : self.starts[outline + 1]].tobytes()
            inside = tools.decode({"size": [height, width], "counts": counts})
            painted[inside.astype(bool)] = self.ids[outline]
        return painted


def coco20i(
    root: str | Path, lists: Iterable[str], convention: Convention = "interleaved"
) -> Index:
    """Index one or more image sets of COCO.

    Reading the annotations of a whole set takes most of a minute, once: what came out is
    remembered in the cache folder until the file changes.

    Args:
        root: the folder with annotations/instances_SET.json and SET/ (the images).
        lists: names of sets: train2014, val2014, train2017, val2017.
        convention: convention of the folds.

    Raises:
        MissingFileError: the annotations are not there; names the sets that are.
        InputError: the annotations are damaged, or pycocotools or msgspec are missing.
    """
    root, lists = Path(root), tuple(lists)
    parts = [read_instances(root, name) for name in lists]
    if len({part.classes for part in parts}) > 1:
        raise InputError(f"the sets {', '.join(lists)} have different categories")
    begins = [0, *accumulate(len(part.names) for part in parts)]

    def load(position: int) -> Sample:
        number = bisect_right(begins, position) - 1
        part, place = parts[number], position - begins[number]
        return Sample(read_image(root / lists[number] / part.names[place]), part.mask(place))

    return Index(
        name=f"coco20i {'+'.join(lists)} {convention}",
        classes=parts[0].classes,
        folds=FOLDS[convention],
        items=tuple(name.rpartition(".")[0] for part in parts for name in part.names),
        pixels=tuple(chain.from_iterable(part.pixels for part in parts)),
        load=load,
    )


def read_instances(root: Path, name: str) -> Instances:
    """Read the annotations of one set, from the cache where they are in it.

    Raises:
        MissingFileError: no such file.
        InputError: see `coco20i`.
    """
    path = root / "annotations" / f"instances_{name}.json"
    if not path.is_file():
        there = sorted(
            p.stem.removeprefix("instances_") for p in path.parent.glob("instances_*.json")
        )
        held = f"it holds {', '.join(there)}" if there else "it holds none"
        raise MissingFileError(
            f"no {path.name} in {path.parent} ({held}): {SET_ROOT} to the folder with "
            "annotations/, and data.train_lists and data.test_list to its sets"
        )
    stamp = path.stat()
    key = f"{FORMAT} {path.resolve()} {stamp.st_size} {stamp.st_mtime_ns}"
    cached = cache_folder() / f"coco-{hashlib.sha256(key.encode()).hexdigest()[:24]}.npz"
    known = _load(cached)
    if known is None:
        known = _parse(path)
        _save(cached, known)
    return known


def verify(root: str | Path, name: str, convention: Convention) -> ListReport:
    """Count a set's classes and folds, and look whether every image is there at its size.

    Raises:
        MissingFileError: no such annotations.
        InputError: they are damaged.
    """
    root = Path(root)
    part = read_instances(root, name)
    problems = []
    for file, (height, width) in zip(part.names, part.sizes, strict=True):
        try:
            actual = image_size(root / name / file)
        except (OSError, InputError) as error:
            problems.append(str(error))
            continue
        if actual != (height, width):
            problems.append(
                f"{file}: the image is {actual[1]}x{actual[0]}, its annotations are for "
                f"{width}x{height}"
            )
    index = coco20i(root, (name,), convention)
    published = None
    if convention == "interleaved" and len(index.items) == PUBLISHED.get(name, (0,))[0]:
        published = PUBLISHED[name][1]
    return list_report(index, name, len(part.names), problems, published)


def _parse(path: Path) -> Instances:
    """Outlines as run lengths, and visible pixels without painting one mask.

    The reader keeps every polygon as the bytes that it is in the file: pycocotools' own reader
    makes Python numbers of them all, several gigabytes for COCO's real size.
    """
    try:
        import msgspec
        from pycocotools import mask as tools
    except ImportError as error:
        raise InputError(
            f"COCO needs {error.name}, which is not installed: pip install 'svfseg[coco]'"
        ) from error

    class Image(msgspec.Struct, gc=False):
        id: int
        file_name: str
        height: int
        width: int

    class Annotation(msgspec.Struct, gc=False):
        image_id: int
        category_id: int
        segmentation: msgspec.Raw

    class Category(msgspec.Struct):
        id: int
        name: str

    class File(msgspec.Struct):
        images: list[Image]
        annotations: list[Annotation]
        categories: list[Category]

    try:
        content = msgspec.json.decode(path.read_bytes(), type=File)
    except msgspec.DecodeError as error:
        raise InputError(f"{path} is not an instances file of COCO: {error}") from error
    categories = sorted(content.categories, key=lambda c: c.id)
    if len(categories) != CLASSES:
        raise InputError(f"{path} has {len(categories)} categories: COCO-20i has {CLASSES}")
    numbers = {category.id: i for i, category in enumerate(categories, start=1)}
    known = {image.id for image in content.images}
    of_image: dict[int, list[Annotation]] = {}
    for annotation in content.annotations:
        if annotation.image_id not in known or annotation.category_id not in numbers:
            raise InputError(
                f"{path}: an annotation is of image {annotation.image_id}, category "
                f"{annotation.category_id}: one of them is not in the file"
            )
        of_image.setdefault(annotation.image_id, []).append(annotation)
    images = [image for image in content.images if image.id in of_image]
    del content  # what is done with can go

    ids, starts, runs_of_all = bytearray(), [0], bytearray()
    first, pixels = [0], []
    for image in images:
        outlines = []
        for annotation in of_image.pop(image.id):
            shape = msgspec.json.decode(annotation.segmentation)
            runs = _runs(tools, shape, image.height, image.width)
            if runs is not None:
                area = int(tools.area(runs))
                outlines.append((area, numbers[annotation.category_id], runs))
        outlines.sort(key=lambda outline: -outline[0])
        pixels.append(_visible(tools, outlines))
        for _, class_id, runs in outlines:
            ids.append(class_id)
            runs_of_all += runs["counts"]
            starts.append(len(runs_of_all))
        first.append(len(ids))
    return Instances(
        classes=tuple(category.name for category in categories),
        names=tuple(image.file_name for image in images),
        sizes=np.array([(i.height, i.width) for i in images], np.int32).reshape(-1, 2),
        first=np.array(first, np.int64),
        ids=np.frombuffer(ids, np.uint8),
        starts=np.array(starts, np.int64),
        runs=np.frombuffer(runs_of_all, np.uint8),
        pixels=tuple(pixels),
    )


def _runs(tools: Any, shape: Any, height: int, width: int) -> dict[str, Any] | None:
    """Run lengths of polygons, or of a crowd's own; None if nothing has an area."""
    if isinstance(shape, dict):
        if isinstance(shape["counts"], str):
            return {**shape, "counts": shape["counts"].encode()}
        crowd: dict[str, Any] = tools.frPyObjects(shape, height, width)
        return crowd
    polygons = [polygon for polygon in shape if len(polygon) >= 6]
    if not polygons:
        return None
    runs = tools.frPyObjects(polygons, height, width)
    merged: dict[str, Any] = runs[0] if len(runs) == 1 else tools.merge(runs)
    return merged


def _visible(tools: Any, outlines: Sequence[tuple[int, int, dict[str, Any]]]) -> Pixels:
    """Class id -> pixels of it that no smaller outline covers."""
    pixels: Pixels = {}
    covered: dict[str, Any] | None = None
    area = 0
    for own, class_id, runs in reversed(outlines):
        covered = runs if covered is None else tools.merge([covered, runs])
        total = own if covered is runs else int(tools.area(covered))
        if total > area:
            pixels[class_id] = pixels.get(class_id, 0) + total - area
        area = total
    return dict(sorted(pixels.items()))


def _save(path: Path, known: Instances) -> None:
    table = np.array(
        [(i, c, n) for i, row in enumerate(known.pixels) for c, n in row.items()], np.int32
    ).reshape(-1, 3)
    try:
        with replace_file(path) as fresh, fresh.open("wb") as file:
            np.savez(
                file,
                classes=_packed(known.classes),
                names=_packed(known.names),
                sizes=known.sizes,
                first=known.first,
                ids=known.ids,
                starts=known.starts,
                runs=known.runs,
                pixels=table,
            )
    except OSError:
        pass  # only slower the next time


def _load(path: Path) -> Instances | None:
    try:
        # numpy leaves a file open that it opened itself and finds damaged
        with path.open("rb") as file, np.load(file) as stored:
            table = stored["pixels"]
            names = tuple(_unpacked(stored["names"]))
            pixels: tuple[Pixels, ...] = tuple({} for _ in names)
            for image, class_id, count in table.tolist():
                pixels[image][class_id] = count
            return Instances(
                classes=tuple(_unpacked(stored["classes"])),
                names=names,
                pixels=pixels,
                **{key: stored[key] for key in ("sizes", "first", "ids", "starts", "runs")},
            )
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        return None  # not there, or damaged: made anew


def _packed(texts: Sequence[str]) -> Array:
    return np.frombuffer("\n".join(texts).encode(), np.uint8)


def _unpacked(packed: Array) -> Iterator[str]:
    return iter(packed.tobytes().decode().split("\n"))
