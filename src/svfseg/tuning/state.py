"""Find the tensors of a backbone that a strategy changed or added."""

from collections.abc import Iterable

from torch import Tensor, nn

from svfseg.errors import InputError
from svfseg.models import Backbone
from svfseg.svf.layers import FactoredLayer, factored_layers


def tuned_tensors(backbone: Backbone) -> dict[str, Tensor]:
    """Give all that differs from the base backbone but for factored layers, by name.

    That is what trains, what a strategy put in beside the base weights (trained or not: random
    projections that stay frozen are part of the task), and the statistics of normalisation that
    follows the batches. Factored layers are saved as an adapter: `svfseg.svf.save_adapter`.
    """
    factored = {id(tensor) for _, layer in factored_layers(backbone) for tensor in _own(layer)}
    moving = {id(t) for layer in backbone.moving_norms() for t in layer.buffers()}
    return {
        name: tensor.detach().cpu().clone().contiguous()  # tied tensors are saved for each name
        for name, tensor in backbone.state_dict(keep_vars=True).items()
        if id(tensor) not in factored
        and (tensor.requires_grad or name in backbone.inserted or id(tensor) in moving)
    }


def has_factored(backbone: nn.Module) -> bool:
    """Whether a layer of a network is factored."""
    return any(True for _ in factored_layers(backbone))


def tensor_ids(backbone: nn.Module) -> frozenset[int]:
    """Identify the tensors that a backbone has now, for `inserted_names` later."""
    state = backbone.state_dict(keep_vars=True).values()
    return frozenset(id(tensor) for tensor in (*state, *backbone.buffers()))


def inserted_names(backbone: nn.Module, before: Iterable[int]) -> frozenset[str]:
    """Name the tensors of a backbone that are none of those from before."""
    known = set(before)
    state = backbone.state_dict(keep_vars=True)
    return frozenset(name for name, tensor in state.items() if id(tensor) not in known)


def check_saved(backbone: nn.Module, before: Iterable[int]) -> None:
    """Check before the training that its outcome can be saved.

    Args:
        backbone: after a strategy was applied.
        before: `tensor_ids` from before.

    Raises:
        InputError: a buffer is not part of the state, or factored layers differ in settings.
    """
    known = set(before)
    for module_name, module in backbone.named_modules():
        if isinstance(module, FactoredLayer):
            continue
        for name in module._non_persistent_buffers_set:
            if id(module._buffers[name]) not in known:
                raise InputError(
                    f"the strategy put the buffer {module_name}.{name} into the backbone with "
                    "persistent=False, so that it would not be saved: register it without that"
                )
    settings = {(layer.svf_train, layer.svf_scale) for _, layer in factored_layers(backbone)}
    if len(settings) > 1:
        raise InputError(
            f"the strategy factored layers with different settings, {sorted(settings)}: one "
            "adapter has one configuration"
        )


def _own(layer: nn.Module) -> Iterable[Tensor]:
    return layer.state_dict(keep_vars=True).values()
