"""Heads and backbones. A head is called with (query, support, support_mask) and gives logits."""

from collections.abc import Callable

from torch import nn

from svfseg.config import ModelConfig, look_up
from svfseg.models.backbone import Backbone, Features, build_backbone
from svfseg.models.bam import BAM
from svfseg.models.baseline import Baseline
from svfseg.models.dense import Dense
from svfseg.models.pfenet import PFENet
from svfseg.models.pspnet import PSPNet

__all__ = [
    "BAM",
    "HEADS",
    "Backbone",
    "Baseline",
    "Dense",
    "Features",
    "PFENet",
    "PSPNet",
    "build_backbone",
    "build_model",
]

HEADS: dict[str, Callable[[Backbone, ModelConfig], nn.Module]] = {
    "baseline": lambda backbone, c: Baseline(backbone, c.hidden, c.dropout),
    "pfenet": lambda backbone, c: PFENet(backbone, c.hidden, c.bins, c.dropout),
    "bam": lambda backbone, c: BAM(backbone, c.base_classes, c.hidden, c.dropout, c.weighted_shots),
    "dense": lambda backbone, c: Dense(backbone),
    "pspnet": lambda backbone, c: PSPNet(backbone, c.base_classes, c.hidden),
}


def build_model(config: ModelConfig) -> nn.Module:
    """A head on its backbone.

    A dotted path in ``config.head`` names a class of your own; it is called with the backbone.

    Raises:
        InputError: an unknown head or backbone, or weights that do not fit.
        MissingFileError: a weight file that is not there.
    """
    backbone = build_backbone(config.backbone)
    if config.head in HEADS:
        return HEADS[config.head](backbone, config)
    head: nn.Module = look_up(config.head, HEADS, "head")(backbone)
    return head


def takes_images(model: nn.Module) -> bool:
    """Whether a model learns classes from single images, not from episodes."""
    inputs: tuple[str, ...] = getattr(model, "inputs", ())
    return "image" in inputs
