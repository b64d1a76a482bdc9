"""Which of the backbone's weights train: one function a strategy, one dict."""

import re
from collections.abc import Callable
from typing import cast

import torch
from torch import nn

from svfseg.config import TuningConfig, look_up
from svfseg.errors import InputError
from svfseg.models import Backbone
from svfseg.svf import apply_svf, fuse, merge_svf, set_route
from svfseg.svf.layers import FactoredLayer
from svfseg.tuning.modules import (
    add_adapters,
    add_lora,
    add_scales,
    matching_layers,
    merge_lora,
    merge_scales,
)

Progress = Callable[[int, int], None]


def stages_pattern(stages: tuple[int, ...]) -> str:
    """Regular expression for the layers of some stages of a backbone.

    Raises:
        InputError: a stage out of 0 to 4, or none.
    """
    if not stages or set(stages) - set(range(5)):
        raise InputError(f"tuning.stages is {list(stages)}: expected one or more of 0 to 4")
    return rf"layer[{''.join(map(str, sorted(set(stages))))}](\..*)?"


def frozen(backbone: Backbone, config: TuningConfig, progress: Progress | None) -> None:
    """Nothing trains: the field's habit."""


def full(backbone: Backbone, config: TuningConfig, progress: Progress | None) -> None:
    """Weights and biases of every convolution; normalisation is `BackboneConfig.norm`'s."""
    for _, layer in matching_layers(backbone, ".*"):
        layer.requires_grad_(True)


def layers(backbone: Backbone, config: TuningConfig, progress: Progress | None) -> None:
    """Weights and biases of the stages' convolutions."""
    for _, layer in matching_layers(backbone, stages_pattern(config.stages)):
        layer.requires_grad_(True)


def conv(backbone: Backbone, config: TuningConfig, progress: Progress | None) -> None:
    """The stages' convolutions with kernels of 3x3 and more, or those with 1x1."""
    for _, layer in matching_layers(backbone, stages_pattern(config.stages)):
        pointwise = set(getattr(layer, "kernel_size", (1,))) == {1}
        layer.requires_grad_(pointwise == (config.kernels == "pointwise"))


def norm(backbone: Backbone, config: TuningConfig, progress: Progress | None) -> None:
    """Scale and shift of the stages' normalisation; its statistics where the config says so."""
    pattern = stages_pattern(config.stages)
    inside = {id(layer) for layer in backbone.norm_layers()}
    for name, layer in backbone.named_modules():
        if id(layer) in inside and re.fullmatch(pattern, name):
            layer.requires_grad_(True)
    if config.statistics:
        backbone.let_statistics_move(pattern)


def bias(backbone: Backbone, config: TuningConfig, progress: Progress | None) -> None:
    """Biases of the stages' layers and shifts of their normalisation (BitFit, ACL 2022)."""
    pattern = re.compile(stages_pattern(config.stages) + r"\.bias")
    for name, parameter in backbone.named_parameters():
        if pattern.fullmatch(name):
            parameter.requires_grad_(True)


def adapter(backbone: Backbone, config: TuningConfig, progress: Progress | None) -> None:
    """A bottleneck of 1x1 convolutions behind each block of the stages."""
    weight = next(backbone.parameters())
    image = torch.zeros(1, 3, 64, 64).to(weight)
    add_adapters(backbone, stages_pattern(config.stages), _rank(config), image)


def lora(backbone: Backbone, config: TuningConfig, progress: Progress | None) -> None:
    """Low-rank additions to the stages' ungrouped convolutions (Hu et al., ICLR 2022; peft)."""
    add_lora(backbone, stages_pattern(config.stages), _rank(config))


def ssf(backbone: Backbone, config: TuningConfig, progress: Progress | None) -> None:
    """A scale and a shift behind each convolution of the stages (Lian et al., NeurIPS 2022)."""
    add_scales(backbone, stages_pattern(config.stages))


def svf(backbone: Backbone, config: TuningConfig, progress: Progress | None) -> None:
    """Singular values of the stages' convolutions (Sun et al., NeurIPS 2022)."""
    target = stages_pattern(config.stages)
    apply_svf(backbone, target, None, config.train, config.scale, progress)
    finish_svf(backbone, config)


def finish_svf(backbone: Backbone, config: TuningConfig) -> None:
    """What comes after factoring: the route, cheap passes, and with svf+norm normalisation."""
    set_route(backbone, config.route)
    if config.strategy == "svf+norm":
        norm(backbone, config, None)
    if config.route != "differentiable":
        fuse(backbone)


# Each gets a backbone that is frozen throughout and leaves trainable what is to train.
STRATEGIES: dict[str, Callable[[Backbone, TuningConfig, Progress | None], None]] = {
    "frozen": frozen,
    "full": full,
    "layers": layers,
    "conv": conv,
    "norm": norm,
    "bias": bias,
    "adapter": adapter,
    "lora": lora,
    "ssf": ssf,
    "svf": svf,
    "svf+norm": svf,
}


def tune(
    model: nn.Module, config: TuningConfig, progress: Progress | None = None
) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Freeze the backbone but for what a strategy trains, in place.

    Args:
        model: a head with its ``backbone``.
        config: the strategy and its settings.
        progress: called with (layers factored, layers in all) where that is what takes time.

    Returns:
        (head parameters, tuned backbone parameters), for two groups of an optimizer.

    Raises:
        InputError: an unknown strategy, settings it cannot use, or nothing in the stages that it
            could train.
    """
    strategy = look_up(config.strategy, STRATEGIES, "strategy")
    backbone = cast(Backbone, model.backbone)
    backbone.requires_grad_(False)
    keep = getattr(model, "keep_base", None)
    if keep is not None:  # a branch that goes on with the weights as they are
        keep(_changing(backbone, config))
    strategy(backbone, config, progress)
    if config.strategy != "frozen" and not any(p.requires_grad for p in backbone.parameters()):
        raise InputError(
            f"strategy {config.strategy} finds nothing to train in stages {list(config.stages)}"
        )
    if backbone.norm == "train":
        for layer in backbone.norm_layers():
            layer.requires_grad_(True)
    return trained_parameters(model)


def trained_parameters(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """(head, tuned backbone) parameters that train, in the model's order."""
    inside = {id(p) for p in cast(Backbone, model.backbone).parameters()}
    trained = [p for p in model.parameters() if p.requires_grad]
    return [p for p in trained if id(p) not in inside], [p for p in trained if id(p) in inside]


def merge_tuned(backbone: nn.Module) -> nn.Module:
    """Put what was trained into the plain weights, in place; adapters cannot be, and stay."""
    if any(isinstance(module, FactoredLayer) for module in backbone.modules()):
        merge_svf(backbone)
    merge_scales(backbone)
    merge_lora(backbone)
    return backbone


def _changing(backbone: Backbone, config: TuningConfig) -> tuple[int, ...]:
    """Stages that a strategy changes."""
    if config.strategy == "full" or backbone.norm == "train":
        return tuple(range(5))
    return () if config.strategy == "frozen" else config.stages


def _rank(config: TuningConfig) -> int:
    if config.rank < 1:
        raise InputError(f"tuning.rank is {config.rank}: expected 1 or more")
    return config.rank
