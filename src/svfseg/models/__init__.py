"""Heads and backbones. A head is called with (query, support, support_mask) and gives logits."""

from collections.abc import Callable

from svfseg.config import ModelConfig, look_up
from svfseg.models import functional
from svfseg.models.backbone import Backbone, Features, build_backbone
from svfseg.models.bam import BAM
from svfseg.models.baseline import Baseline
from svfseg.models.dense import Dense
from svfseg.models.head import (
    EpisodicHead,
    GeneralizedHead,
    Head,
    as_head,
    computes_features_once,
    takes_images,
)
from svfseg.models.pfenet import PFENet
from svfseg.models.pspnet import PSPNet

__all__ = [
    "BAM",
    "HEADS",
    "Backbone",
    "Baseline",
    "Dense",
    "EpisodicHead",
    "Features",
    "GeneralizedHead",
    "Head",
    "PFENet",
    "PSPNet",
    "as_head",
    "build_backbone",
    "build_base_learner",
    "build_model",
    "computes_features_once",
    "functional",
    "learns_base_classes",
    "takes_images",
]

HEADS: dict[str, Callable[[Backbone, ModelConfig], Head]] = {
    "baseline": lambda backbone, c: Baseline(backbone, c.hidden, c.dropout),
    "pfenet": lambda backbone, c: PFENet(backbone, c.hidden, c.bins, c.dropout),
    "bam": lambda backbone, c: BAM(backbone, c.base_classes, c.hidden, c.dropout, c.weighted_shots),
    "dense": lambda backbone, c: Dense(backbone),
    "pspnet": lambda backbone, c: PSPNet(backbone, c.base_classes, c.hidden),
}


def build_model(config: ModelConfig) -> Head:
    """Build a head on its backbone.

    A dotted path in ``config.head`` names a class of your own; it is called with the backbone.

    Raises:
        InputError: an unknown head or backbone, or weights that do not fit.
        MissingFileError: a weight file that is not there.

    Example:
        >>> import torch
        >>> from svfseg import build_model
        >>> from svfseg.config import BackboneConfig, ModelConfig
        >>> backbone = BackboneConfig("test_resnet", "none")
        >>> head = build_model(ModelConfig("baseline", hidden=16, backbone=backbone)).eval()
        >>> image, mask = 255 * torch.rand(1, 3, 64, 64), torch.zeros(1, 1, 64, 64)
        >>> mask[..., 16:48, 16:48] = 1
        >>> head(image, image[:, None], mask).shape  # background and class
        torch.Size([1, 2, 64, 64])
    """
    backbone = build_backbone(config.backbone)
    if config.head in HEADS:
        return HEADS[config.head](backbone, config)
    return as_head(look_up(config.head, HEADS, "head")(backbone))


def build_base_learner(config: ModelConfig) -> PSPNet:
    """Build the base learner that BAM of the same settings starts from."""
    return PSPNet(build_backbone(config.backbone), config.base_classes, config.hidden)


def learns_base_classes(name: str) -> bool:
    """Whether the head of a name learns base classes, and cannot be scored on novel ones."""
    return name == "pspnet"
