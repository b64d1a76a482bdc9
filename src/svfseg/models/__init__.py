"""Heads and backbones. A head is called with (query, support, support_mask) and gives logits."""

import inspect
from collections.abc import Callable
from dataclasses import fields
from typing import Any

from svfseg.config import ModelConfig, look_up
from svfseg.errors import InputError
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

    A dotted path in ``config.head`` names a class of your own; it is called with the backbone, and
    with those settings of the config that are not the usual ones, by their names.

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
    own = look_up(config.head, HEADS, "head")
    return as_head(own(backbone, **_settings_for(own, config)))


def _settings_for(own: Callable[..., Any], config: ModelConfig) -> dict[str, Any]:
    """Settings of the config that are not the usual ones, for a head of one's own that takes them.

    Raises:
        InputError: it does not take one of them.
    """
    usual, taken = ModelConfig(), inspect.signature(own).parameters
    every = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in taken.values())
    changed = {
        field.name: getattr(config, field.name)
        for field in fields(config)
        if field.name not in ("head", "backbone", "base_learner")
        and getattr(config, field.name) != getattr(usual, field.name)
    }
    missing = [name for name in changed if name not in taken and not every]
    if missing:
        raise InputError(
            f"model.{missing[0]} is {changed[missing[0]]!r}, and {config.head} takes no "
            f"{missing[0]}: leave it out, or give its __init__ a parameter of that name"
        )
    return changed


def build_base_learner(config: ModelConfig) -> PSPNet:
    """Build the base learner that BAM of the same settings starts from."""
    return PSPNet(build_backbone(config.backbone), config.base_classes, config.hidden)


def learns_base_classes(name: str) -> bool:
    """Whether the head of a name learns base classes, and cannot be scored on novel ones."""
    return name == "pspnet"
