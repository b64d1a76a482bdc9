"""Low-rank additions to convolutions train (LoRA: Hu et al., ICLR 2022), by peft."""

from typing import Any, cast

from torch import nn

from svfseg.config import TuningConfig
from svfseg.errors import InputError
from svfseg.models import Backbone
from svfseg.tuning.modules import checked_rank, matching_layers, stages_pattern
from svfseg.tuning.strategy import InPlaceStrategy, Progress


class Lora(InPlaceStrategy):
    """Add a low-rank term to each ungrouped convolution of the stages."""

    def apply(self, backbone: Backbone, config: TuningConfig, progress: Progress | None) -> None:
        """See `Strategy.apply`."""
        add_lora(backbone, stages_pattern(config.stages), checked_rank(config))

    def merge(self, backbone: Backbone) -> None:
        """See `Strategy.merge`: plain layers again."""
        merge_lora(backbone)


def add_lora(net: nn.Module, pattern: str, rank: int) -> int:
    """Give every matching ungrouped convolution and linear layer a low-rank addition, by peft.

    The rank is cut to what a layer's weight can have, and alpha is the rank: a factor of 1.

    Raises:
        InputError: peft is not installed.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise InputError("strategy lora needs peft: pip install 'svfseg[peft]'") from error
    names = [
        name
        for name, layer in matching_layers(net, pattern)
        # a forward of its own (dynamic padding) would not be the addition's
        if type(layer).forward in (nn.Conv2d.forward, nn.Linear.forward)
        and getattr(layer, "groups", 1) == 1
    ]
    if names:
        config = LoraConfig(r=rank, lora_alpha=rank, target_modules=names)
        inject_adapter_in_model(config, net)
    for name in names:
        layer = cast(Any, net.get_submodule(name))
        if isinstance(layer.get_base_layer(), nn.Conv2d):  # peft forgets it
            layer.lora_A["default"].dilation = layer.get_base_layer().dilation
    return len(names)


def merge_lora(net: nn.Module) -> None:
    """Put peft's additions into the weights, in place: plain layers again."""
    for parent in list(net.modules()):
        for name, child in list(parent.named_children()):
            if hasattr(child, "lora_A") and hasattr(child, "get_base_layer"):
                layer = cast(Any, child)
                layer.merge()
                setattr(parent, name, layer.get_base_layer())
