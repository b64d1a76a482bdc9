"""Heads and backbones. A head is called with (query, support, support_mask) and gives logits."""

import importlib
from collections.abc import Callable

from torch import nn

from svfseg.config import ModelConfig, nearest
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
        ValueError: an unknown head or backbone, or weights that do not fit.
        FileNotFoundError: a weight file that is not there.
    """
    head = HEADS.get(config.head) or _own_head(config.head)
    return head(build_backbone(config.backbone), config)


def _own_head(path: str) -> Callable[[Backbone, ModelConfig], nn.Module]:
    module, _, name = path.rpartition(".")
    if not module:
        raise ValueError(f"unknown head {path}{nearest(path, HEADS)}")
    try:
        own = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"head {path} cannot be imported: {error}") from error
    return lambda backbone, _: own(backbone)
