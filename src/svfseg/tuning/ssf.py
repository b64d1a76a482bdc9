"""Train a new scale and shift behind each convolution (SSF: Lian et al., NeurIPS 2022)."""

from typing import Any

import torch
from torch import Tensor, nn

from svfseg.config import TuningConfig
from svfseg.models import Backbone
from svfseg.svf.class_swap import rebuild, set_class
from svfseg.tuning.modules import extend, matching_layers, stages_pattern
from svfseg.tuning.strategy import InPlaceStrategy, Progress


class Ssf(InPlaceStrategy):
    """Put a scale and a shift behind each convolution of the stages."""

    def apply(self, backbone: Backbone, config: TuningConfig, progress: Progress | None) -> None:
        """See `Strategy.apply`."""
        add_scales(backbone, stages_pattern(config.stages))

    def merge(self, backbone: Backbone) -> None:
        """See `Strategy.merge`: plain layers again."""
        merge_scales(backbone)


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
        output: Tensor = y * self.ssf_scale.view(shape) + self.ssf_shift.view(shape)
        return output

    def __reduce_ex__(self, protocol: Any) -> Any:
        return rebuild, (Scaled, self.svf_base, Scaled.__name__), self.__dict__


def add_scales(net: nn.Module, pattern: str) -> int:
    """Give every matching convolution and linear layer a scale and a shift, in place."""
    layers = matching_layers(net, pattern)
    for _, layer in layers:
        wide, like = layer.weight.shape[0], layer.weight
        layer.ssf_scale = nn.Parameter(torch.ones(wide).to(like))
        layer.ssf_shift = nn.Parameter(torch.zeros(wide).to(like))
        extend(layer, Scaled)
    return len(layers)


def merge_scales(net: nn.Module) -> None:
    """Put scales and shifts into weights and biases, in place: plain layers again."""
    scaled: list[Any] = [m for m in net.modules() if isinstance(m, Scaled)]
    for layer in scaled:
        scale, shift = layer.ssf_scale.detach(), layer.ssf_shift.detach()
        weight: nn.Parameter = layer.weight
        bias: nn.Parameter | None = layer.bias
        with torch.no_grad():
            weight.mul_(scale.view(-1, *(1,) * (weight.dim() - 1)))
            moved = shift if bias is None else bias * scale + shift
        layer.bias = nn.Parameter(moved, requires_grad=weight.requires_grad)
        set_class(layer, layer.svf_base)
        del layer.ssf_scale, layer.ssf_shift, layer.svf_base
