"""Classifiers of single pixels, as other programs have them: what svfseg is compared with."""

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from svfseg.data.images import Array
from svfseg.data.transforms import to_ids, to_tensor
from svfseg.errors import InputError
from svfseg.models import Head
from svfseg.segmenter.base import load_base
from svfseg.segmenter.resizing import fit_image, fitted_sides, resize_ids

PIXELS, SIZE, LARGEST = 20_000, 640, 2_000


class PixelClassifier:
    """Label pixels by a classifier of scikit-learn that is trained on those of the supports.

    Args:
        kind: "logistic": logistic regression on the default network's five stages, enlarged to
            stage 1; "forest": a random forest on scikit-image's multiscale features, which is how
            ilastik and its kin work.
        seed: seed of the choice of pixels and of the forest.
        device: device of the network.
    """

    def __init__(self, kind: str, seed: int, device: str) -> None:
        self.kind, self.seed, self.device = kind, seed, device
        self.head: Head | None = None
        if kind == "logistic":
            self.head = load_base("default", device).head

    def fit(self, images: Sequence[Array], masks: Sequence[Array | None]) -> Self:
        """Train on pixels of all images, as many inside as outside where there are enough."""
        try:
            from sklearn.ensemble import RandomForestClassifier
            from sklearn.linear_model import LogisticRegression
            from sklearn.pipeline import make_pipeline
            from sklearn.preprocessing import StandardScaler
        except ImportError as error:
            raise InputError("this needs scikit-learn: pip install 'svfseg[demo]'") from error
        rng = np.random.default_rng((self.seed, 19))
        features, labels = [], []
        for image, mask in zip(images, masks, strict=True):
            described = self._describe(image)
            ids = np.zeros(image.shape[:2], np.uint8) if mask is None else mask
            small = resize_ids(to_ids(ids), described.shape[:2]).numpy().ravel()
            flat = described.reshape(-1, described.shape[-1])
            for label in (0, 1):
                places = np.nonzero(small == label)[0]
                count = min(len(places), PIXELS // (2 * len(images)))
                chosen = rng.choice(places, count, replace=False)
                features.append(flat[chosen])
                labels.append(np.full(count, label))
        if len({*np.concatenate(labels).tolist()}) < 2:
            raise InputError(
                "the supports show only the class or only its surroundings: add others"
            )
        self.model: Any
        if self.kind == "logistic":
            self.model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=300))
        else:
            self.model = RandomForestClassifier(100, min_samples_leaf=5, random_state=self.seed)
        self.model.fit(np.concatenate(features), np.concatenate(labels))
        return self

    def predict(self, image: Array) -> Array:
        """Give a mask (height, width) of 0 and 1."""
        described = self._describe(image)
        shares = self.model.predict_proba(described.reshape(-1, described.shape[-1]))[:, 1]
        maps = torch.from_numpy(shares.reshape(1, 1, *described.shape[:2])).float()
        own = F.interpolate(maps, image.shape[:2], mode="bilinear", align_corners=False)
        return (own[0, 0] > 0.5).numpy().astype(np.uint8)

    def _describe(self, image: Array) -> npt.NDArray[np.float32]:
        """(rows, columns, channels)."""
        if self.head is None:
            try:
                from skimage.feature import multiscale_basic_features
            except ImportError as error:
                raise InputError("this needs scikit-image: pip install 'svfseg[demo]'") from error
            height, width = image.shape[:2]
            if max(height, width) > LARGEST:
                sides = fitted_sides(height, width, LARGEST)
                resized = F.interpolate(
                    to_tensor(image)[None], sides, mode="bilinear", antialias=True
                )
                image = resized[0].permute(1, 2, 0).byte().numpy()
            features: Any = multiscale_basic_features
            values = features(image, channel_axis=-1, sigma_max=16)
            return np.asarray(values, np.float32)
        fitted = fit_image(image, SIZE, True)
        with torch.inference_mode():
            stages = self.head.backbone(fitted.image[None].to(self.device))
        size = stages[1].shape[-2:]
        parts = [
            F.interpolate(stage, size, mode="bilinear", align_corners=False) for stage in stages[1:]
        ]
        rows, columns = (
            max(1, round(side * extent / whole))
            for side, extent, whole in zip(
                size, (fitted.height, fitted.width), fitted.image.shape[-2:], strict=True
            )
        )
        joined = torch.cat(parts, dim=1)[0, :, :rows, :columns]
        return joined.permute(1, 2, 0).cpu().numpy()
