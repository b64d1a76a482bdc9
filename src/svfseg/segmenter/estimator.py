"""Few-shot segmentation as an estimator: fit on a few marked images, predict the others."""

import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from torch import nn

from svfseg._version import __version__
from svfseg.annotations.inputs import Given, as_image, as_mask, check_marked
from svfseg.data.images import Array, digest
from svfseg.data.index import Sample
from svfseg.device import resolve
from svfseg.errors import InputError
from svfseg.models.weights import backbone_fingerprint
from svfseg.segmenter.adaptation import Support, adapt, tuning_of
from svfseg.segmenter.calibration import Rule, decide, find_rules, left_out_iou
from svfseg.segmenter.hub import find_model
from svfseg.segmenter.inference import Outliner, Seen, by_class, with_views
from svfseg.segmenter.task_file import Task, read_task, restore_adapted, save_task
from svfseg.segmenter.tiling import blend, cut, marked_windows, windows
from svfseg.tuning.checkpoint import load_head

Report = Callable[[dict[str, Any]], None]


class NotFittedError(ValueError, AttributeError):
    """Asked before `FewShotSegmenter.fit`."""


@dataclass(frozen=True)
class Segmentation:
    """What is found in one image, at its own size.

    Attributes:
        mask: (height, width) uint8; 0 is background, i the i-th class.
        probabilities: (classes, height, width) float16 in [0, 1].
        confidence: class -> how sure its answer is, in [0, 1]: of a mask, that the class is there
            and that its pixels belong to it; of an empty answer, that it is not there.
        present: class -> whether there is evidence enough for it; without, its mask is empty.
        classes: their names.
    """

    mask: Array
    probabilities: npt.NDArray[np.float16]
    confidence: dict[str, float]
    present: dict[str, bool]
    classes: tuple[str, ...]

    @property
    def least_confidence(self) -> float:
        """Of the class that is least sure: what to sort by."""
        return min(self.confidence.values())


