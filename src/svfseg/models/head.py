"""The contract of a head, and the completion of a network that lacks parts of it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol, Self, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from svfseg.errors import InputError
from svfseg.models.backbone import Backbone
from svfseg.models.geometry import Lattice

# The tensors of a batch that an episodic head learns from.
EPISODE = ("query", "support", "support_mask", "target")


class Head(Protocol):
    """A network on a backbone that outlines a class, given supports of it.

    `EpisodicHead` implements all of it but the two that make a head what it is: the backbone and
    ``forward``. A plain ``nn.Module`` that has these two is completed by `as_head`.

    The features that ``encode`` gives and ``decode`` takes are named tuples of tensors, opaque
    outside of their head.

    Attributes:
        backbone: the features; it normalises its own input.
        inputs: names of the tensors of a batch that ``loss`` takes.
        base_classes: number of base classes that the head knows by their number; None if it
            knows none.
        trained_shots: number of supports that the head's weights are made for; None for any.
        smallest_batch: images or episodes that one process needs at least in a training step.
        any_shape: whether images may have any sides; else they are padded to a square.
        training: whether the head is in training mode.
    """

    backbone: Backbone
    inputs: ClassVar[tuple[str, ...]]
    base_classes: int | None
    trained_shots: int | None
    smallest_batch: ClassVar[int]
    any_shape: ClassVar[bool]
    training: bool

    def loss(self, *tensors: Tensor, aux: float = 1.0) -> Tensor:
        """Give the training loss of a batch.

        Args:
            tensors: those that ``inputs`` names, in their order.
            aux: weight of the head's auxiliary losses.
        """

    def encode(
        self, image: Tensor, masks: Sequence[Tensor], query: bool = True
    ) -> tuple[Any, list[Any]]:
        """Compute once what ``decode`` needs of an image.

        Args:
            image: (1, 3, height, width), RGB in 0 to 255.
            masks: (height, width) each, of 0, 1 and 255: one per class that it is a support of.
            query: whether the features of a query are wanted.

        Returns:
            The features of the query (None if not wanted), and those of the support per mask.
        """

    def decode(
        self, queries: Sequence[Any], supports: Sequence[Sequence[Any]], size: tuple[int, int]
    ) -> Tensor:
        """Outline from features what ``forward`` outlines from images.

        Args:
            queries: features of each query.
            supports: features of the supports of each query.
            size: size of the output.

        Returns:
            Logits (batch, 2, *size): background, foreground.
        """

    def presence(
        self, query: Any, supports: Sequence[Any], probability: Tensor, size: tuple[int, int]
    ) -> float:
        """Score how much speaks for the class being in the query at all.

        Args:
            query: features of the query.
            supports: features of its supports.
            probability: (height, width) of the class, on the part that the image fills.
            size: height and width of the padded input, in the same pixels.
        """

    def support_features(self, tensors: Mapping[str, Tensor]) -> Any:
        """Rebuild the features of a support from its tensors by name."""

    def keep_base(self, stages: Sequence[int]) -> None:
        """Prepare for a strategy that is about to change stages of the backbone."""

    # What every nn.Module has, see there.

    def __call__(self, *inputs: Tensor) -> Any: ...  # noqa: D102
    def eval(self) -> Self: ...  # noqa: D102
    def train(self, mode: bool = True) -> Self: ...  # noqa: D102
    def to(self, device: str | torch.device) -> Self: ...  # noqa: D102
    def requires_grad_(self, requires_grad: bool = True) -> Self: ...  # noqa: D102
    def parameters(self) -> Iterator[nn.Parameter]: ...  # noqa: D102
    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]: ...  # noqa: D102
    def modules(self) -> Iterator[nn.Module]: ...  # noqa: D102
    def named_modules(self) -> Iterator[tuple[str, nn.Module]]: ...  # noqa: D102
    def state_dict(self) -> dict[str, Any]: ...  # noqa: D102
    def load_state_dict(  # noqa: D102
        self, state_dict: Mapping[str, Any], strict: bool = True
    ) -> Any: ...


@runtime_checkable
class GeneralizedHead(Protocol):
    """A head that also segments the base classes, for the generalized score."""

    def maps(self, query: Tensor, support: Tensor, support_mask: Tensor) -> Any:
        """Give the logits of the ensemble (``final``) and of the base learner (``base``)."""


@runtime_checkable
class ComparingHead(Protocol):
    """A head whose logit is a comparison of positions: what a decoder of a task can add to."""

    @property
    def lattice(self) -> Lattice:
        """Say where the positions of its maps lie."""

    @property
    def stretched(self) -> bool:
        """Whether presence is judged by the features and not by the logits: before format 2."""

    def scale(self) -> Tensor:
        """Give what makes a logit of the difference."""

    def query(self, stages: Sequence[Tensor]) -> Any:
        """Give the features of a query from all five stages of the backbone, for one image."""

    def compare(self, query: Any, supports: Sequence[Any]) -> Tensor:
        """Compare the query with the supports.

        Returns:
            (3, rows, columns), in cosine: nearness to the class, to its surroundings, and their
            difference; zeros where no support shows the class.
        """

    def alone(self, stages: Sequence[Tensor], mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Give what a support is compared with in itself: its positions, and which show what.

        Args:
            stages: all five stages of the backbone, for one image.
            mask: (height, width) of 0, 1 and 255.

        Returns:
            Descriptors (channels, rows, columns), and two of (rows, columns) bool: inside, outside.
        """

    def without_class(self, support: Any) -> Any:
        """Give the features of an image without the class: all of it is what surrounds others.

        Args:
            support: its features with a mask of 0 and 255 alone.
        """

    def surroundings(self, support: Any) -> Tensor:
        """Give the directions (channels, n) of what surrounds the class in a support."""

    def as_in_format_1(self) -> Head:
        """Give a copy that compares as tasks of format 1 were calibrated."""

    def thin(self, support: Any, count: int) -> Any:
        """Sum up the features of a support by fewer directions.

        Args:
            support: features of a support.
            count: number of directions on each side of its mask.
        """


