"""Make supports of marked images, and parts of them that can be held out."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from svfseg.annotations.outlines import number_parts
from svfseg.data.images import Array, fingerprint
from svfseg.data.index import Sample
from svfseg.segmenter.adaptation import Support
from svfseg.segmenter.tiling import marked_windows

# At this longer side a class is one thing where its outline is shorter, and its parts are fewer.
_SIDE, _WINDING, _PARTS = 160, 20.0, 5


def as_supports(samples: Sequence[Sample], tile: bool, size: int, overlap: float) -> list[Support]:
    """Make supports of marked images, in an order that does not depend on theirs.

    Images that were given twice with the same marks count once; an image with several sets of
    marks is one group, as it must not judge itself.

    Args:
        samples: images and masks of ids.
        tile: whether images are cut into windows.
        size: side of the windows.
        overlap: smallest share that neighbouring windows have in common.
    """
    unique = {(fingerprint(s.image), fingerprint(s.mask)): s for s in samples}
    groups = {image: group for group, image in enumerate(sorted({image for image, _ in unique}))}
    return [
        Support(part, groups[image])
        for (image, _), sample in sorted(unique.items(), key=lambda item: item[0])
        for part in (marked_windows(sample, size, overlap) if tile else [sample])
    ]


def judged_supports(supports: Sequence[Support], class_ids: Sequence[int]) -> Sequence[Support]:
    """Give supports that can be held out: where one image alone shows classes, its halves.

    It is cut through the middle of what is marked.
    """
    if len({s.group for s in supports if any(s.shows(c) for c in class_ids)}) != 1:
        return supports
    parts: list[Support] = []
    free = max(support.group for support in supports) + 1
    for support in supports:
        marked = np.isin(support.sample.mask, list(class_ids))
        if not marked.any():
            parts.append(support)
            continue
        rows, columns = np.nonzero(marked)
        if np.ptp(rows) > np.ptp(columns):
            middle = int(np.median(rows))
            cuts = [(slice(0, middle), slice(None)), (slice(middle, None), slice(None))]
        else:
            middle = int(np.median(columns))
            cuts = [(slice(None), slice(0, middle)), (slice(None), slice(middle, None))]
        for number, cut in enumerate(cuts):
            image, mask = support.sample.image[cut], support.sample.mask[cut]
            if mask.size:
                parts.append(Support(Sample(_own(image), _own(mask)), free + number))
    return parts


def _own(part: Array) -> Array:
    return np.ascontiguousarray(part)


def is_one_thing(supports: Sequence[Support], class_ids: Sequence[int]) -> bool:
    """Whether the classes are a compact thing or two in each support, and no texture or crowd.

    The halves of one thing look alike, whatever others of its kind look like; the halves of a
    texture, a crack or a crowd are different pieces of it.
    """
    marked = [np.isin(s.sample.mask, list(class_ids)) for s in supports]
    return all(_winding(m) < _WINDING and _parts(m) < _PARTS for m in map(_reduced, marked))


def _reduced(marked: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    scale = min(1.0, _SIDE / max(marked.shape))
    size = (max(1, round(marked.shape[1] * scale)), max(1, round(marked.shape[0] * scale)))
    grey = Image.fromarray(marked.astype(np.uint8) * 255).resize(size, Image.Resampling.BOX)
    return np.asarray(grey) > 127


def _winding(marked: npt.NDArray[np.bool_]) -> float:
    """How much longer an outline is than that of a square of its area, squared."""
    edges = (marked[1:] != marked[:-1]).sum() + (marked[:, 1:] != marked[:, :-1]).sum()
    return float(edges**2 / (16 * marked.sum())) if marked.any() else 0.0


def _parts(marked: npt.NDArray[np.bool_]) -> int:
    """Number of connected parts that are not far smaller than the largest."""
    areas = np.bincount(number_parts(marked).ravel())[1:]
    return int((areas >= 0.1 * areas.max()).sum()) if len(areas) else 0
