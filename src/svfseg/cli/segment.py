"""``svfseg fit``, ``predict``, ``report`` and ``export``, for images of your own."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tyro.conf import Positional, UseAppendAction

from svfseg.cli.ownership import (
    check_export_folder,
    check_replaceable,
    files_below,
    is_report,
    is_task,
    lies_in_predictions,
)
from svfseg.cli.parse import parse
from svfseg.errors import InputError, MissingFileError
from svfseg.files import LIST_ENDS, check_output_folder

Format = Literal["png", "coco", "yolo", "labelme", "geojson", "probability"]


@dataclass(frozen=True)
class FitArguments:
    """Learn classes from a few marked images, and write them to one file."""

    support: tuple[Path, ...]
    """Images with the class, their masks given as --mask; or one folder (images/, masks/, and
    classes.txt where there are several classes; or images with labelme's files beside them); or one
    list (.csv or .txt with image,mask per line; an image without a mask shows none of the
    classes)."""
    mask: tuple[Path, ...] = ()
    """Masks of the images, in the same order: every value but 0 is the class; with several classes
    the values are ids, and 255 is unknown. Files of labelme or of marks (.json) do too. By default
    the folder or the list given as --support names them."""
    negative: tuple[Path, ...] = ()
    """Images or folders of images that show none of the classes. By default there are none: what
    surrounds a class in its images stands for them."""
    classes: tuple[str, ...] = ()
    """Names of the ids 1, 2 and so on in the masks. By default they are those of the folder or the
    files, or numbers."""
    out: Path = Path("task.svf")
    """File to write. A task that is there is replaced, anything else is not."""
    overwrite: bool = False
    """Replace the file whatever it is, unless it is one that is read."""
    model: str = "default"
    """Base model: default, a run folder, or owner/name on the Hugging Face hub."""
    seconds: float = 60.0
    """Time that fitting to the supports may take, in seconds. It ends earlier when it is done."""
    instant: bool = False
    """Fit nothing: compare with the supports alone, at once."""
    adapt: Literal["none", "svf", "norm", "lora", "full"] = "none"
    """Which weights of the network are tuned on the supports, before anything else is fitted."""
    steps: int | None = None
    """Number of steps of the tuning. By default it is chosen on left-out supports."""
    lr: float | None = None
    """Learning rate of the tuning. By default it is a preset of the strategy, or chosen on left-out
    supports."""
    size: int | None = None
    """Side that images or tiles are resized to, in pixels. By default it is the model's own."""
    seconds_per_image: float | None = None
    """Time that an image may take when it is predicted, in seconds. The largest size that keeps it
    is measured and taken. By default --size is used."""
    tile: bool = False
    """Cut images into squares at their own resolution, for thin or small things."""
    threshold: float | None = None
    """Probability from which a pixel belongs to a class. By default it is chosen on the
    supports."""
    never_empty: bool = False
    """Outline something in every image, even with little evidence."""
    seed: int = 0
    """Seed of the random numbers."""
    device: str = "auto"
    """Device to compute on: auto (a GPU if there is one), cpu, cuda or mps."""


@dataclass(frozen=True)
class PredictArguments:
    """Outline classes in images, with a file that fit wrote, or with a run and supports."""

    task: Positional[Path]
    """File that fit wrote, or a run folder; a run needs --support and --mask too."""
    query: tuple[Path, ...] = ()
    """Images or folders of images to outline the classes in. At least one is needed; by default
    there are none."""
    out: Path = Path("predictions")
    """Folder to write NAME.png, NAME_overlay.jpg and the files of other formats to. Images that it
    has already are skipped."""
    format: tuple[Format, ...] = ("png",)
    """Formats to write: png, coco (one JSON file), yolo, labelme, geojson, or probability (grey,
    white being certain: it shows which pixels are doubtful). PNG files of the masks are always
    written."""
    support: UseAppendAction[tuple[tuple[Path, ...], ...]] = ()
    """With a run, one or more images with the class; the option may be repeated. By default there
    are none, as a file of fit has its own."""
    mask: UseAppendAction[tuple[tuple[Path, ...], ...]] = ()
    """With a run, the masks of the support images, in the same order: every value but 0 is the
    class. By default there are none, as a file of fit has its own."""
    class_id: int | None = None
    """Value of the masks that is the class, where they hold several. By default every value but 0
    is."""
    model: str | None = None
    """Place of the base model of the task. By default it is where it was when the task was
    fitted."""
    watch: bool = False
    """Go on with images that appear in the folders, until stopped."""
    overwrite: bool = False
    """Replace files in the folder that are not of earlier calls of predict. Images that are read
    are never replaced."""
    page: int | None = None
    """Page of files of several pages (frames), from 1. By default it is the first."""
    device: str = "auto"
    """Device to compute on: auto (a GPU if there is one), cpu, cuda or mps."""


@dataclass(frozen=True)
class ReportArguments:
    """Write a page of predictions, the doubtful ones first."""

    predictions: Positional[Path]
    """Folder that predict wrote."""
    out: Path | None = None
    """File to write the page to. By default it is report.html in the folder of predictions."""
    overwrite: bool = False
    """Replace the file even if it is not a report."""


@dataclass(frozen=True)
class ExportArguments:
    """Write a fitted task as ONNX, for programs without torch; it is checked against torch."""

    task: Positional[Path]
    """File that fit wrote."""
    out: Path = Path("exported")
    """Folder to write query.onnx, task.json and example.py to."""
    overwrite: bool = False
    """Replace files of these names even if they are not of an earlier export."""
    int8: bool = False
    """Write query_int8.onnx too, a third of the size."""
    openvino: bool = False
    """Write query.xml and query.bin too; this needs the package openvino."""
    model: str | None = None
    """Place of the base model of the task. By default it is where it was when the task was
    fitted."""


def run_fit(arguments: Sequence[str]) -> None:
    """Run ``svfseg fit --support ... --out TASK``."""
    parsed = parse(FitArguments, "fit", arguments, stray="give the marked images with --support")
    for name in ("support", "mask", "negative"):
        for path in getattr(parsed, name):
            if not path.exists():  # said before seconds of loading
                raise MissingFileError(f"there is no file or folder at {path}", settings=(name,))
    given = (*parsed.support, *parsed.mask, *parsed.negative)
    check_replaceable(parsed.out, is_task, files_below(given), parsed.overwrite)
    if not parsed.support:
        raise InputError(
            "there are no supports: give images with --support and --mask, a folder, or a list"
        )
    if not _finds_own_masks(parsed.support) and len(parsed.support) != len(parsed.mask):
        raise InputError(
            f"found {len(parsed.support)} --support and {len(parsed.mask)} --mask: give one mask "
            "for each image"
        )
    from svfseg.annotations.folders import find_images, find_supports

    images, masks, names = find_supports(parsed.support, parsed.mask, parsed.classes)
    read = [*images, *(path for path in masks if path is not None)]  # a list names them
    check_replaceable(parsed.out, is_task, read, parsed.overwrite)
    from svfseg.cli.progress import StepProgress
    from svfseg.segmenter import FewShotSegmenter
    from svfseg.segmenter.summary import fit_summary

    without = find_images(parsed.negative) if parsed.negative else []
    segmenter = FewShotSegmenter(
        parsed.model,
        adapt=None if parsed.adapt == "none" else parsed.adapt,
        steps=parsed.steps,
        lr=parsed.lr,
        size=parsed.size,
        tile=parsed.tile,
        seconds=0.0 if parsed.instant else parsed.seconds,
        seconds_per_image=parsed.seconds_per_image,
        threshold=parsed.threshold,
        reject_absent=not parsed.never_empty,
        device=parsed.device,
        seed=parsed.seed,
    )
    with StepProgress() as progress:
        segmenter.fit([*images, *without], [*masks, *(None for _ in without)], names, progress)
    segmenter.save(parsed.out)
    if parsed.seconds_per_image is not None:
        print(f"size: {segmenter.predictor_.size} pixels, by the time that an image may take")
    for line in fit_summary(segmenter):
        print(line)
    if without:
        print(f"without any of them: {len(without)} image(s)")
    size = parsed.out.stat().st_size / 1000
    print(f"wrote {parsed.out} ({size:,.0f} kB): use it with")
    print(f"  svfseg predict {parsed.out} --query IMAGES --out found")


def run_predict(arguments: Sequence[str]) -> None:
    """Run ``svfseg predict TASK --query IMAGES --out DIR``."""
    parsed = parse(PredictArguments, "predict", arguments, stray="give the images with --query")
    supports = [path for group in parsed.support for path in group]
    marks = [path for group in parsed.mask for path in group]
    if not parsed.query:
        raise InputError(
            "there are no images: svfseg predict TASK.svf --query IMAGES, TASK.svf being from fit"
        )
    if not parsed.task.exists():
        raise MissingFileError(
            f"there is no task or run at {parsed.task}: expected a file that fit wrote"
        )
    check_output_folder(parsed.out)
    from svfseg.annotations.folders import check_images, find_images, images_in
    from svfseg.cli.progress import ImageProgress
    from svfseg.segmenter.batch import predict_folder

    found = images_in(parsed.query, tell=False)
    check_images(found)  # before the network is built
    if not found and not parsed.watch:
        find_images(parsed.query)  # says what the folders hold instead
    overlays = [parsed.out / f"support_{i}_overlay.jpg" for i in range(1, len(supports) + 1)]
    read = [*supports, *marks, *found]
    for each in overlays:
        check_replaceable(each, lies_in_predictions, read, parsed.overwrite)
    segmenter, task = _segmenter(parsed, supports, marks)
    with ImageProgress() as progress:
        lines = predict_folder(
            segmenter,
            parsed.query,
            parsed.out,
            parsed.format,
            task,
            parsed.watch,
            progress,
            parsed.overwrite,
            parsed.page,
        )
    for path, marked, target in zip(supports, marks, overlays, strict=True):
        _draw_support(path, marked, parsed.class_id, target)
    outlined = sum(any(line["share"].values()) for line in lines)
    print(f"{len(lines)} image(s), something outlined in {outlined}: {parsed.out}", file=sys.stderr)
    supporting = sum(line.get("support", False) for line in lines)
    if supporting:
        what = "was a support" if supporting == 1 else "were supports"
        print(f"{supporting} of them {what}: judge by the others", file=sys.stderr)
    if outlined < len(lines) and segmenter.reject_absent:
        print(
            f"nothing in {len(lines) - outlined}; where these show the class, fit with more "
            "supports, or with --never-empty",
            file=sys.stderr,
        )
    print(f"look at them: svfseg report {parsed.out}", file=sys.stderr)


def _segmenter(
    parsed: PredictArguments, supports: list[Path], marks: list[Path]
) -> tuple[Any, str]:
    """Load the fitted segmenter, or fit one on a run; return it with a text that names the task."""
    from svfseg.segmenter import FewShotSegmenter

    if parsed.task.is_file():
        if supports or marks:
            raise InputError(
                f"{parsed.task} has supports of its own: leave out --support and --mask"
            )
        segmenter = FewShotSegmenter.load(parsed.task, parsed.model, parsed.device)
        return segmenter, _digest([parsed.task])
    if not supports or len(supports) != len(marks):
        raise InputError(
            f"found {len(supports)} --support and {len(marks)} --mask: give at least one image "
            "with the class, and one mask for each"
        )
    masks = [_marked(*pair, parsed.class_id)[1] for pair in zip(supports, marks, strict=True)]
    # as svfseg eval scores a run: no choice on the supports, an outline in every image
    segmenter = FewShotSegmenter(
        parsed.task, seconds=0, threshold=0.5, reject_absent=False, device=parsed.device
    ).fit(list(supports), masks)  # fmt: skip
    return segmenter, f"{parsed.task} {_digest([*supports, *marks])} {parsed.class_id}"


def _draw_support(image: Path, mask: Path, class_id: int | None, target: Path) -> None:
    from PIL import Image

    from svfseg.data.images import overlay, write_picture

    write_picture(target, Image.fromarray(overlay(*_marked(image, mask, class_id))), "JPEG")


def _marked(image: Path, mask: Path, class_id: int | None) -> tuple[Any, Any]:
    """Read a support of a run, and its mask, turned as its picture is."""
    from svfseg.annotations.inputs import as_image
    from svfseg.data.images import check_same_size
    from svfseg.data.masks import read_binary_mask, turned_with

    picture, marks = as_image(image), read_binary_mask(mask, class_id)
    marks = turned_with(picture, marks, image, f"{mask}")
    check_same_size(picture, marks, f"{mask}")
    return picture, marks


def run_export(arguments: Sequence[str]) -> None:
    """Run ``svfseg export TASK --out DIR``."""
    parsed = parse(ExportArguments, "export", arguments)
    from svfseg.segmenter import FewShotSegmenter

    check_output_folder(parsed.out)
    check_export_folder(parsed.out, parsed.overwrite)
    from svfseg.segmenter.export import export

    segmenter = FewShotSegmenter.load(parsed.task, parsed.model, "cpu")
    differences = export(segmenter, parsed.out, parsed.int8, parsed.openvino)
    pixels = 100 * differences.pop("masks")
    for name, difference in differences.items():
        size = (parsed.out / name).stat().st_size / 1e6
        print(
            f"{parsed.out / name}: {size:.1f} MB, probabilities within {difference:.1g} of torch's"
        )
    print(f"masks of example.py and of predict: {pixels:.2g} % of the pixels differ at most")
    print(f"try it: python {parsed.out / 'example.py'} photo.jpg mask.png")


def run_report(arguments: Sequence[str]) -> None:
    """Run ``svfseg report DIR``."""
    parsed = parse(ReportArguments, "report", arguments)
    from svfseg.segmenter.report import write_report

    page = parsed.predictions / "report.html" if parsed.out is None else parsed.out
    read = (path for path in files_below([parsed.predictions]) if path.suffix != ".html")
    check_replaceable(page, is_report, read, parsed.overwrite)
    print(f"wrote {write_report(parsed.predictions, parsed.out)}")


def _finds_own_masks(support: Sequence[Path]) -> bool:
    """Whether one folder or one list names the masks too."""
    return len(support) == 1 and (support[0].is_dir() or support[0].suffix.lower() in LIST_ENDS)


def _digest(paths: Sequence[Path]) -> str:
    import hashlib

    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()[:16]
