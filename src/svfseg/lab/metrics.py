"""Sum intersection and union over episodes, for mIoU and FB-IoU.

The field's mIoU sums intersections and unions of one class over all its episodes, divides, and
averages over the novel classes: it is not the mean of the episodes' IoUs.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from svfseg.errors import InputError

IGNORE = 255


def intersection_union(
    prediction: Tensor, target: Tensor, ignore_index: int = IGNORE
) -> tuple[Tensor, Tensor]:
    """Count the pixels in both, and in either, for background and foreground.

    Args:
        prediction: integer tensor of 0 and 1, any shape.
        target: the same shape, of 0, 1 and ``ignore_index``; ignored pixels count nowhere.
        ignore_index: the value of pixels without a label.

    Returns:
        (intersection, union), each int64 of shape (2,): background, foreground.

    Raises:
        InputError: the shapes differ.
    """
    if prediction.shape != target.shape:
        raise InputError(
            f"prediction {tuple(prediction.shape)} and target {tuple(target.shape)} differ in shape"
        )
    valid = target != ignore_index
    p, t = prediction[valid].bool(), target[valid].bool()
    both, either = (p & t).sum(), (p | t).sum()
    intersection = torch.stack([valid.sum() - either, both])
    union = torch.stack([valid.sum() - both, either])
    return intersection, union


@dataclass
class IoUMeter:
    """Sums per class over episodes; merges with another meter (processes, folds).

    Attributes:
        classes: id -> name of the classes that count; a class never met scores 0.
        records: (class id, foreground intersection, union) of each episode, in order.

    Example:
        >>> meter = IoUMeter({1: "cat", 2: "dog"})
        >>> meter.update(torch.tensor([1, 1, 0, 0]), torch.tensor([1, 0, 0, 255]), class_id=1)
        >>> meter.update(torch.tensor([1, 1, 0, 0]), torch.tensor([1, 1, 0, 0]), class_id=2)
        >>> meter.per_class(), meter.miou()
        ({'cat': 0.5, 'dog': 1.0}, 0.75)
    """

    classes: Mapping[int, str]
    intersection: Tensor = field(init=False)
    union: Tensor = field(init=False)
    episodes: int = 0
    records: list[tuple[int, int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._row = {class_id: i for i, class_id in enumerate(self.classes)}
        self.intersection = torch.zeros(len(self.classes), 2, dtype=torch.int64)
        self.union = torch.zeros(len(self.classes), 2, dtype=torch.int64)

    def update(self, prediction: Tensor, target: Tensor, class_id: int) -> None:
        """Add one episode: masks as in `intersection_union`, of one class."""
        intersection, union = intersection_union(prediction, target)
        self.intersection[self._row[class_id]] += intersection.cpu()
        self.union[self._row[class_id]] += union.cpu()
        self.episodes += 1
        self.records.append((class_id, int(intersection[1]), int(union[1])))

    def merge(self, other: "IoUMeter") -> None:
        """Add the sums of a meter over the same classes."""
        self.intersection += other.intersection
        self.union += other.union
        self.episodes += other.episodes
        self.records += other.records

    def per_class(self) -> dict[str, float]:
        """Compute the foreground IoU of each class in [0, 1], in the order of `classes`."""
        scores = _ratio(self.intersection[:, 1], self.union[:, 1])
        return dict(zip(self.classes.values(), scores.tolist(), strict=True))

    def miou(self) -> float:
        """Mean of the classes' foreground IoU, in [0, 1]."""
        scores = self.per_class()
        return sum(scores.values()) / len(scores)

    def fb_iou(self) -> float:
        """Mean of background and foreground IoU over all episodes, whatever the class."""
        return float(_ratio(self.intersection.sum(dim=0), self.union.sum(dim=0)).mean())


@dataclass
class ClassMeter:
    """Sums over images of a map of several classes at once: a base learner's, or the generalized.

    Attributes:
        names: names of the classes 1 to n; 0 is background.

    Example:
        >>> meter = ClassMeter(("cat", "dog"))
        >>> meter.update(torch.tensor([0, 1, 1, 2]), torch.tensor([0, 1, 2, 2]))
        >>> meter.per_class()
        {'cat': 0.5, 'dog': 0.5}
    """

    names: tuple[str, ...]
    confusion: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.confusion = torch.zeros(len(self.names) + 1, len(self.names) + 1, dtype=torch.int64)

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add maps of class numbers, any shape; a target of 255 counts nowhere."""
        valid = target != IGNORE
        side = len(self.confusion)
        pairs = target[valid].long() * side + prediction[valid].long()
        self.confusion += torch.bincount(pairs, minlength=side**2).reshape(side, side).cpu()

    def per_class(self) -> dict[str, float]:
        """Compute the IoU of each class in [0, 1]; a class that does not occur scores 0."""
        both = self.confusion.diagonal()
        either = self.confusion.sum(dim=0) + self.confusion.sum(dim=1) - both
        return dict(zip(self.names, _ratio(both, either)[1:].tolist(), strict=True))

    def miou(self, names: Iterable[str] | None = None) -> float:
        """Mean IoU of all classes, or of some, in [0, 1]."""
        scores = self.per_class()
        chosen = [scores[name] for name in (scores if names is None else names)]
        return sum(chosen) / len(chosen)

    def fb_iou(self) -> float:
        """Mean IoU of background, and of all classes taken as one foreground."""
        back, total = self.confusion[0, 0], self.confusion.sum()
        front = self.confusion[1:, 1:].sum()
        both = torch.stack([back, front])
        return float(_ratio(both, torch.stack([total - front, total - back])).mean())


def _ratio(intersection: Tensor, union: Tensor) -> Tensor:
    return intersection.double() / (union.double() + 1e-10)