class FewShotSegmenter:
    """Outline classes in images, given one to a few images of them with masks.

    As in scikit-learn: parameters are kept as given, `fit` returns the segmenter, what it learned
    ends with an underscore.

    Args:
        model: "default" (the head that comes with svfseg), a run folder, or a repository
            "owner/name" of the Hugging Face hub that holds one.
        adapt: None (the head as it is) or what is tuned on the supports: "svf", "norm", "lora",
            "full".
        steps: of that tuning; None chooses (see `svfseg.segmenter.adaptation.adapt`).
        lr: of it; None takes the preset's.
        size: side that whole images, or tiles, are fitted to, in pixels; None is the model's own.
        tile: False fits the whole image; True cuts it into squares of ``size`` at its own
            resolution, for images with thin or small things.
        overlap: least share that neighbouring tiles have in common.
        threshold: probability from which a pixel belongs to a class; None chooses on the supports.
        empty: an image whose evidence for a class is too low gets an empty mask of it.
        batch: tiles or images at once.
        device: auto, cpu, cuda, mps.
        seed: of all choices.
    """

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
        threshold: float | None = None,
        empty: bool = True,
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
        self.threshold = threshold
        self.empty = empty
        self.batch = batch
        self.device = device
        self.seed = seed

    @classmethod
    def from_pretrained(cls, source: str | Path = "default", **parameters: Any) -> Any:
        """A segmenter with its model loaded; of a task file, fitted as it was.

        Raises:
            MissingFileError: no such run, file or repository.
            InputError: a damaged one; or see `svfseg.tuning.checkpoint.load_head`.
        """
        if str(source).endswith(".svf"):
            return cls.load(source, **parameters)
        segmenter = cls(source, **parameters)
        segmenter._base()
        return segmenter

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Parameters of the constructor."""
        return {name: getattr(self, name) for name in _parameters(type(self))}

    def set_params(self, **parameters: Any) -> "FewShotSegmenter":
        """Change parameters; what was fitted is forgotten.

        Raises:
            InputError: an unknown parameter.
        """
        known = _parameters(type(self))
        for name, value in parameters.items():
            if name not in known:
                raise InputError(f"unknown parameter {name}: expected one of {', '.join(known)}")
            setattr(self, name, value)
        if parameters:
            self.unfit()
        return self

    def __repr__(self) -> str:
        default = {n: p.default for n, p in _parameters(type(self)).items()}
        shown = {n: v for n, v in self.get_params().items() if v != default[n]}
        return f"FewShotSegmenter({', '.join(f'{n}={v!r}' for n, v in shown.items())})"

    def fit(
        self,
        images: Given | Sequence[Given],
        masks: Given | Sequence[Given],
        classes: Sequence[str] | None = None,
        report: Report | None = None,
    ) -> "FewShotSegmenter":
        """Show the classes.

        Args:
            images: one or more: paths, Pillow images or uint8 arrays (height, width, 3).
            masks: as many: paths (of masks, or labelme files), Pillow images, arrays of ids,
                marks (`svfseg.annotations.marks`), or None for an image without any of the classes.
            classes: their names, in the order of the ids 1, 2 ... in the masks; one by default.
            report: called with {"step", "steps", "loss"} while supports are tuned on.

        Raises:
            MissingFileError: no such file.
            InputError: numbers or sizes that differ, a class without a pixel, wrong parameters.
        """
        self._check()
        images, masks = _listed(images), _listed(masks)
        if not images or len(images) != len(masks):
            raise InputError(
                f"found {len(images)} image(s) and {len(masks)} mask(s): give at least one image, "
                "and one mask for each"
            )
        names = tuple(classes) if classes is not None else ("class",)
        if not names or len(set(names)) < len(names):
            raise InputError(f"classes are {list(names)}: expected one or more different names")
        samples = []
        for number, (given, mask) in enumerate(zip(images, masks, strict=True), start=1):
            image = as_image(given, f"support {number}")
            name = f"{given}" if isinstance(given, (str, Path)) else f"the mask of support {number}"
            marked = as_mask(mask, image, names, name)
            if mask is not None:
                check_marked(marked, names, f"the mask of support {number}")
            samples.append(Sample(image, marked))
        for class_id, name in enumerate(names, start=1):
            if not any((sample.mask == class_id).any() for sample in samples):
                raise InputError(f"no support shows class {class_id} ({name}): mark it in one")
        return self._fit(samples, names, report)

    def _fit(
        self, samples: Sequence[Sample], names: tuple[str, ...], report: Report | None
    ) -> "FewShotSegmenter":
        base, size = self._base()
        device = self._device()
        supports = [
            Support(part, group)
            for group, sample in enumerate(samples)
            for part in (
                marked_windows(sample, size, self.overlap) if self.tile else [sample]
            )
        ]  # fmt: skip
        ids = range(1, len(names) + 1)
        adapted = None
        if self.adapt is not None:
            adapted = adapt(
                base, supports, ids, self.adapt, size, self.steps, self.lr, self.seed, device,
                lambda model, rest, asked: left_out_iou(self._outliner(model, size), rest, asked),
                report,
            )  # fmt: skip
        outliner = self._outliner(base if adapted is None else adapted.merged().to(device), size)
        shown = outliner.views([s.sample for s in supports], ids)
        views = by_class(shown, ids)
        for class_id, name in zip(ids, names, strict=True):
            if not views[class_id]:
                raise InputError(
                    f"class {class_id} ({name}) is too small: it vanishes at {size} pixels; crop "
                    "the supports around it, or set tile"
                )
        rules = find_rules(outliner, supports, shown, ids, self.threshold, self.seed)
        # all at once: where fitting fails, what was fitted before is as it was
        self.rules_, self.classes_, self.adapted_ = rules, names, adapted
        self.views_, self.outliner_ = views, outliner
        self.shown_ = frozenset(digest(sample.image) for sample in samples)
        return self

    def unfit(self) -> "FewShotSegmenter":
        """Forget the classes and what was tuned: the model's own weights are back."""
        for name in ("classes_", "rules_", "adapted_", "views_", "outliner_", "shown_"):
            self.__dict__.pop(name, None)
        return self

    def predict(self, images: Given | Sequence[Given]) -> Any:
        """Outline the classes in new images.

        Args:
            images: as in `fit`.

        Returns:
            A `Segmentation`, or a list of them where a list was given.

        Raises:
            NotFittedError: before `fit`.
        """
        found = list(self.iter_predict(_listed(images)))
        return found if isinstance(images, (list, tuple)) else found[0]

    def iter_predict(self, images: Sequence[Given]) -> Iterator[Segmentation]:
        """The same, one after the other: only ``batch`` images' maps are in memory."""
        self._fitted()
        for at in range(0, len(images), self.batch):
            some = [
                as_image(given, f"image {number}")
                for number, given in enumerate(images[at : at + self.batch], start=at + 1)
            ]
            for seen in self._see(some):
                yield self._decided(seen)

    def is_support(self, image: Given) -> bool:
        """Whether an image is one of those shown to `fit`, pixel for pixel.

        What is found in it is no sign of what will be found in others.

        Raises:
            NotFittedError: before `fit`.
        """
        self._fitted()
        return digest(as_image(image)) in self.shown_

    def save(self, path: str | Path) -> Path:
        """Write the task as one file: settings, the supports' views, and what was tuned.

        Raises:
            NotFittedError: before `fit`.
            OSError: writing failed; what was at the path is still there.
        """
        self._fitted()
        base, _ = self._base()
        about = {
            "svfseg": __version__,
            "model": str(self.model),
            "fingerprint": backbone_fingerprint(base),
            "classes": list(self.classes_),
            "shown": sorted(self.shown_),
            "supports": {self.classes_[i - 1]: len(shots) for i, shots in self.views_.items()},
            "size": self.outliner_.size,
            "parameters": {
                n: v for n, v in self.get_params().items() if n not in ("model", "device", "size")
            },
            "rules": [_finite(vars(self.rules_[i])) for i in sorted(self.rules_)],
        }
        return save_task(Path(path), about, self.views_, self.adapted_)

    @classmethod
    def load(
        cls, path: str | Path, model: str | Path | None = None, device: str = "auto"
    ) -> "FewShotSegmenter":
        """A fitted segmenter from a file of `save`.

        Args:
            path: of the file.
            model: where its base model lies now; None looks where it was.
            device: auto, cpu, cuda, mps.

        Raises:
            MissingFileError: no such file, or its model is not there.
            InputError: a damaged file, or a model that is not the one it was fitted on.
        """
        path = Path(path)
        task = read_task(path)
        about = task.about
        given = {**about["parameters"], "size": about["size"], "device": device}
        segmenter = cls(about["model"] if model is None else model, **given)
        base, _ = segmenter._base()
        if backbone_fingerprint(base) != about["fingerprint"]:
            raise InputError(
                f"{path} was fitted on other weights than those of {segmenter.model}: load it with "
                "the model that it was fitted on"
            )
        segmenter._restore(path, task, base)
        return segmenter

    def _restore(self, path: Path, task: Task, base: nn.Module) -> None:
        adapted = restore_adapted(path, task, base)
        device = self._device()
        model = base if adapted is None else adapted.merged().to(device)
        outliner = self._outliner(model, task.about["size"])
        kind = outliner.view_type()
        self.views_ = {
            class_id: [kind(**{n: t.to(device) for n, t in view.items()}) for view in shots]
            for class_id, shots in task.views.items()
        }
        self.rules_ = {
            i: Rule(**{k: _infinite(v, k) for k, v in rule.items()})
            for i, rule in enumerate(task.about["rules"], start=1)
        }
        self.classes_, self.adapted_ = tuple(task.about["classes"]), adapted
        self.shown_ = frozenset(task.about.get("shown", ()))
        self.outliner_ = outliner

    # how it computes

    def _see(self, images: Sequence[Array]) -> list[Seen]:
        """Maps and evidence of images."""
        if self.tile:
            return [self._see_tiles(image) for image in images]
        return self.outliner_.look(images, self.views_)

    def _see_tiles(self, image: Array) -> Seen:
        """Maps and evidence of an image; tiles without evidence are empty in them."""
        height, width = image.shape[:2]
        places = windows(height, width, self.outliner_.size, self.overlap)
        seen = self.outliner_.look([cut(image, place) for place in places], self.views_)
        maps = (self._gated(part).maps for part in seen)
        whole = blend(maps, places, height, width, len(self.views_))
        return Seen(
            whole, tuple(max(each) for each in zip(*(s.evidence for s in seen), strict=True))
        )

    def _gated(self, seen: Seen) -> Seen:
        maps = seen.maps.clone()
        for i, rule in enumerate(self.rules_.values()):
            if self.empty and seen.evidence[i] < rule.presence:
                maps[i] = 0
        return Seen(maps, seen.evidence)

    def _decided(self, seen: Seen) -> Segmentation:
        present, confidence = {}, {}
        for i, rule in self.rules_.items():
            name, found, sign = self.classes_[i - 1], seen.maps[i - 1], seen.evidence[i - 1]
            present[name] = not self.empty or sign >= rule.presence
            inside = found > rule.threshold
            odds = (sign - rule.presence) / rule.spread if math.isfinite(rule.presence) else 2.0
            share = 1 / (1 + math.exp(-max(-30.0, min(30.0, odds))))
            shown = present[name] and bool(inside.any())
            sure = share * float(found[inside].mean()) if shown else 1 - share
            confidence[name] = round(sure, 4)
        thresholds = [rule.threshold for rule in self.rules_.values()]
        mask = decide(seen.maps, thresholds, list(present.values())).numpy()
        return Segmentation(mask, seen.maps.half().numpy(), confidence, present, self.classes_)

    def _outliner(self, model: nn.Module, size: int) -> Outliner:
        return Outliner(with_views(model), size, self._device(), self.batch)

    def _base(self) -> tuple[nn.Module, int]:
        """The untouched model and the side that images are fitted to; loaded once."""
        held = self.__dict__.get("_loaded")
        if held is None or held[0] != (str(self.model), self.device):
            model, config = load_head(find_model(self.model))
            model = model.to(self._device()).requires_grad_(False)
            held = ((str(self.model), self.device), model, config.data.size)
            self._loaded = held
        return cast(nn.Module, held[1]), held[2] if self.size is None else self.size

    def _device(self) -> str:
        return str(resolve(self.device))

    def _check(self) -> None:
        if self.adapt is not None:
            tuning_of(self.adapt)
        if self.size is not None and self.size < 32:
            raise InputError(f"size is {self.size}: expected at least 32 pixels")
        if self.threshold is not None and not 0 < self.threshold < 1:
            raise InputError(f"threshold is {self.threshold}: expected between 0 and 1")
        if self.batch < 1:
            raise InputError(f"batch is {self.batch}: expected 1 or more")
        if self.steps is not None and self.steps < 0:
            raise InputError(f"steps is {self.steps}: expected 0 or more")

    def _fitted(self) -> None:
        if "classes_" not in self.__dict__:
            raise NotFittedError("not fitted yet: call fit with images and masks first")

    def __sklearn_is_fitted__(self) -> bool:
        return "classes_" in self.__dict__


def _parameters(kind: type) -> Mapping[str, inspect.Parameter]:
    signature = inspect.signature(kind.__init__)  # type: ignore[misc]
    return {n: p for n, p in signature.parameters.items() if n != "self"}


def _listed(given: Given | Sequence[Given]) -> list[Given]:
    return list(given) if isinstance(given, (list, tuple)) else [given]


def _finite(values: Mapping[str, float]) -> dict[str, float | None]:
    return {k: v if math.isfinite(v) else None for k, v in values.items()}


def _infinite(value: float | None, name: str) -> float:
    if value is not None:
        return value
    return -math.inf if name == "presence" else math.nan
