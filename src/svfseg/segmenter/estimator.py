"""Few-shot segmentation as an estimator: fit on a few marked images, predict others."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self, overload

from svfseg._version import __version__
from svfseg.annotations.inputs import ImageLike, MaskLike, as_image, as_mask, check_marked
from svfseg.annotations.names import class_names
from svfseg.data.images import Array, fingerprint
from svfseg.data.index import Sample
from svfseg.device import resolve
from svfseg.errors import InputError
from svfseg.models import Head
from svfseg.models.head import ComparingHead
from svfseg.segmenter.adaptation import AdaptationResult
from svfseg.segmenter.base import BaseModel, load_base
from svfseg.segmenter.calibration import ClassThresholds
from svfseg.segmenter.events import TuningReport, ignore
from svfseg.segmenter.fitting import Tuning, fit_task
from svfseg.segmenter.inference import ClassMaps, Predictor
from svfseg.segmenter.learning import Learned
from svfseg.segmenter.parameters import Parametrized, as_list, check_parameters, is_list
from svfseg.segmenter.results import Segmentation, mean_iou, segment, without_absent
from svfseg.segmenter.speed import affordable_size
from svfseg.segmenter.supports import as_supports
from svfseg.segmenter.task_file import (
    TaskFile,
    check_fits,
    read_task,
    restore_adaptation,
    restore_decoder,
    restore_features,
    save_task,
)
from svfseg.segmenter.tiling import blend, cut, windows


class NotFittedError(InputError, AttributeError):
    """`FewShotSegmenter.fit` has not been called."""


class FewShotSegmenter(Parametrized):
    """Outline classes in images, given one to a few images of them with masks.

    It follows the conventions of scikit-learn (clone, Pipeline, GridSearchCV, cross_val_score):
    parameters are kept as given, `fit` returns the segmenter, what it learned ends with an
    underscore, and `score` is the mean IoU.

    Args:
        model: "default" (the head that comes with svfseg), a run folder, or a repository
            "owner/name" of the Hugging Face hub that holds one.
        adapt: what is tuned on the supports: None (nothing), "svf", "norm", "lora" or "full".
        steps: steps of the tuning; None chooses them (see `svfseg.segmenter.adaptation.adapt`).
        lr: learning rate of the tuning; None takes the preset's.
        size: side that whole images, or tiles, are fitted to, in pixels; None is the model's own.
        tile: False fits the whole image; True cuts it into squares of ``size`` at its own
            resolution, for images with thin or small things.
        overlap: smallest share that neighbouring tiles have in common.
        seconds: time that fitting a decoder to the supports may take; 0 answers at once, by the
            comparison with the supports alone. Heads that do not compare positions have no decoder.
        seconds_per_image: time that an image may take; the largest size that keeps it is chosen
            by measuring at the fit, in place of ``size``.
        threshold: probability from which a pixel belongs to a class; None chooses it on the
            supports.
        reject_absent: whether a class with too low a presence score in an image has an empty mask.
        batch: tiles or images at once.
        device: auto, cpu, cuda or mps.
        seed: seed of all random choices.

    Attributes:
        classes_: names of the classes, of ids 1, 2 ...
        thresholds_: class id -> `ClassThresholds`, chosen on the supports.
        features_: class id -> the features of its supports.
        adaptation_: the `AdaptationResult` of the tuning on the supports; None without tuning.
        learned_: the `Learned` of the decoder fitted to the supports.
        advice_: what would help most, in sentences.
        predictor_: the model as it predicts.
        supports_: fingerprints of the support images.

    Example:
        >>> import numpy as np
        >>> image = np.zeros((64, 64, 3), np.uint8)
        >>> image[16:48, 16:48] = (200, 40, 40)
        >>> mask = (image[..., 0] > 0).astype(np.uint8)
        >>> segmenter = FewShotSegmenter(size=65, reject_absent=False, device="cpu")
        >>> segmenter.fit(image, mask, classes=["square"]).predict(image).classes
        ('square',)
    """

    classes_: tuple[str, ...]
    thresholds_: dict[int, ClassThresholds]
    features_: dict[int, list[Any]]
    adaptation_: AdaptationResult | None
    learned_: Learned
    advice_: tuple[str, ...]
    predictor_: Predictor
    supports_: frozenset[str]

    def __init__(
        self,
        model: str | Path = "default",
        *,
        adapt: str | None = None,
        steps: int | None = None,
        lr: float | None = None,
        size: int | None = None,
        tile: bool = False,
        overlap: float = 0.25,
        seconds: float = 60.0,
        seconds_per_image: float | None = None,
        threshold: float | None = None,
        reject_absent: bool = True,
        batch: int = 4,
        device: str = "auto",
        seed: int = 0,
    ) -> None:
        self.model = model
        self.adapt = adapt
        self.steps = steps
        self.lr = lr
        self.size = size
        self.tile = tile
        self.overlap = overlap
        self.seconds = seconds
        self.seconds_per_image = seconds_per_image
        self.threshold = threshold
        self.reject_absent = reject_absent
        self.batch = batch
        self.device = device
        self.seed = seed

    @classmethod
    def from_pretrained(cls, source: str | Path = "default", **parameters: Any) -> Self:
        """Make a segmenter with its model loaded; from a task file, fitted as it was.

        Args:
            source: see ``model``, or a file of `save`.
            parameters: parameters of the constructor, or of `load` for a task file.

        Raises:
            MissingFileError: no such run, file or repository.
            InputError: a damaged one; or see `svfseg.tuning.checkpoint.load_head`.
        """
        if str(source).endswith(".svf"):
            return cls.load(source, **parameters)
        segmenter = cls(source, **parameters)
        segmenter._load_base()
        return segmenter

    def fit(
        self,
        images: ImageLike | Sequence[ImageLike],
        masks: MaskLike | Sequence[MaskLike],
        classes: Sequence[str] | None = None,
        report: TuningReport = ignore,
    ) -> Self:
        """Learn classes from marked images.

        Args:
            images: one or more: paths, Pillow images or uint8 arrays (height, width, 3).
            masks: one per image: paths (of masks, or labelme files), Pillow images, arrays of ids,
                marks (`svfseg.annotations.marks`), or None for an image without any class.
            classes: their names, in the order of the ids 1, 2 ... in the masks; one by default.
            report: called after each step of tuning and fitting.

        Raises:
            MissingFileError: no such file.
            InputError: numbers or sizes that differ, a class without a pixel, wrong parameters.
        """
        check_parameters(self.get_params())
        image_list, mask_list = as_list(images), as_list(masks)
        if not image_list or len(image_list) != len(mask_list):
            raise InputError(
                f"found {len(image_list)} image(s) and {len(mask_list)} mask(s): give at least "
                "one image, and one mask for each"
            )
        labels = ("class",) if classes is None else classes
        names = class_names((labels,) if isinstance(labels, str) else tuple(labels))
        samples = [
            _as_sample(image, mask, names, number)
            for number, (image, mask) in enumerate(zip(image_list, mask_list, strict=True), start=1)
        ]
        for class_id, name in enumerate(names, start=1):
            if not any((sample.mask == class_id).any() for sample in samples):
                raise InputError(f"no support shows class {class_id} ({name}): mark it in one")
        self._fit(samples, names, report)
        return self

    def _fit(self, samples: Sequence[Sample], names: tuple[str, ...], report: TuningReport) -> None:
        base = self._load_base()
        predictor = self._make_predictor(base.head, self._choose_size(base, samples))
        supports = as_supports(samples, self.tile, predictor.size, self.overlap)
        tuning = Tuning(self.adapt, self.steps, self.lr)
        fitted = fit_task(
            predictor, supports, names, tuning, self.seconds, self.threshold, self.seed, report
        )
        # all at once: where fitting fails, what was fitted before is as it was
        self.thresholds_, self.classes_, self.adaptation_ = (
            fitted.thresholds, names, fitted.adaptation,
        )  # fmt: skip
        self.features_, self.predictor_ = fitted.features, fitted.predictor
        self.learned_, self.advice_ = fitted.learned, fitted.advice
        self.supports_ = frozenset(fingerprint(sample.image) for sample in samples)

    def _choose_size(self, base: BaseModel, samples: Sequence[Sample]) -> int:
        if self.seconds_per_image is not None:
            predictor = self._make_predictor(base.head, base.size)
            largest = max((sample.image for sample in samples), key=lambda image: image.size)
            return affordable_size(predictor, largest, self.seconds_per_image)
        return base.size if self.size is None else self.size

    def unfit(self) -> Self:
        """Forget the classes and what was tuned: the model's own weights are back."""
        for name in [name for name in vars(self) if name.endswith("_")]:
            delattr(self, name)
        return self

    @overload
    def predict(self, images: ImageLike) -> Segmentation: ...
    @overload
    def predict(self, images: list[ImageLike] | tuple[ImageLike, ...]) -> list[Segmentation]: ...
    def predict(
        self, images: ImageLike | list[ImageLike] | tuple[ImageLike, ...]
    ) -> Segmentation | list[Segmentation]:
        """Outline the classes in new images.

        Args:
            images: one as in `fit`, or several: a list, a tuple, an array or column of paths, or
                a generator.

        Returns:
            A `Segmentation`, or a list of them where a list was given.

        Raises:
            NotFittedError: before `fit`.
        """
        results = list(self.iter_predict(as_list(images)))
        return results if is_list(images) else results[0]

    def iter_predict(self, images: Sequence[ImageLike]) -> Iterator[Segmentation]:
        """Outline the classes image by image: only ``batch`` images' maps are in memory.

        Raises:
            NotFittedError: before `fit`.
        """
        self._check_is_fitted()
        for at in range(0, len(images), self.batch):
            batch = [
                as_image(image, f"image {number}")
                for number, image in enumerate(images[at : at + self.batch], start=at + 1)
            ]
            for maps in self._predict_maps(batch):
                yield segment(maps, self.thresholds_, self.classes_, self.reject_absent)

    def score(self, images: Sequence[ImageLike], masks: Sequence[MaskLike]) -> float:
        """Give the mean over the classes of their IoU, summed over images; higher is better.

        Pixels of 255 do not count; nor does a class that is neither marked nor predicted.

        Args:
            images: as in `fit`.
            masks: the truth, as in `fit`.

        Raises:
            NotFittedError: before `fit`.
            InputError: numbers or sizes that differ, or no class in any mask or prediction.
        """
        self._check_is_fitted()
        image_list, mask_list = as_list(images), as_list(masks)
        if len(image_list) != len(mask_list):
            raise InputError(
                f"found {len(image_list)} image(s) and {len(mask_list)} mask(s): give one each"
            )
        pairs = []
        for number, (image, mask) in enumerate(zip(image_list, mask_list, strict=True), start=1):
            pixels = as_image(image, f"image {number}")
            truth = as_mask(mask, pixels, self.classes_, f"the mask of image {number}", image)
            pairs.append((self.predict(pixels).mask, truth))
        return mean_iou(pairs, len(self.classes_))

    def is_support(self, image: ImageLike) -> bool:
        """Whether an image is one of those that `fit` was given, pixel for pixel.

        What is outlined in it says little of what will be outlined in others.

        Raises:
            NotFittedError: before `fit`.
        """
        self._check_is_fitted()
        return fingerprint(as_image(image)) in self.supports_

    def save(self, path: str | Path) -> Path:
        """Write the task as one file: settings, the supports' features, and what was tuned.

        Raises:
            NotFittedError: before `fit`.
            OSError: writing failed; what was at the path is still there.
        """
        self._check_is_fitted()
        parameters = {
            name: value
            for name, value in self.get_params().items()
            if name not in ("model", "device", "size", "seconds_per_image", "reject_absent")
        }
        metadata = {
            "svfseg": __version__,
            "model": str(self.model),
            "fingerprint": self._load_base().fingerprint,
            "classes": list(self.classes_),
            "shown": sorted(self.supports_),
            "supports": {self.classes_[i - 1]: len(shots) for i, shots in self.features_.items()},
            "size": self.predictor_.size,
            "parameters": {**parameters, "empty": self.reject_absent},
            "share": self.predictor_.share,
            "advice": list(self.advice_),
            "rules": [self.thresholds_[i].to_plain() for i in sorted(self.thresholds_)],
        }
        decoder = self.predictor_.decoder
        features = {**self.features_, 0: self.predictor_.negatives}
        return save_task(Path(path), metadata, features, self.adaptation_, decoder)

    @classmethod
    def load(cls, path: str | Path, model: str | Path | None = None, device: str = "auto") -> Self:
        """Read a fitted segmenter from a file of `save`.

        Args:
            path: path of the file.
            model: place of its base model now; None looks where it was at the fit.
            device: auto, cpu, cuda or mps.

        Raises:
            MissingFileError: no such file, or its model is not there.
            InputError: a damaged file, or a model that is not the one it was fitted on.
        """
        path = Path(path)
        task = read_task(path)
        metadata = task.metadata
        parameters = dict(metadata["parameters"])
        parameters |= {"reject_absent": parameters.pop("empty"), "size": metadata["size"]}
        unknown = sorted(parameters.keys() - cls().get_params().keys())
        if unknown:
            raise InputError(f"{path} has the unknown parameter {unknown[0]}: update svfseg")
        segmenter = cls(metadata["model"] if model is None else model, **parameters, device=device)
        try:
            check_parameters(segmenter.get_params())
        except (InputError, TypeError) as error:
            raise InputError(f"{path} is damaged: {error}") from error
        base = segmenter._load_base()
        if base.fingerprint != metadata["fingerprint"]:
            raise InputError(
                f"{path} was fitted on other weights than those of {segmenter.model}: load it with "
                "the model that it was fitted on"
            )
        segmenter._restore(path, task, base.head)
        return segmenter

    def _restore(self, path: Path, task: TaskFile, base: Head) -> None:
        adaptation = restore_adaptation(path, task, base)
        device = str(resolve(self.device))
        head = base if adaptation is None else adaptation.merged().to(device)
        if task.metadata["format"] == 1 and isinstance(head, ComparingHead):
            head = head.as_in_format_1()
        decoder = restore_decoder(path, task, head)
        features = restore_features(path, task, head, device)
        negatives = tuple(features.pop(0, ()))
        self.features_ = features
        self.thresholds_ = {
            i: ClassThresholds.from_plain(rule)
            for i, rule in enumerate(task.metadata["rules"], start=1)
        }
        self.classes_, self.adaptation_ = tuple(task.metadata["classes"]), adaptation
        self.supports_ = frozenset(task.metadata.get("shown", ()))
        self.predictor_ = replace(
            self._make_predictor(head, task.metadata["size"]),
            decoder=None if decoder is None else decoder.to(device),
            share=task.metadata.get("share", 1.0),
            negatives=negatives,
        )
        check_fits(path, self.predictor_, features)
        self.learned_ = Learned(decoder, self.predictor_.share)
        self.advice_ = tuple(task.metadata.get("advice", ()))

    def _predict_maps(self, images: Sequence[Array]) -> list[ClassMaps]:
        if self.tile:
            return [self._predict_tiles(image) for image in images]
        return self.predictor_.predict_maps(images, self.features_)

    def _predict_tiles(self, image: Array) -> ClassMaps:
        """Blend the maps of an image's tiles; classes that a tile rejects are empty in it."""
        height, width = image.shape[:2]
        places = windows(height, width, self.predictor_.size, self.overlap)
        tiles = [cut(image, place) for place in places]
        parts = self.predictor_.predict_maps(tiles, self.features_)
        thresholds = list(self.thresholds_.values()) if self.reject_absent else []
        maps = (without_absent(part, thresholds) for part in parts)
        blended = blend(maps, places, height, width, len(self.features_))
        presence = zip(*(part.presence for part in parts), strict=True)
        return ClassMaps(blended, tuple(max(scores) for scores in presence))

    def _make_predictor(self, head: Head, size: int) -> Predictor:
        return Predictor(head, size, str(resolve(self.device)), self.batch)

    def _load_base(self) -> BaseModel:
        """Load the untouched model, or share it with other segmenters."""
        key = (str(self.model), self.device)
        entry = vars(self).get("_base_model")
        if entry is None or entry[0] != key:
            # kept here as well: the cache of base models does not keep any alive
            entry = self._base_model = (key, load_base(self.model, str(resolve(self.device))))
        base: BaseModel = entry[1]
        return base

    def _check_is_fitted(self) -> None:
        if not self.__sklearn_is_fitted__():
            raise NotFittedError("not fitted yet: call fit with images and masks first")


def _as_sample(image: ImageLike, mask: MaskLike, names: tuple[str, ...], number: int) -> Sample:
    """Read a support and its mask."""
    pixels = as_image(image, f"support {number}")
    label = f"{mask}" if isinstance(mask, (str, Path)) else f"the mask of support {number}"
    ids = as_mask(mask, pixels, names, label, image)
    if mask is not None:
        check_marked(ids, names, label)
    return Sample(pixels, ids)
