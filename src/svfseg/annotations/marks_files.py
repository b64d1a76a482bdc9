"""Read marks from files: labelme, GeoJSON, COCO, YOLO's labels, and JSON files with marks."""

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from svfseg.annotations.coco_masks import expanded, from_run_lengths
from svfseg.annotations.labelme import (
    DegenerateShapeError,
    check_shapes,
    check_size,
    label_of,
    mark_of,
    points_of,
)
from svfseg.annotations.marks import KINDS, least_points
from svfseg.data.images import Array
from svfseg.errors import InputError, MissingFileError
from svfseg.files import parse_json, read_text

logger = logging.getLogger(__name__)
# Ends of files of marks.
MARK_ENDS = (".json", ".geojson", ".txt")
_BACKGROUND = ("background", "_background_")
_PASSED = ""  # the kind of shapes of labels that nobody asked for

Marks = dict[str, list[dict[str, Any]]]
# A class (its name, or its id), a kind of marks, and what it holds.
Labelled = tuple[str | int, str, dict[str, Any]]


def read_marks(
    path: str | Path,
    names: Sequence[str],
    image: Array | None = None,
    picture: str | Path | None = None,
) -> Marks:
    """Read the marks of a file, for `svfseg.annotations.marks.draw_marks`.

    labelme's shapes by their labels, GeoJSON's polygons by their property "class" (in pixels),
    COCO's annotations of the image by their category, YOLO's outlines by the number of the class,
    or a JSON object of kinds of marks, each mark's class a name or an id. What is labelled as
    something else than the classes is left out; "background" says what is none of them. A shape
    that marks nothing is left out with a warning.

    Args:
        path: path of the file.
        names: names of the classes 1, 2 ...
        image: whose marks they are, (height, width, 3); a labelme file must be of its size, and a
            YOLO file needs it.
        picture: path of the image: a COCO file names several.

    Raises:
        MissingFileError: no such file.
        InputError: no marks, damaged ones, of another image size, or none of the classes.
    """
    path = Path(path)
    ids: dict[str, int] = dict.fromkeys(_BACKGROUND, 0)
    ids |= {name: i for i, name in enumerate(names, start=1)}
    folded = {name.casefold(): i for name, i in ids.items()}
    listed = _listed(path, image, picture, set(folded))
    marks_by_kind: Marks = {}
    for owner, kind, mark in listed:
        class_id = owner if isinstance(owner, int) else ids.get(owner)
        if class_id is None and isinstance(owner, str):
            class_id = folded.get(owner.casefold())
            if class_id is not None:
                logger.warning("%s marks %r: taken as %s", path, owner, names[class_id - 1])
        if class_id is not None and kind != _PASSED:
            marks_by_kind.setdefault(kind, []).append({**mark, "class": class_id})
    if not any(mark["class"] for marks in marks_by_kind.values() for mark in marks):
        labels = sorted({str(owner) for owner, _, _ in listed})
        raise InputError(
            f"{path} marks {', '.join(labels) or 'nothing'}: expected {' or '.join(names)} "
            "(the names of the classes)"
        )
    return marks_by_kind


def marked_labels(path: str | Path) -> list[str]:
    """List the names of the classes in a file of marks, in the order in which they come.

    Raises:
        MissingFileError: no such file.
        InputError: no marks.
    """
    path = Path(path)
    if path.suffix.lower() == ".txt":
        return list(_yolo_names(path))
    content = _content(path)
    if "shapes" in content:
        owners = [label_of(shape) for shape in check_shapes(content, path)]
    elif "categories" in content:
        owners = list(_categories(content, path).values())
    else:
        owners = [owner for owner, _, _ in _listed(path, None, None) if isinstance(owner, str)]
    return [name for name in dict.fromkeys(owners) if name not in _BACKGROUND]


def _listed(
    path: Path, image: Array | None, picture: str | Path | None, wanted: Collection[str] = ()
) -> list[Labelled]:
    """What a file marks; shapes of labels that are not wanted are listed without their points."""
    if path.suffix.lower() == ".txt":
        return _of_yolo(path, image)
    content = _content(path)
    if "shapes" in content:
        if image is not None:
            check_size(content, image, path)
        shapes = check_shapes(content, path)

        def read(shape: Mapping[str, Any], name: str) -> list[Labelled]:
            if label_of(shape).casefold() not in wanted:
                return [(label_of(shape), _PASSED, {"points": []})]
            return [(label_of(shape), *mark_of(shape, name))]

        return _drawable(path, shapes, image, read)
    if "features" in content:
        return _drawable(path, _objects(content["features"], path), image, _of_feature)
    if "annotations" in content:
        annotations = _annotations(content, path, picture, image)
        return _drawable(path, annotations, image, _of_annotation)
    return _own(content, path)


