"""Features of queries and supports, shared between the episodes of a test."""

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from svfseg.data import Episode
from svfseg.models import Head

# What features are of: (position of the image, class id of the mask, or 0 as a query).
Key = tuple[int, int]


class LoadedImage(NamedTuple):
    """An image as the network gets it, with its masks.

    Attributes:
        image: (3, size, size), RGB in 0 to 255.
        masks: class id -> (size, size).
    """

    image: Tensor
    masks: Mapping[int, Tensor]


def keys_of(episode: Episode) -> list[Key]:
    """Name the features that an episode needs: its query's first."""
    return [(episode.query, 0), *((position, episode.class_id) for position in episode.support)]


def masks_of(episodes: Sequence[Episode]) -> dict[int, tuple[int, ...]]:
    """Map positions to the class ids that the image is a support of, in some of the episodes."""
    classes: dict[int, set[int]] = defaultdict(set)
    for episode in episodes:
        classes[episode.query]
        for position in episode.support:
            classes[position].add(episode.class_id)
    return {position: tuple(sorted(class_ids)) for position, class_ids in classes.items()}


class FeatureCache:
    """The features that a list of episodes needs, each computed once where memory allows.

    The list is known beforehand, so what is dropped past the bound are the features whose next use
    is farthest away (Belady, 1966: no other choice computes less), and features without a next use
    go at once.

    Args:
        head: computes them.
        episodes: in the order in which `get` will ask for them.
        load: position -> the image and its masks.
        bound: bytes of features to keep between two calls of `get`.
        passes: counts "shallow", "query" and "support" passes, for tests and benchmarks.
    """

    def __init__(
        self,
        head: Head,
        episodes: Sequence[Episode],
        load: Callable[[int], LoadedImage],
        bound: int,
        passes: Counter[str] | None = None,
    ) -> None:
        self.head = head
        self.load, self.bound = load, bound
        self.passes = Counter() if passes is None else passes
        self._device = next(head.parameters()).device
        self._features: dict[Key, Any] = {}
        self._size = 0
        self._uses: dict[Key, deque[int]] = defaultdict(deque)
        for step, episode in enumerate(episodes):
            for key in keys_of(episode):
                self._uses[key].append(step)
        self._keys: dict[int, list[Key]] = defaultdict(list)
        for key in self._uses:
            self._keys[key[0]].append(key)

    def get(self, start: int, episodes: Sequence[Episode]) -> tuple[list[Any], list[list[Any]]]:
        """Give the features of the episodes from ``start`` on: queries, and supports of each."""
        needed = {key for episode in episodes for key in keys_of(episode)}
        for position in sorted({key[0] for key in needed - self._features.keys()}):
            self._compute(position, needed)
        queries = [self._features[episode.query, 0] for episode in episodes]
        supports = [[self._features[key] for key in keys_of(e)[1:]] for e in episodes]
        self._drop(needed, start + len(episodes))
        return queries, supports

    def _compute(self, position: int, needed: set[Key]) -> None:
        """Compute what is needed of an image now, and with room to spare what is needed later."""
        room = self._size < self.bound
        wanted = [
            key
            for key in self._keys[position]
            if key not in self._features and (key in needed or (room and self._uses[key]))
        ]
        loaded = self.load(position)
        classes = [class_id for _, class_id in wanted if class_id]
        masks = [loaded.masks[class_id].to(self._device) for class_id in classes]
        query = (position, 0) in wanted
        image = loaded.image[None].to(self._device)
        query_features, support_features = self.head.encode(image, masks, query)
        self.passes.update(shallow=1, query=int(query), support=len(masks))
        computed = {
            (position, c): features for c, features in zip(classes, support_features, strict=True)
        }
        if query:
            computed[position, 0] = query_features
        self._features |= computed
        self._size += sum(map(_bytes, computed.values()))

    def _drop(self, used: set[Key], step: int) -> None:
        for key in used:
            while self._uses[key] and self._uses[key][0] < step:
                self._uses[key].popleft()
            if not self._uses[key]:
                self._forget(key)
        if self._size > self.bound:
            for key in sorted(self._features, key=lambda key: -self._uses[key][0]):
                self._forget(key)
                if self._size <= self.bound:
                    break

    def _forget(self, key: Key) -> None:
        self._size -= _bytes(self._features.pop(key))


def _bytes(features: Sequence[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in features)
