"""What some strategies put into a network: bottleneck adapters, scale and shift, LoRA.

Each leaves the network's function as it is until it has trained. Adapters and scales keep names
and objects of what they extend, by a change of class, as factored layers do.
"""

import re
from typing import Any, cast

import torch
from torch import Tensor, nn

from svfseg.errors import InputError
from svfseg.svf.class_swap import mixed, rebuild


class Bottleneck(nn.Module):
    """y + up(relu(down(y))) with 1x1 convolutions, up zero at first (Houlsby et al., ICML 2019)."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(channels, width, 1)
        self.up = nn.Conv2d(width, channels, 1)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(cast(Tensor, self.up.bias))

    def forward(self, y: Tensor) -> Tensor:
        """(batch, channels, height, width) -> the same shape."""
        return cast(Tensor, y + self.up(self.down(y).relu()))


class Adapted(nn.Module):
    """A block with a bottleneck behind it."""

    svf_base: type[nn.Module]
    adapter: Bottleneck

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """The block's output, adapted."""
        return cast(Tensor, self.adapter(self.svf_base.forward(self, *args, **kwargs)))

    def __reduce_ex__(self, protocol: Any) -> Any:
        return rebuild, (Adapted, self.svf_base, Adapted.__name__), self.__dict__


class Scaled(nn.Module):
    """A convolution or linear layer whose outputs are scaled and shifted (SSF, Lian et al., 2022).

    Attributes:
        ssf_scale: (channels,), 1 at the start.
        ssf_shift: (channels,), 0 at the start.
    """

    svf_base: type[nn.Module]
    ssf_scale: nn.Parameter
    ssf_shift: nn.Parameter

    def forward(self, input: Tensor) -> Tensor:
        """Scale and shift the layer's output."""
        y = self.svf_base.forward(self, input)
        shape = (-1,) if isinstance(self, nn.Linear) else (-1, 1, 1)
        return cast(Tensor, y * self.ssf_scale.view(shape) + self.ssf_shift.view(shape))

    def __reduce_ex__(self, protocol: Any) -> Any:
        return rebuild, (Scaled, self.svf_base, Scaled.__name__), self.__dict__


def add_adapters(net: nn.Module, pattern: str, width: int, image: Tensor) -> int:
    """Put an adapter behind every block of the parts of a network that a pattern names.

    A block is a child of a (nested) sequence that has children of its own (a residual block); a
    sequence without any, as in VGG, is one block itself.

    Args:
        net: the network, changed in place.
        pattern: regular expression on whole dotted names, as `stages_pattern` gives.
        width: channels between the two 1x1 convolutions.
        image: an input of any size, to see how many channels each block gives.

    Returns:
        The number of adapters.
    """
    stages = [m for n, m in net.named_children() if re.fullmatch(pattern, n)]
    blocks = [block for stage in stages for block in _blocks(stage)]
    channels: dict[int, int] = {}

    def look(module: nn.Module, _: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            channels[id(module)] = output.shape[1]

    handles = [block.register_forward_hook(look) for block in blocks]
    modes = {module: module.training for module in net.modules()}
    net.eval()
    with torch.no_grad():
        net(image)
    for handle in handles:
        handle.remove()
    for module, mode in modes.items():
        module.training = mode
    found = [block for block in blocks if id(block) in channels]
    for block in found:
        weight = next(block.parameters())
        block.adapter = Bottleneck(channels[id(block)], width).to(weight)
        if not isinstance(block, nn.Sequential):  # a sequence runs its last child by itself
            _become(block, Adapted)
    return len(found)


def add_scales(net: nn.Module, pattern: str) -> int:
    """Give every matching convolution and linear layer a scale and a shift, in place."""
    layers = matching_layers(net, pattern)
    for _, layer in layers:
        wide, like = layer.weight.shape[0], cast(Tensor, layer.weight)
        layer.ssf_scale = nn.Parameter(torch.ones(wide).to(like))
        layer.ssf_shift = nn.Parameter(torch.zeros(wide).to(like))
        _become(layer, Scaled)
    return len(layers)


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


def merge_scales(net: nn.Module) -> None:
    """Put scales and shifts into weights and biases, in place: plain layers again."""
    for layer in [m for m in net.modules() if isinstance(m, Scaled)]:
        scale, shift = layer.ssf_scale.detach(), layer.ssf_shift.detach()
        weight, bias = cast(nn.Parameter, layer.weight), cast(nn.Parameter | None, layer.bias)
        with torch.no_grad():
            weight.mul_(scale.view(-1, *(1,) * (weight.dim() - 1)))
            moved = shift if bias is None else bias * scale + shift
        layer.bias = nn.Parameter(moved, requires_grad=weight.requires_grad)
        cast(Any, layer).__class__ = layer.svf_base
        del layer.ssf_scale, layer.ssf_shift, layer.svf_base


def merge_lora(net: nn.Module) -> None:
    """Put peft's additions into the weights, in place: plain layers again."""
    for parent in list(net.modules()):
        for name, child in list(parent.named_children()):
            if hasattr(child, "lora_A") and hasattr(child, "get_base_layer"):
                layer = cast(Any, child)
                layer.merge()
                setattr(parent, name, layer.get_base_layer())


def matching_layers(net: nn.Module, pattern: str) -> list[tuple[str, Any]]:
    """(name, layer) of the convolutions and linear layers whose whole name matches."""
    return [
        (name, layer)
        for name, layer in net.named_modules()
        if isinstance(layer, (nn.Conv2d, nn.Linear)) and re.fullmatch(pattern, name)
    ]


def _blocks(stage: nn.Module) -> list[nn.Module]:
    if not isinstance(stage, nn.Sequential):
        return [stage] if any(True for _ in stage.parameters()) else []
    children = list(stage.children())
    composite = [c for c in children if any(True for _ in c.children())]
    if not composite:
        return [stage] if any(True for _ in stage.parameters()) else []
    return [block for child in composite for block in _blocks(child)]


def _become(module: nn.Module, kind: type[nn.Module]) -> None:
    base = type(module)
    module.svf_base = base  # type: ignore[assignment]
    module.__class__ = mixed(kind, base, kind.__name__)
