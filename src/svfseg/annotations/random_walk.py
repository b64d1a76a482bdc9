"""Regions grown from seeds by random walks over an image's colours (Grady, PAMI 2006)."""

import numpy as np
import numpy.typing as npt

from svfseg.errors import InputError

Grid = npt.NDArray[np.float64]
# How much a difference of colour hinders a walk; the squared differences are taken in units of
# ten standard deviations of the image, so that contrast matters and exposure does not.
_CONTRAST = 700
# No edge is closed: every pixel has a way to a seed.
_OPEN = 1e-10
# The residual, relative to the right side, at which the solver stops: shares of walks are
# compared with 0.4 and 0.6, and the error is far below that distance.
_TOLERANCE = 1e-3


def walk_shares(image: Grid, inside: npt.NDArray[np.bool_], outside: npt.NDArray[np.bool_]) -> Grid:
    """Compute for each pixel the share of random walks that meet the inside seeds first.

    A walk steps to one of the four neighbours with a chance that falls with the difference of
    colour. Its share is the solution of a Laplace equation on the grid with the seeds as boundary,
    found here by conjugate gradients with the diagonal as preconditioner.

    Args:
        image: (height, width, channels) in 0 to 1.
        inside: (height, width), the seeds of the region.
        outside: (height, width), the seeds of everything else, disjoint from ``inside``.

    Returns:
        (height, width): 1 at the inside seeds, 0 at the outside seeds, between them elsewhere.

    Raises:
        InputError: there is not a single seed.
    """
    if not (inside | outside).any():
        raise InputError("a region grows from marks: found none inside the image")
    # edges between neighbours in a column and in a row
    down, right = (_conductance(image, axis) for axis in (0, 1))
    degree = np.zeros(image.shape[:2])
    degree[:-1] += down
    degree[1:] += down
    degree[:, :-1] += right
    degree[:, 1:] += right
    free = ~(inside | outside)
    shares = inside.astype(float)

    def from_neighbours(values: Grid) -> Grid:
        total = np.zeros_like(values)
        total[:-1] += down * values[1:]
        total[1:] += down * values[:-1]
        total[:, :-1] += right * values[:, 1:]
        total[:, 1:] += right * values[:, :-1]
        return total

    # all grids below are 0 at the seeds, so that sums run over the free pixels alone
    residual = np.where(free, from_neighbours(shares), 0)
    solution, direction, former = np.zeros_like(residual), np.zeros_like(residual), 1.0
    enough = _TOLERANCE * float(np.linalg.norm(residual))
    for _ in range(10 * residual.size):
        if float(np.linalg.norm(residual)) <= enough:
            break
        scaled = residual / degree
        product = float(np.vdot(residual, scaled))
        direction = scaled + (product / former) * direction
        image_of = np.where(free, degree * direction - from_neighbours(direction), 0)
        step = product / float(np.vdot(direction, image_of))
        solution += step * direction
        residual -= step * image_of
        former = product
    return shares + solution


def _conductance(image: Grid, axis: int) -> Grid:
    """Compute how easily a walk crosses from each pixel to the next one along an axis."""
    squares = (np.diff(image, axis=axis) ** 2).sum(axis=-1)
    deviation = float(image.std())
    if deviation == 0:  # an image of one colour hinders no walk
        return np.ones_like(squares)
    scale = _CONTRAST / (10 * deviation * np.sqrt(image.shape[-1]))
    conductance: Grid = np.exp(-scale * squares) + _OPEN
    return conductance
