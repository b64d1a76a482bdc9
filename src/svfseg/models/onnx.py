"""Each head as two graphs that can leave torch: one encodes a support, one answers for a query."""

from collections.abc import Callable

from torch import Tensor, nn

from svfseg.models.baseline import Baseline
from svfseg.models.dense import Dense, describe, show
from svfseg.models.functional import masked_average_pooling, prior_mask, resize
from svfseg.models.matching import Match, middle
from svfseg.models.pfenet import PFENet


class DenseSupports(nn.Module):
    """Image (1, 3, h, w) and mask (h, w) of 0, 1, 255 -> keys and ground, (1, channels, n)."""

    outputs = ("keys", "ground")

    def __init__(self, model: Dense) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """One support."""
        view = show(describe(self.model.backbone.encode(image))[0], mask)
        return view.keys[None], view.ground[None]


class DenseQueries(nn.Module):
    """Image (1, 3, h, w), keys and ground (shots, channels, n) -> probability (h, w)."""

    def __init__(self, model: Dense) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor, keys: Tensor, ground: Tensor) -> Tensor:
        """One query."""
        logit = self.model.compare(describe(self.model.backbone.encode(image)), keys, ground)
        return resize(logit, image.shape[-2:]).sigmoid()[0, 0]


class PrototypeSupports(nn.Module):
    """Image and mask as above -> prototype (1, hidden, 1, 1) and keys (1, channels, n)."""

    outputs = ("prototype", "keys")

    def __init__(self, model: Baseline | PFENet) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """One support; keys are zero outside of the mask."""
        inside = (mask == 1).to(image.dtype)[None, None]
        features = self.model.backbone.encode(
            image, lambda layer3: layer3 * resize(inside, layer3.shape[-2:])
        )
        reduced = self.model.matching.down_supp(middle(features))
        prototype = masked_average_pooling(reduced, resize(inside, reduced.shape[-2:]))
        return prototype, features.layer4.flatten(2)


class PrototypeQueries(nn.Module):
    """Image (1, 3, h, w), prototypes and keys of the shots -> probability (h, w)."""

    def __init__(self, model: Baseline | PFENet) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor, prototype: Tensor, keys: Tensor) -> Tensor:
        """One query."""
        features = self.model.backbone.encode(image)
        query = self.model.matching.down_query(middle(features))
        deep = features.layer4.expand(keys.shape[0], -1, -1, -1)
        priors = prior_mask(deep, keys[..., None])
        prior = resize(priors, query.shape[-2:]).mean(dim=0, keepdim=True)
        match = Match(query, prototype.mean(dim=0, keepdim=True), prior)
        model = self.model
        logits = model.decode(match)[0] if isinstance(model, PFENet) else model.decoder(match)
        return resize(logits, image.shape[-2:]).softmax(dim=1)[0, 1]


# Heads that can leave torch: their two graphs.
GRAPHS: dict[type[nn.Module], tuple[Callable[..., nn.Module], Callable[..., nn.Module]]] = {
    Dense: (DenseSupports, DenseQueries),
    Baseline: (PrototypeSupports, PrototypeQueries),
    PFENet: (PrototypeSupports, PrototypeQueries),
}
