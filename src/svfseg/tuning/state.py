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


class Snapshot:
    """The tensors that a backbone has before a strategy is applied.

    It holds the tensors themselves: the identity of one that was replaced and freed could
    otherwise come back as that of a new one.

    Args:
        backbone: the network.
    """

    def __init__(self, backbone: nn.Module) -> None:
        tensors = (*_own(backbone), *backbone.buffers())
        self._versions = {id(tensor): (tensor, _version(tensor)) for tensor in tensors}

    def holds(self, tensor: Tensor) -> bool:
        """Say whether a tensor was there, and has not been written to since."""
        _, version = self._versions.get(id(tensor), (None, None))
        return version == _version(tensor)

    def changed_names(self, backbone: nn.Module) -> frozenset[str]:
        """Name the tensors of the backbone's state that are new or were written to since."""
        state = backbone.state_dict(keep_vars=True)
        return frozenset(name for name, tensor in state.items() if not self.holds(tensor))


def check_saved(backbone: nn.Module, before: Snapshot) -> None:
    """Check before the training that its outcome can be saved.

    Args:
        backbone: after a strategy was applied.
        before: the backbone as it was.

    Raises:
        InputError: a buffer is not part of the state, or factored layers differ in settings.
    """
    for module_name, module in backbone.named_modules():
        if isinstance(module, FactoredLayer):
            continue
        for name in module._non_persistent_buffers_set:
            buffer = module._buffers[name]
            if buffer is not None and not before.holds(buffer):
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


def _version(tensor: Tensor) -> int:
    """Count the writes to a tensor; inference tensors are not counted."""
    return 0 if tensor.is_inference() else tensor._version
