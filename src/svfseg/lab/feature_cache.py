"""Views of images (features of queries and supports) shared between the episodes of a test."""

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn

from svfseg.data import Episode

# A view's name: (position of the image, class id of the mask, or 0 for the query's view).
Key = tuple[int, int]


class Sight(NamedTuple):
    """An image as it is shown to the network, with its masks.

    Attributes:
        image: (3, size, size), RGB in 0 to 255.
        masks: class id -> (size, size).
    """

    image: Tensor
    masks: Mapping[int, Tensor]


def keys_of(episode: Episode) -> list[Key]:
    """The views that an episode needs: its query's first."""
    return [(episode.query, 0), *((position, episode.class_id) for position in episode.support)]


def masks_of(episodes: Sequence[Episode]) -> dict[int, tuple[int, ...]]:
    """Position -> class ids that the image is a support of, in some of the episodes."""
    classes: dict[int, set[int]] = defaultdict(set)
    for episode in episodes:
        classes[episode.query]
        for position in episode.support:
            classes[position].add(episode.class_id)
    return {position: tuple(sorted(found)) for position, found in classes.items()}


class Views:
    """The views of a list of episodes, each computed once where memory allows.

    The list is known beforehand, so what is dropped past the bound is the view whose next use is
    farthest away (Belady, 1966: no other choice computes less), and a view without a next use goes
    at once.

    Args:
        model: a head with ``views``.
        episodes: in the order in which `get` will ask for them.
        load: position -> the image and its masks.
        bound: bytes of views to keep between two calls of `get`.
        passes: counts "shallow", "query" and "support" passes, for whoever asks.
    """

    def __init__(
        self,
        model: nn.Module,
        episodes: Sequence[Episode],
        load: Callable[[int], Sight],
        bound: int,
        passes: Counter[str] | None = None,
    ) -> None:
        self.model: Any = model
        self.load, self.bound = load, bound
        self.passes = Counter() if passes is None else passes
        self._device = next(model.parameters()).device
        self._kept: dict[Key, Any] = {}
        self._size = 0
        self._uses: dict[Key, deque[int]] = defaultdict(deque)
        for step, episode in enumerate(episodes):
            for key in keys_of(episode):
                self._uses[key].append(step)
        self._of_image: dict[int, list[Key]] = defaultdict(list)
        for key in self._uses:
            self._of_image[key[0]].append(key)

    def get(self, start: int, episodes: Sequence[Episode]) -> tuple[list[Any], list[list[Any]]]:
        """Views of the episodes from ``start`` on: queries, and supports of each."""
        needed = {key for episode in episodes for key in keys_of(episode)}
        for position in sorted({key[0] for key in needed - self._kept.keys()}):
            self._compute(position, needed)
        queries = [self._kept[episode.query, 0] for episode in episodes]
        supports = [[self._kept[key] for key in keys_of(e)[1:]] for e in episodes]
        self._drop(needed, start + len(episodes))
        return queries, supports

    def _compute(self, position: int, needed: set[Key]) -> None:
        """All views of an image that are needed now, and with room to spare those of later."""
        room = self._size < self.bound
        wanted = [
            key
            for key in self._of_image[position]
            if key not in self._kept and (key in needed or (room and self._uses[key]))
        ]
        sight = self.load(position)
        classes = [class_id for _, class_id in wanted if class_id]
        masks = [sight.masks[class_id].to(self._device) for class_id in classes]
        query = (position, 0) in wanted
        seen, shown = self.model.views(sight.image[None].to(self._device), masks, query)
        self.passes.update(shallow=1, query=int(query), support=len(masks))
        found = {(position, c): view for c, view in zip(classes, shown, strict=True)}
        if query:
            found[position, 0] = seen
        self._kept |= found
        self._size += sum(map(_bytes, found.values()))

    def _drop(self, used: set[Key], step: int) -> None:
        for key in used:
            while self._uses[key] and self._uses[key][0] < step:
                self._uses[key].popleft()
            if not self._uses[key]:
                self._forget(key)
        if self._size > self.bound:
            for key in sorted(self._kept, key=lambda key: -self._uses[key][0]):
                self._forget(key)
                if self._size <= self.bound:
                    break

    def _forget(self, key: Key) -> None:
        self._size -= _bytes(self._kept.pop(key))


def _bytes(view: Sequence[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in view)
