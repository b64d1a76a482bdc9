"""Which of the backbone's weights train: one function a strategy, one dict."""

import re
from collections.abc import Callable
from typing import cast

from torch import nn

from svfseg.config import TuningConfig, nearest
from svfseg.models import Backbone
from svfseg.svf import apply_svf, fuse, set_route

Progress = Callable[[int, int], None]


def stages_pattern(stages: tuple[int, ...]) -> str:
    """Regular expression for the layers of some stages of a backbone.

    Raises:
        ValueError: a stage out of 0 to 4, or none.
    """
    if not stages or set(stages) - set(range(5)):
        raise ValueError(f"tuning.stages is {list(stages)}: expected one or more of 0 to 4")
    return rf"layer[{''.join(map(str, sorted(set(stages))))}](\..*)?"


def frozen(backbone: Backbone, config: TuningConfig, progress: Progress | None) -> None:
    """Nothing trains: the field's habit."""


def svf(backbone: Backbone, config: TuningConfig, progress: Progress | None) -> None:
    """Singular values of the stages' convolutions (Sun et al., NeurIPS 2022)."""
    target = stages_pattern(config.stages)
    apply_svf(backbone, target, None, config.train, config.scale, progress)
    make_lean(backbone, config)


def make_lean(backbone: nn.Module, config: TuningConfig) -> None:
    """Let factored layers compute by the config's route, and fold what is frozen behind them."""
    set_route(backbone, config.route)
    if config.route != "differentiable":
        fuse(backbone)


def full(backbone: Backbone, config: TuningConfig, progress: Progress | None) -> None:
    """Weights and biases of the stages' convolutions."""
    pattern = re.compile(stages_pattern(config.stages))
    for name, layer in backbone.named_modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)) and pattern.fullmatch(name):
            layer.requires_grad_(True)


# Each gets a backbone that is frozen throughout and leaves trainable what is to train.
STRATEGIES: dict[str, Callable[[Backbone, TuningConfig, Progress | None], None]] = {
    "frozen": frozen,
    "svf": svf,
    "full": full,
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
        ValueError: an unknown strategy, or settings it cannot use.
    """
    if config.strategy not in STRATEGIES:
        raise ValueError(
            f"unknown strategy {config.strategy}{nearest(config.strategy, STRATEGIES)}"
        )
    backbone = cast(Backbone, model.backbone)
    backbone.requires_grad_(False)
    STRATEGIES[config.strategy](backbone, config, progress)
    if backbone.norm == "train":
        for layer in backbone.norm_layers():
            layer.requires_grad_(True)
    return trained_parameters(model)


def trained_parameters(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """(head, tuned backbone) parameters that train, in the model's order."""
    inside = {id(p) for p in cast(Backbone, model.backbone).parameters()}
    trained = [p for p in model.parameters() if p.requires_grad]
    return [p for p in trained if id(p) not in inside], [p for p in trained if id(p) in inside]
