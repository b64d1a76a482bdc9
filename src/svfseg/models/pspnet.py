"""PSPNet on the base classes: BAM's base learner (Zhao et al., CVPR 2017)."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from svfseg.models.backbone import Backbone
from svfseg.models.functional import resize
from svfseg.models.head import EpisodicHead

BINS = (1, 2, 3, 6)


class PyramidPooling(nn.Module):
    """A feature map next to its means over 1, 4, 9 and 36 cells, each reduced to a quarter.

    Args:
        channels: number of channels of the features.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        width = channels // len(BINS)
        self.features = nn.ModuleList(
            nn.Sequential(
                nn.AdaptiveAvgPool2d(side),
                nn.Conv2d(channels, width, 1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(inplace=True),
            )
            for side in BINS
        )

    def forward(self, x: Tensor) -> Tensor:
        """Pool at several sizes: (batch, channels, height, width) -> about twice the channels."""
        pooled = [resize(level(x), x.shape[-2:]) for level in self.features]
        return torch.cat([x, *pooled], dim=1)


class BaseLearner(nn.Sequential):
    """Pyramid pooling and a classifier of background and the base classes.

    Args:
        channels: number of channels of layer4.
        classes: base classes, without background.
        width: channels in front of the classifier.
    """

    def __init__(self, channels: int, classes: int, width: int) -> None:
        pooled = channels + len(BINS) * (channels // len(BINS))
        super().__init__(
            PyramidPooling(channels),
            nn.Sequential(
                nn.Conv2d(pooled, width, 3, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(inplace=True),
                nn.Dropout2d(0.1),
                nn.Conv2d(width, 1 + classes, 1),
            ),
        )


class PSPNet(EpisodicHead):
    """Segments all base classes of single images; learns no episodes.

    Args:
        backbone: the features; published training tunes all of it, normalisation included.
        classes: base classes, without background (15 on Pascal-5i, 60 on COCO-20i).
        hidden: half of the channels in front of the classifier.
    """

    inputs: ClassVar[tuple[str, ...]] = ("image", "target")
    smallest_batch = 2  # its pyramid normalises over the batch

    def __init__(self, backbone: Backbone, classes: int, hidden: int = 256) -> None:
        super().__init__()
        self.backbone = backbone
        self.base_classes = classes
        self.learner_base = BaseLearner(backbone.channels[4], classes, 2 * hidden)

    def forward(self, image: Tensor) -> Tensor:
        """Give logits (batch, 1 + classes, height, width) of images (batch, 3, height, width)."""
        logits: Tensor = self.learner_base(self.backbone.encode(image).layer4)
        return resize(logits, image.shape[-2:])

    def loss(self, *tensors: Tensor, aux: float = 1.0) -> Tensor:
        """Give the cross-entropy, 255 ignored.

        Args:
            tensors: image as in `forward`, and target (batch, height, width) of 0, 1 to classes,
                and 255.
            aux: unused; there is no auxiliary loss.
        """
        image, target = tensors
        return F.cross_entropy(self(image).float(), target.long(), ignore_index=255)