def _drawable(
    path: Path,
    items: Sequence[Mapping[str, Any]],
    image: Array | None,
    read: Callable[[Mapping[str, Any], str], list[Labelled]],
) -> list[Labelled]:
    """Read each shape; those that mark nothing are left out with a warning."""
    listed: list[Labelled] = []
    for number, item in enumerate(items, start=1):
        name = f"shape {number} of {path}"
        try:
            for owner, kind, mark in read(item, name):
                if kind != _PASSED:
                    _check_drawable(kind, mark, image, name)
                listed.append((owner, kind, mark))
        except DegenerateShapeError as error:
            logger.warning("left out: %s", error)
    return listed


def _check_drawable(kind: str, mark: Mapping[str, Any], image: Array | None, name: str) -> None:
    points = mark["points"]
    if len(points) < least_points(kind):
        raise DegenerateShapeError(
            f"{name} has {len(points)} point(s): expected {least_points(kind)} or more"
        )
    if kind == "polygons" and _area(points) == 0:
        raise DegenerateShapeError(f"{name} has no area")
    if image is None or kind == "masks":
        return
    height, width = image.shape[:2]
    columns, rows = zip(*points, strict=True)
    if max(columns) < 0 or max(rows) < 0 or min(columns) > width or min(rows) > height:
        raise DegenerateShapeError(f"{name} lies outside the image of {width}x{height}")


def _area(points: Sequence[tuple[float, float]]) -> float:
    pairs = zip(points, [*points[1:], points[0]], strict=True)
    return sum(x * v - y * u for (x, y), (u, v) in pairs) / 2


