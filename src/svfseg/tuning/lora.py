"""Train low-rank additions to convolutions (LoRA: Hu et al., ICLR 2022), by peft."""

import sys
from typing import Any

from torch import nn

from svfseg.config import TuningConfig
from svfseg.errors import InputError
from svfseg.models import Backbone
from svfseg.svf.layers import groups_of
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
        if type(layer).forward in (nn.Conv2d.forward, nn.Linear.forward) and groups_of(layer) == 1
    ]
    if names:
        config = LoraConfig(r=rank, lora_alpha=rank, target_modules=names)
        inject_adapter_in_model(config, net)
    for name in names:
        layer: Any = net.get_submodule(name)
        if isinstance(layer.get_base_layer(), nn.Conv2d):  # peft forgets it
            layer.lora_A["default"].dilation = layer.get_base_layer().dilation
    return len(names)


def merge_lora(net: nn.Module) -> None:
    """Put peft's additions into the weights, in place: plain layers again."""
    if "peft" not in sys.modules:  # then nothing is peft's
        return
    from peft.tuners.lora import LoraLayer

    for parent in list(net.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, LoraLayer):
                child.merge()
                setattr(parent, name, child.get_base_layer())


def is_lora(layer: nn.Module) -> bool:
    """Whether a layer has a low-rank addition by peft."""
    if "peft" not in sys.modules:
        return False
    from peft.tuners.lora import LoraLayer

    return isinstance(layer, LoraLayer)
