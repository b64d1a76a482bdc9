"""Choose which weights of the backbone train: a dict with one strategy per file."""

from torch import nn

from svfseg.config import TuningConfig, look_up
from svfseg.errors import InputError
from svfseg.models import Backbone, Head
from svfseg.models.backbone import STAGES
from svfseg.tuning.adapter import Adapter
from svfseg.tuning.bias import Bias
from svfseg.tuning.conv import Conv
from svfseg.tuning.frozen import Frozen
from svfseg.tuning.full import Full
from svfseg.tuning.layers import Layers
from svfseg.tuning.lora import Lora
from svfseg.tuning.norm import Norm
from svfseg.tuning.ssf import Ssf
from svfseg.tuning.state import Snapshot, check_saved
from svfseg.tuning.strategy import Progress, Strategy, as_strategy
from svfseg.tuning.svf import Svf

STRATEGIES: dict[str, Strategy] = {
    "frozen": Frozen(),
    "full": Full(),
    "layers": Layers(),
    "conv": Conv(),
    "norm": Norm(),
    "bias": Bias(),
    "adapter": Adapter(),
    "lora": Lora(),
    "ssf": Ssf(),
    "svf": Svf(),
    "svf+norm": Svf(with_norm=True),
}


def find_strategy(name: str) -> Strategy:
    """Give the strategy of a name in a config: a row of `STRATEGIES`, or your own by its path.

    Raises:
        InputError: there is no such strategy.
    """
    return as_strategy(look_up(name, STRATEGIES, "strategy"), name)


def tune(
    head: Head, config: TuningConfig, progress: Progress | None = None
) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Freeze the backbone but for what a strategy trains, in place.

    Args:
        head: on its backbone.
        config: the strategy and its settings.
        progress: called with (layers factored, layers in all) where that is what takes time.

    Returns:
        (head parameters, tuned backbone parameters), for two groups of an optimizer.

    Raises:
        InputError: an unknown strategy, settings it cannot use, or nothing in the stages that it
            could train.

    Example:
        >>> from svfseg.config import BackboneConfig, ModelConfig, TuningConfig
        >>> from svfseg.models import build_model
        >>> backbone = BackboneConfig("test_resnet", "none")
        >>> head = build_model(ModelConfig("baseline", hidden=16, backbone=backbone))
        >>> of_head, of_backbone = tune(head, TuningConfig(strategy="bias", stages=(4,)))
        >>> all(parameter.requires_grad for parameter in of_backbone)
        True
    """
    strategy, backbone = find_strategy(config.strategy), head.backbone
    backbone.requires_grad_(False)
    changing = tuple(range(STAGES)) if backbone.norm == "train" else strategy.stages(config)
    head.keep_base(changing)
    before = Snapshot(backbone)
    strategy.apply(backbone, config, progress)
    backbone.inserted = before.changed_names(backbone)
    check_saved(backbone, before)
    trains = any(parameter.requires_grad for parameter in backbone.parameters())
    if not trains and not isinstance(strategy, Frozen):
        raise InputError(
            f"strategy {config.strategy} finds nothing to train in stages {list(config.stages)}"
        )
    if backbone.norm == "train":
        for layer in backbone.norm_layers():
            layer.requires_grad_(True)
    return trained_parameters(head)


def trained_parameters(head: Head) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Give the (head, tuned backbone) parameters that train, in the model's order."""
    inside = {id(p) for p in head.backbone.parameters()}
    trained = [p for p in head.parameters() if p.requires_grad]
    return [p for p in trained if id(p) not in inside], [p for p in trained if id(p) in inside]


def merge(backbone: Backbone, own: Strategy | None = None) -> Backbone:
    """Put what was trained into the plain weights, in place, by the layers that are found.

    Bottleneck adapters cannot be merged, and stay.

    Args:
        backbone: as it was tuned.
        own: a strategy beside those of `STRATEGIES`, whose ``merge`` is called first.

    Returns:
        The same backbone.
    """
    for strategy in (*([] if own is None else [own]), *STRATEGIES.values()):
        strategy.merge(backbone)
    return backbone
