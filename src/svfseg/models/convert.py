"""Convert published checkpoints of PFENet, BAM, its PSPNet and the SVF baseline."""

import re
from collections.abc import Collection
from typing import Literal

from torch import Tensor

from svfseg.errors import InputError
from svfseg.models.head import Head
from svfseg.models.weights import load_weights

# Heads of published checkpoints, the one meant by default first -> the dilation of their authors.
PUBLISHED: dict[str, Literal["uniform", "stepwise"]] = {
    "pfenet": "uniform",
    "bam": "uniform",
    "pspnet": "uniform",
    "baseline": "stepwise",
}
# The reference networks keep all parts side by side; ours nests them.
PARTS = ("", "backbone.", "matching.", "decoder.")
RENAMED = (
    # a base learner alone (PSPNet) has its two parts by name
    (re.compile(r"^ppm\."), "learner_base.0."),
    (re.compile(r"^cls\."), "learner_base.1."),
)
# What reference checkpoints hold and no network of ours needs: the learned shot weights that the
# SVF baseline builds and never uses, its second backbone, losses, an auxiliary classifier.
UNUSED = re.compile(r"^(kshot_rw|criterion|learner_base\.|layer[0-4]p\.|aux\.)")


def import_published(head: Head, tensors: dict[str, Tensor], source: str) -> Head:
    """Load a published checkpoint's tensors into a head of ours, whole or not at all.

    Args:
        head: the one that the checkpoint is of, on the backbone it is of.
        tensors: the checkpoint's state dict.
        source: what to call it in an error.

    Returns:
        The same head.

    Raises:
        InputError: keys are missing, unknown or of another shape; the first ones are named.
    """
    load_weights(head, rename(tensors, head.state_dict().keys()), source)
    return head


def rename(tensors: dict[str, Tensor], expected: Collection[str]) -> dict[str, Tensor]:
    """Rename the keys of a reference state dict to ours, where we have one."""
    renamed = {}
    for key, tensor in tensors.items():
        candidates = [part + key for part in PARTS]
        candidates += [pattern.sub(ours, key) for pattern, ours in RENAMED if pattern.match(key)]
        name = next((c for c in candidates if c in expected), None)
        if name is None and UNUSED.match(key):
            continue
        renamed[name or key] = tensor
    return renamed


def base_learner_sizes(tensors: dict[str, Tensor]) -> tuple[int, int]:
    """Count the base classes of a checkpoint, and the shots of its learned weighting.

    Raises:
        InputError: the tensors hold no base learner.
    """
    biases = [
        t for key, t in tensors.items() if re.fullmatch(r"(learner_base\.1|cls)\.4\.bias", key)
    ]
    if not biases:
        raise InputError(
            "no base learner in the checkpoint: expected learner_base.* or ppm.*, cls.*"
        )
    weighting = tensors.get("kshot_rw.0.weight")
    return len(biases[0]) - 1, 1 if weighting is None else weighting.shape[1]