class ImageAndMask(NamedTuple):
    """The features of a head that only has ``forward``: the image, and a mask.

    Attributes:
        image: (1, 3, height, width).
        mask: (height, width).
    """

    image: Tensor
    mask: Tensor


class EpisodicHead(nn.Module):
    """What a head has unless it says otherwise; it needs a ``backbone`` and a ``forward``.

    ``encode`` keeps the image as it is, so that nothing is computed once; the loss is
    cross-entropy; presence is the mean of the highest hundredth of the probabilities.
    """

    inputs: ClassVar[tuple[str, ...]] = EPISODE
    smallest_batch: ClassVar[int] = 1
    any_shape: ClassVar[bool] = False
    support_type: ClassVar[type[Any]] = ImageAndMask
    base_classes: int | None = None
    trained_shots: int | None = None
    backbone: Backbone

    def loss(self, *tensors: Tensor, aux: float = 1.0) -> Tensor:
        """Give the cross-entropy of the logits, 255 ignored.

        Args:
            tensors: query, support, support_mask and target (batch, height, width).
            aux: unused; there are no auxiliary losses.
        """
        *episode, target = tensors
        return F.cross_entropy(self(*episode).float(), target.long(), ignore_index=255)

    def encode(
        self, image: Tensor, masks: Sequence[Tensor], query: bool = True
    ) -> tuple[Any, list[Any]]:
        """See `Head.encode`."""
        empty = torch.zeros(image.shape[-2:], dtype=torch.uint8, device=image.device)
        features = ImageAndMask(image, empty) if query else None
        return features, [ImageAndMask(image, mask) for mask in masks]

    def decode(
        self, queries: Sequence[Any], supports: Sequence[Sequence[Any]], size: tuple[int, int]
    ) -> Tensor:
        """See `Head.decode`: calls ``forward``, one query at a time."""
        return torch.cat([
            self(
                query.image,
                torch.cat([shot.image for shot in shots])[None],
                torch.stack([shot.mask for shot in shots])[None],
            )
            for query, shots in zip(queries, supports, strict=True)
        ])  # fmt: skip

    def presence(
        self, query: Any, supports: Sequence[Any], probability: Tensor, size: tuple[int, int]
    ) -> float:
        """See `Head.presence`."""
        count = max(1, probability.numel() // 100)
        return float(probability.flatten().topk(count).values.mean())

    def support_features(self, tensors: Mapping[str, Tensor]) -> Any:
        """See `Head.support_features`."""
        return self.support_type(**tensors)

    def keep_base(self, stages: Sequence[int]) -> None:
        """See `Head.keep_base`: there is nothing to prepare."""


def comparing(head: Head) -> ComparingHead:
    """Give a head as one that compares positions.

    Raises:
        InputError: it does not.
    """
    if not isinstance(head, ComparingHead):
        raise InputError(f"{type(head).__name__} does not compare positions: expected a dense head")
    return head


def takes_images(head: Head) -> bool:
    """Whether a head learns from single images, as a base learner does, and not from episodes."""
    return head.inputs[0] == "image"


def computes_features_once(head: Head) -> bool:
    """Whether ``encode`` does a share of the work, so that its features are worth keeping."""
    return type(head).encode is not EpisodicHead.encode


def as_head(module: nn.Module) -> Head:
    """Complete a network that has a ``backbone`` and a ``forward`` to a `Head`, in place.

    What its class defines itself (a loss, say) stays; the rest is taken from `EpisodicHead`.

    Raises:
        InputError: it has no ``backbone``.
    """
    if not isinstance(module, nn.Module):
        raise InputError(f"a head is a torch.nn.Module: found {type(module).__name__}")
    # not by the protocol: from Python 3.12 on it does not see what a module holds as a submodule
    if not isinstance(getattr(module, "backbone", None), nn.Module):
        name = type(module).__name__
        raise InputError(f"{name} is not a head: expected a backbone as its attribute 'backbone'")
    if not isinstance(module, EpisodicHead):
        module.__class__ = _completed(type(module))
    head: Head = module  # type: ignore[assignment]
    return head


# One class per completed class, so that equal heads have equal types.
_COMPLETED: dict[type[nn.Module], type[nn.Module]] = {}


def _completed(kind: type[nn.Module]) -> type[nn.Module]:
    if kind not in _COMPLETED:
        bases = (_Completed, kind, EpisodicHead)
        _COMPLETED[kind] = type(kind.__name__, bases, {"completed": kind})
    return _COMPLETED[kind]


class _Completed(nn.Module):
    """First base of completed classes, so that their objects can be pickled."""

    completed: ClassVar[type[nn.Module]]

    def __reduce__(self) -> tuple[Any, ...]:
        return _revive, (self.completed,), self.__dict__


def _revive(kind: type[nn.Module]) -> nn.Module:
    completed_class = _completed(kind)
    return completed_class.__new__(completed_class)
