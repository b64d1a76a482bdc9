"""Published checkpoints of PFENet, BAM's framework and the SVF baseline, as our tensors."""

import re

from torch import Tensor, nn

from svfseg.models.weights import load_weights

# The reference networks keep stages and head side by side; ours nests them. VGG and ResNet
# stages are numbered alike in both.
RENAMED = (
    (re.compile(r"^(layer[0-4]\.)"), r"backbone.\1"),
    (re.compile(r"^(down_(query|supp)\.)"), r"matching.\1"),
)
# Parts of reference checkpoints that belong to no network of ours: BAM's frozen copy of the
# backbone and the learned shot weights that the SVF baseline builds and never uses.
UNUSED = re.compile(r"^(kshot_rw|criterion|learner_base\.|layer[0-4]p\.)")


def import_published(model: nn.Module, tensors: dict[str, Tensor], source: str) -> nn.Module:
    """Load a published checkpoint's tensors into a head of ours, whole or not at all.

    Args:
        model: the head that the checkpoint is of, on the backbone it is of.
        tensors: the checkpoint's state dict.
        source: what to call it in an error.

    Returns:
        The same model.

    Raises:
        ValueError: keys are missing, unknown or of another shape; the first ones are named.
    """
    load_weights(model, rename(tensors), source)
    return model


def rename(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our names for a reference state dict's keys."""
    renamed = {}
    for key, tensor in tensors.items():
        if UNUSED.match(key):
            continue
        for pattern, ours in RENAMED:
            key = pattern.sub(ours, key)
        renamed[key] = tensor
    return renamed
