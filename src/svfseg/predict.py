"""Outline a class in new images, given a few images of it with masks."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from svfseg.checkpoint import load_head
from svfseg.data.images import Array, check_same_size
from svfseg.data.transforms import fit_image, fit_mask, logits_at_original, to_tensor


@dataclass(frozen=True)
class Prediction:
    """A query's outline at its own size.

    Attributes:
        mask: (height, width), 0 and 1.
        probability: (height, width) of the class, in [0, 1].
    """

    mask: Array
    probability: npt.NDArray[np.float32]


class Predictor:
    """A trained model with the supports of one class.

    Args:
        model: a head in eval mode.
        size: side of the square that images are fitted to, as in training.
        device: where to compute.
    """

    def __init__(self, model: nn.Module, size: int, device: str = "cpu") -> None:
        self.model: Any = model.to(device).eval()
        self.size, self.device = size, device
        self._support: tuple[Tensor, Tensor] | None = None
        self._views: list[Any] | None = None

    @classmethod
    def from_run(cls, run: str | Path, device: str = "cpu") -> "Predictor":
        """A predictor with the best checkpoint of a run folder.

        Raises:
            FileNotFoundError: no run, or no checkpoint in it.
            ValueError: a damaged run, or base weights that are not its own.
        """
        model, config = load_head(run)
        return cls(model, config.data.size, device)

    def set_support(self, images: Sequence[Array], masks: Sequence[Array]) -> "Predictor":
        """Show the class.

        Args:
            images: one or more (height, width, 3), uint8 RGB.
            masks: as many (height, width); non-zero is the class.

        Raises:
            ValueError: no support, an empty mask, or sizes that differ.
        """
        if not images or len(images) != len(masks):
            raise ValueError(
                f"found {len(images)} support image(s) and {len(masks)} mask(s): give at least one "
                "image, and one mask for each"
            )
        shown, marked = [], []
        for number, (image, mask) in enumerate(zip(images, masks, strict=True), start=1):
            check_same_size(image, mask, f"support {number}")
            if not mask.any():
                raise ValueError(f"the mask of support {number} is empty: mark the class in it")
            binary = torch.from_numpy((mask != 0).astype(np.uint8))
            fitted = fit_mask(binary, self.size)
            if not (fitted == 1).any():
                raise ValueError(
                    f"the class in support {number} is too small: it vanishes at {self.size} "
                    "pixels; crop the image around it"
                )
            shown.append(fit_image(to_tensor(image), self.size))
            marked.append(fitted)
        self._support = (torch.stack(shown)[None], torch.stack(marked)[None])
        self._views = None
        if hasattr(self.model, "views"):  # the supports are computed now, and never again
            with torch.inference_mode():
                self._views = [
                    self.model.views(i[None].to(self.device), [m.to(self.device)], query=False)[1][
                        0
                    ]
                    for i, m in zip(shown, marked, strict=True)
                ]
        return self

    @torch.inference_mode()
    def predict(self, image: Array) -> Prediction:
        """Outline the class in a new image, (height, width, 3), uint8 RGB.

        Raises:
            RuntimeError: no support yet.
        """
        if self._support is None:
            raise RuntimeError("no support: call set_support first")
        query = fit_image(to_tensor(image), self.size)[None]
        if self._views is None:
            logits = self.model(*(x.to(self.device) for x in (query, *self._support)))[0]
        else:
            seen, _ = self.model.views(query.to(self.device), [])
            logits = self.model.outline([seen], [self._views], query.shape[-2:])[0]
        whole = logits_at_original(logits.float().cpu(), *image.shape[:2])
        probability = whole.softmax(dim=0)[1].numpy()
        return Prediction(whole.argmax(dim=0).numpy().astype(np.uint8), probability)
