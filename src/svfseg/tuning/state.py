"""Find the tensors of a backbone that a strategy changed or added."""

from collections.abc import Iterable

from torch import Tensor, nn

from svfseg.models import Backbone
from svfseg.svf.layers import factored_layers


def tuned_tensors(backbone: Backbone) -> dict[str, Tensor]:
    """Give all that differs from the base backbone but for factored layers, by name.

    That is what trains, what a strategy put in beside the base weights (trained or not: random
    projections that stay frozen are part of the task), and the statistics of normalisation that
    follows the batches. Factored layers are saved as an adapter: `svfseg.svf.save_adapter`.
    """
    factored = {id(tensor) for _, layer in factored_layers(backbone) for tensor in _own(layer)}
    moving = {id(t) for layer in backbone.moving_norms() for t in layer.buffers()}
    return {
        name: tensor.detach().cpu().contiguous()
        for name, tensor in backbone.state_dict(keep_vars=True).items()
        if id(tensor) not in factored
        and (tensor.requires_grad or name in backbone.inserted or id(tensor) in moving)
    }


def has_factored(backbone: nn.Module) -> bool:
    """Whether a layer of a network is factored."""
    return any(True for _ in factored_layers(backbone))


def tensor_ids(backbone: nn.Module) -> frozenset[int]:
    """Identify the tensors that a backbone has now, for `inserted_names` later."""
    return frozenset(id(tensor) for tensor in backbone.state_dict(keep_vars=True).values())


def inserted_names(backbone: nn.Module, before: Iterable[int]) -> frozenset[str]:
    """Name the tensors of a backbone that are none of those from before."""
    known = set(before)
    state = backbone.state_dict(keep_vars=True)
    return frozenset(name for name, tensor in state.items() if id(tensor) not in known)


def _own(layer: nn.Module) -> Iterable[Tensor]:
    return layer.state_dict(keep_vars=True).values()