def _content(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise MissingFileError(f"no marks at {path}")
    text = read_text(path)
    try:
        content = parse_json(text, f"{path}")
    except InputError as error:
        raise InputError(f"{error}: expected marks, or a labelme file") from error
    known = {"shapes", "features", "annotations", *KINDS}
    if not isinstance(content, dict) or not content.keys() & known:
        raise InputError(
            f"{path} holds no marks: expected a file of labelme, GeoJSON or COCO, or "
            f"{', '.join(KINDS)}"
        )
    return content


def _objects(items: Any, path: Path) -> list[Mapping[str, Any]]:
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise InputError(f"{path} is damaged: expected a list of objects")
    return items


def _own(content: Mapping[str, Any], path: Path) -> list[Labelled]:
    listed: list[Labelled] = []
    for kind, marks in content.items():
        if not isinstance(marks, list):
            raise InputError(f"{path} is damaged: its {kind} are not a list")
        for number, mark in enumerate(marks, start=1):
            name = f"mark {number} of {kind} in {path}"
            own = mark if isinstance(mark, Mapping) else {"points": mark}
            if "points" not in own:
                raise InputError(f"{name} has no points")
            owner = own.get("class", 1)
            owner = owner if type(owner) is int else str(owner).strip()
            listed.append((owner, kind, {"points": own["points"]}))
    return listed


def _of_feature(feature: Mapping[str, Any], name: str) -> list[Labelled]:
    """GeoJSON: the polygons of a feature; holes are drawn as background."""
    properties, shape = (feature.get(key) or {} for key in ("properties", "geometry"))
    if not isinstance(properties, Mapping) or not isinstance(shape, Mapping):
        raise InputError(f"{name} has no properties or no geometry that is an object")
    classified = properties.get("classification")
    owner = next((properties[key] for key in ("class", "label", "name") if key in properties), None)
    if isinstance(classified, Mapping):  # QuPath
        owner = classified.get("name", owner)
    kind, places = shape.get("type"), shape.get("coordinates")
    if kind not in ("Polygon", "MultiPolygon") or not isinstance(places, list):
        raise InputError(f"{name} is of the type {kind}: expected Polygon or MultiPolygon")
    listed: list[Labelled] = []
    for polygon in places if kind == "MultiPolygon" else [places]:
        if not isinstance(polygon, list):
            raise InputError(f"{name} has {polygon!r:.60}: expected a polygon's rings")
        for number, ring in enumerate(polygon):
            points = points_of(ring, name)
            label = "background" if number else str(owner if owner is not None else 1).strip()
            listed.append((label, "polygons", {"points": points}))
    return listed


def _categories(content: Mapping[str, Any], path: Path) -> dict[int, str]:
    rows = _objects(content.get("categories", []), path)
    try:
        return {int(row["id"]): str(row["name"]).strip() for row in rows}
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{path} is damaged: a category has no id or no name") from error


def _annotations(
    content: Mapping[str, Any], path: Path, picture: str | Path | None, image: Array | None
) -> list[Mapping[str, Any]]:
    """COCO's annotations of one image, with the names of their categories and its size."""
    images = _objects(content.get("images", []), path)
    name = None if picture is None else Path(picture).name
    same = [row for row in images if Path(str(row.get("file_name"))).name == name]
    chosen = same if name is not None else images
    if not chosen and len(images) == 1:
        chosen = images
    if len(chosen) != 1:
        raise InputError(
            f"{path} holds {len(images)} images, {len(chosen)} of them called {name}: expected one"
        )
    if image is not None:
        sides = {"imageHeight": chosen[0].get("height"), "imageWidth": chosen[0].get("width")}
        check_size(sides, image, path)
    names = _categories(content, path)
    own = [a for a in _objects(content["annotations"], path)
           if a.get("image_id") == chosen[0].get("id")]  # fmt: skip
    labels = {str(number): name for number, name in names.items()}
    own_sides = None if image is None else [*image.shape[:2]]
    return [
        {**a, "label": labels.get(str(a.get("category_id")), "unknown"), "sides": own_sides}
        for a in own
    ]


def _of_annotation(annotation: Mapping[str, Any], name: str) -> list[Labelled]:
    owner, parts = str(annotation["label"]), annotation.get("segmentation")
    if isinstance(parts, Mapping):
        try:
            height, width = (int(side) for side in parts["size"])
            counts = parts["counts"]
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise InputError(f"{name} has run lengths without size or counts") from error
        if annotation.get("sides") not in (None, [height, width]):
            high, wide = annotation["sides"]
            raise InputError(
                f"{name} has run lengths of {width}x{height} pixels, the image has {wide}x{high}: "
                "mark it again, or give the image that was marked"
            )
        counts = expanded(counts) if isinstance(counts, str) else counts
        if not isinstance(counts, list) or not all(isinstance(c, int) for c in counts):
            raise InputError(f"{name} has run lengths that are not whole numbers")
        mask = from_run_lengths(counts, height, width)
        return [(owner, "masks", {"mask": mask, "points": [(0.0, 0.0)]})]
    if not isinstance(parts, list):
        raise InputError(f"{name} has no segmentation")
    listed: list[Labelled] = []
    for flat in parts:
        if not isinstance(flat, list) or len(flat) % 2:
            raise InputError(f"{name} has a polygon that is not a list of pairs x, y")
        pairs = [flat[at : at + 2] for at in range(0, len(flat), 2)]
        listed.append((owner, "polygons", {"points": points_of(pairs, name)}))
    return listed


def _yolo_names(path: Path) -> dict[str, int]:
    listed = path.parent / "classes.txt"
    lines = read_text(listed).splitlines() if listed.is_file() else []
    return {line.strip(): number for number, line in enumerate(lines) if line.strip()}


def _of_yolo(path: Path, image: Array | None) -> list[Labelled]:
    """YOLO: a class from 0 and an outline (or a box: middle, width, height) in shares of sides."""
    if image is None:
        raise InputError(f"the labels of {path} are in shares of an image: give the image too")
    height, width = image.shape[:2]
    names = {number: name for name, number in _yolo_names(path).items()}
    rows: list[Mapping[str, Any]] = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        words = line.split()
        if not words:
            continue
        try:
            numbers = [float(word) for word in words]
        except ValueError:
            numbers = []
        whole = numbers and numbers[0].is_integer() and numbers[0] >= 0
        if not whole or len(numbers) < 5 or len(numbers) % 2 == 0:
            raise InputError(
                f"line {number} of {path} is not a label: expected a class and x, y, x, y ... of "
                "an outline"
            )
        rows.append({"numbers": numbers})

    def read(row: Mapping[str, Any], name: str) -> list[Labelled]:
        first, *shares = row["numbers"]
        owner = names.get(int(first), int(first) + 1)
        pairs = [(x * width, y * height) for x, y in zip(shares[::2], shares[1::2], strict=True)]
        if len(pairs) == 2:  # a box
            (x, y), (w, h) = pairs
            return [(owner, "boxes", {"points": [(x - w / 2, y - h / 2), (x + w / 2, y + h / 2)]})]
        return [(owner, "polygons", {"points": points_of(pairs, name)})]

    return _drawable(path, rows, image, read)
