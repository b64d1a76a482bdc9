"""Train new bottlenecks behind the blocks of some stages (Houlsby et al., ICML 2019)."""

import re
from typing import Any

import torch
from torch import Tensor, nn

from svfseg.config import TuningConfig
from svfseg.models import Backbone
from svfseg.svf.class_swap import rebuild
from svfseg.tuning.modules import checked_rank, extend, stages_pattern
from svfseg.tuning.strategy import InPlaceStrategy, Progress


class Adapter(InPlaceStrategy):
    """Put a bottleneck of 1x1 convolutions behind each block of the stages; it cannot be merged."""

    def apply(self, backbone: Backbone, config: TuningConfig, progress: Progress | None) -> None:
        """See `Strategy.apply`."""
        weight = next(backbone.parameters())
        image = torch.zeros(1, 3, 64, 64).to(weight)
        add_adapters(backbone, stages_pattern(config.stages), checked_rank(config), image)


class Bottleneck(nn.Module):
    """y + up(relu(down(y))) with 1x1 convolutions, up zero at first (Houlsby et al., ICML 2019)."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(channels, width, 1)
        self.up = nn.Conv2d(width, channels, 1)
        nn.init.zeros_(self.up.weight)
        if self.up.bias is not None:
            nn.init.zeros_(self.up.bias)

    def forward(self, y: Tensor) -> Tensor:
        """Add the bottleneck to (batch, channels, height, width); the shape stays."""
        output: Tensor = y + self.up(self.down(y).relu())
        return output


class Adapted(nn.Module):
    """A block with a bottleneck behind it."""

    svf_base: type[nn.Module]
    adapter: Bottleneck

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Compute the output of the block, adapted."""
        output: Tensor = self.adapter(self.svf_base.forward(self, *args, **kwargs))
        return output

    def __reduce_ex__(self, protocol: Any) -> Any:
        return rebuild, (Adapted, self.svf_base, Adapted.__name__), self.__dict__


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
    inner_blocks = [block for block in blocks if id(block) in channels]
    for block in inner_blocks:
        weight = next(block.parameters())
        block.adapter = Bottleneck(channels[id(block)], width).to(weight)
        if not isinstance(block, nn.Sequential):  # a sequence runs its last child by itself
            extend(block, Adapted)
    return len(inner_blocks)


def _blocks(stage: nn.Module) -> list[nn.Module]:
    if not isinstance(stage, nn.Sequential):
        return [stage] if any(True for _ in stage.parameters()) else []
    children = list(stage.children())
    composite = [c for c in children if any(True for _ in c.children())]
    if not composite:
        return [stage] if any(True for _ in stage.parameters()) else []
    return [block for child in composite for block in _blocks(child)]
