"""The guided filter against its definition, and what it is for."""

import torch

from svfseg.models.refine import guided_filter


def by_definition(
    values: torch.Tensor, image: torch.Tensor, radius: int, epsilon: float
) -> torch.Tensor:
    """Each window's ridge regression of the map on the colours, then the mean over windows."""
    height, width = values.shape
    slopes, shifts = torch.zeros(height, width, 3), torch.zeros(height, width)
    slopes, shifts = slopes.double(), shifts.double()

    def window(i: int, j: int) -> tuple[slice, slice]:
        rows = slice(max(0, i - radius), i + radius + 1)
        return rows, slice(max(0, j - radius), j + radius + 1)

    for i in range(height):
        for j in range(width):
            colours = image[(slice(None), *window(i, j))].flatten(1)
            known = values[window(i, j)].flatten()
            mean = colours.mean(dim=1)
            apart = colours - mean[:, None]
            covariance = apart @ apart.T / len(known) + epsilon * torch.eye(3).double()
            slope = torch.linalg.solve(covariance, apart @ (known - known.mean()) / len(known))
            slopes[i, j], shifts[i, j] = slope, known.mean() - slope @ mean
    filtered = torch.zeros(height, width).double()
    for i in range(height):
        for j in range(width):
            slope = slopes[window(i, j)].flatten(0, 1).mean(dim=0)
            filtered[i, j] = slope @ image[:, i, j] + shifts[window(i, j)].mean()
    return filtered


def test_it_is_what_he_and_others_define() -> None:
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, 3, 12, 17, generator=generator).double()
    maps = torch.rand(1, 2, 12, 17, generator=generator).double()
    found = guided_filter(maps, image, 3, 1e-2, coarser=1)
    for channel in range(2):
        expected = by_definition(maps[0, channel], image[0], 3, 1e-2)
        torch.testing.assert_close(found[0, channel], expected)


def test_computing_it_on_coarser_pixels_is_nearly_the_same() -> None:
    torch.manual_seed(0)
    image = torch.nn.functional.interpolate(torch.rand(1, 3, 12, 16), (96, 128), mode="bilinear")
    maps = torch.nn.functional.interpolate(torch.rand(1, 2, 6, 8), (96, 128), mode="bilinear")
    exact, fast = guided_filter(maps, image, coarser=1), guided_filter(maps, image)
    assert float((exact - fast).abs().mean()) < 0.1 * float((exact - maps).abs().mean() + 0.1)


def test_a_blurred_edge_moves_onto_that_of_the_image() -> None:
    image = torch.zeros(1, 3, 40, 60)
    image[..., 30:] = 1
    blurred = torch.linspace(-1, 1, 21)
    maps = torch.cat([-torch.ones(22), blurred, torch.ones(17)]).expand(1, 1, 40, 60)
    found = guided_filter(maps.contiguous(), image)[0, 0, 20]
    before, after = maps[0, 0, 20], found
    assert float(before[30] - before[29]) < 0.11
    assert float(after[30] - after[29]) > 3 * float(before[30] - before[29])


def test_a_flat_image_smooths_and_a_flat_map_stays() -> None:
    flat = torch.full((1, 3, 20, 20), 0.3)
    maps = torch.full((1, 1, 20, 20), 0.7)
    torch.testing.assert_close(guided_filter(maps, flat), maps)
    torch.testing.assert_close(guided_filter(maps, torch.rand(1, 3, 20, 20)), maps)
