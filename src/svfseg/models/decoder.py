"""A small decoder over all stages of a backbone, fitted to the supports of one task."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from svfseg.models.geometry import PIXELS, Lattice, sample

HIDDEN = 32
_GROUPS = 8
# The comparison maps are cosines, of which a tenth is much; features are of the order of one.
_MAP_SCALE = 10.0
# Stages that read the comparison maps.
_READS_MAPS = (2, 3, 4)


def enlarged(maps: Tensor, lattice: Lattice, size: Sequence[int]) -> Tensor:
    """Give the differences of comparison maps at the pixels.

    Args:
        maps: (batch, 3 * classes, rows, columns), see `svfseg.models.ComparingHead.compare`.
        lattice: where the positions lie.
        size: height and width in pixels.

    Returns:
        (batch, classes, *size).
    """
    return sample(maps[:, 2::3], lattice, PIXELS, size)


class Decoder(nn.Module):
    """Outline classes from features of all stages beside the comparison with the supports.

    Each stage is reduced to `HIDDEN` channels; from the deepest on, each is enlarged and added to
    the next, and a 3x3 convolution follows (a feature pyramid, Lin et al., CVPR 2017). The
    residual that comes out is added to the comparison; its last layer starts at zero, so that the
    decoder begins as the comparison and learns what that misses.

    Args:
        channels: channels of the stages, the finest first.
        classes: number of classes.
    """

    def __init__(self, channels: Sequence[int], classes: int) -> None:
        super().__init__()
        extra = 3 * classes
        self.reduce = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(c + (extra if i in _READS_MAPS else 0), HIDDEN, 1, bias=False),
                nn.GroupNorm(_GROUPS, HIDDEN),
            )
            for i, c in enumerate(channels)
        )
        self.refine = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(HIDDEN, HIDDEN, 3, padding=1, bias=False),
                nn.GroupNorm(_GROUPS, HIDDEN),
                nn.ReLU(inplace=True),
            )
            for _ in channels
        )
        self.last = nn.Conv2d(HIDDEN, classes, 1)
        for parameter in self.last.parameters():
            nn.init.zeros_(parameter)
        self.log_scale = nn.Parameter(torch.full((classes,), 3.0))
        self.shift = nn.Parameter(torch.zeros(classes))

    def forward(self, stages: Sequence[Tensor], maps: Tensor) -> Tensor:
        """Compute the residual.

        Args:
            stages: (batch, channels, height, width) each, the finest first.
            maps: (batch, 3 * classes, rows, columns), the comparison maps.

        Returns:
            (batch, classes, height, width) at the size of the finest stage.
        """
        x: Tensor | None = None
        for i in reversed(range(len(stages))):
            features = stages[i]
            size = features.shape[-2:]
            if i in _READS_MAPS:
                own = F.interpolate(maps * _MAP_SCALE, size, mode="bilinear", align_corners=False)
                features = torch.cat([features, own], dim=1)
            reduced = self.reduce[i](features)
            if x is not None:
                x = F.interpolate(x, size, mode="bilinear", align_corners=False)
                reduced = reduced + x
            x = self.refine[i](reduced)
        residual: Tensor = self.last(x)
        return residual

    def logits(self, residual: Tensor, difference: Tensor, share: float = 1.0) -> Tensor:
        """Add a share of the residual to the comparison.

        Args:
            residual: what `forward` gave.
            difference: (batch, classes, height, width) in cosine, at the size of the result.
            share: how far the residual is trusted.

        Returns:
            (batch, classes, height, width).
        """
        learned = F.interpolate(
            residual, difference.shape[-2:], mode="bilinear", align_corners=False
        )
        scale, shift = self.log_scale.exp()[:, None, None], self.shift[:, None, None]
        return scale * (difference - shift) + share * learned
