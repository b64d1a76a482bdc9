"""Make supports of marked images, and parts of them that can be held out."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from svfseg.annotations.outlines import number_parts
from svfseg.data.images import Array, fingerprint
from svfseg.data.index import Sample
from svfseg.segmenter.adaptation import Support
from svfseg.segmenter.tiling import marked_windows

logger = logging.getLogger(__name__)


class Encoded(NamedTuple):
    """Supports with their features.

    Attributes:
        supports: the supports.
        features: features of each by class id; of one that shows no class there are none.
    """

    supports: Sequence[Support]
    features: Sequence[Mapping[int, Any]]


Kind = Literal["thing", "texture", "crowd"]

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
    if tile and all(max(sample.mask.shape) <= size for sample in samples):
        logger.warning("tiles change nothing: no support has a side of more than %d pixels; a "
                       "smaller size would cut them", size)  # fmt: skip
    unique = {(fingerprint(s.image), fingerprint(s.mask)): s for s in samples}
    marked = {image for (image, _), sample in unique.items() if sample.mask.any()}
    both = [key for key, sample in unique.items() if key[0] in marked and not sample.mask.any()]
    for key in both:
        logger.warning("an image is given with marks, and as one without the class: it has them")
        del unique[key]
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
    cuts: dict[str, tuple[_Cut, _Cut]] = {}
    for support in supports:
        sample = support.sample
        if not np.isin(sample.mask, list(class_ids)).any():
            parts.append(support)
            continue
        image = fingerprint(sample.image)
        if image not in cuts:  # several sets of marks of an image are cut alike
            cuts[image] = _cuts(sample.mask, class_ids)
        for number, cut in enumerate(cuts[image]):
            if sample.mask[cut].size:
                part = Sample(*map(np.ascontiguousarray, (sample.image[cut], sample.mask[cut])))
                parts.append(Support(part, free + number))
    return parts


_Cut = tuple[slice, slice]


def _cuts(mask: Array, class_ids: Sequence[int]) -> tuple[_Cut, _Cut]:
    """Cut through the middle of what is marked, across its longer side."""
    rows, columns = np.nonzero(np.isin(mask, list(class_ids)))
    if np.ptp(rows) > np.ptp(columns):
        middle = int(np.median(rows))
        return np.s_[:middle, :], np.s_[middle:, :]
    middle = int(np.median(columns))
    return np.s_[:, :middle], np.s_[:, middle:]


def kind_of(supports: Sequence[Support], class_ids: Sequence[int]) -> Kind:
    """Find out by outlines whether classes are a thing or two, a texture or crack, or a crowd.

    The halves of one thing look alike, whatever others of its kind look like; the halves of a
    texture, a crack or a crowd are different pieces of it.
    """
    marked = [_reduced(np.isin(s.sample.mask, list(class_ids))) for s in supports]
    if any(_parts(each) >= _PARTS for each in marked):
        return "crowd"
    return "texture" if any(_winding(each) >= _WINDING for each in marked) else "thing"


def _reduced(marked: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    scale = min(1.0, _SIDE / max(marked.shape))
    size = (max(1, round(marked.shape[1] * scale)), max(1, round(marked.shape[0] * scale)))
    image = Image.fromarray(marked.astype(np.uint8) * 255).resize(size, Image.Resampling.BOX)
    grey = np.asarray(image)
    # a line thinner than a reduced pixel is nowhere more than half of one
    inside: npt.NDArray[np.bool_] = grey > min(127, int(grey.max()) // 2)
    return inside


def _winding(marked: npt.NDArray[np.bool_]) -> float:
    """How much longer an outline is than that of a square of its area, squared."""
    edges = (marked[1:] != marked[:-1]).sum() + (marked[:, 1:] != marked[:, :-1]).sum()
    return float(edges**2 / (16 * marked.sum())) if marked.any() else 0.0


def _parts(marked: npt.NDArray[np.bool_]) -> int:
    """Number of connected parts that are not far smaller than the largest."""
    joined = marked.copy()
    joined[:, 1:] |= marked[:, :-1]  # pixels that touch at corners are one part, as of thin lines
    areas = np.bincount(number_parts(joined)[marked])[1:]
    return int((areas >= 0.1 * areas.max()).sum()) if len(areas) else 0
