"""The mathematics: decomposition, its inverse, and one basis where the vectors are free."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from svfseg.svf import factorize, recompose, spectrum
from svfseg.svf.factorize import fold, unfold
from tests.svf.layer_table import error

shapes = st.tuples(
    st.integers(1, 4),  # groups
    st.integers(1, 5),  # outputs a group
    st.integers(1, 5),  # inputs a group
    st.lists(st.integers(1, 3), max_size=3),  # kernel
    st.booleans(),  # transposed
    st.integers(0, 99),  # seed
)


def weight_of(case: tuple) -> tuple[torch.Tensor, int, bool]:
    groups, out, into, kernel, transposed, seed = case
    generator = torch.Generator().manual_seed(seed)
    first, second = (groups * into, out) if transposed else (groups * out, into)
    weight = torch.randn(first, second, *kernel, generator=generator, dtype=torch.float64)
    return weight, groups, transposed


@settings(deadline=None, max_examples=60)
@given(shapes)
def test_fold_and_unfold_are_inverse(case: tuple) -> None:
    weight, groups, transposed = weight_of(case)
    matrices = fold(weight, groups, transposed)
    assert matrices.shape[:2] == (groups, case[1])
    assert torch.equal(unfold(matrices, tuple(weight.shape), transposed), weight)


@settings(deadline=None, max_examples=60)
@given(shapes)
def test_factors_multiply_to_the_weight(case: tuple) -> None:
    weight, groups, transposed = weight_of(case)
    factors = factorize(weight, groups, transposed)
    matrices = fold(weight, groups, transposed)
    rank = factors.s.shape[1]
    assert rank == min(matrices.shape[1:])
    assert error(recompose(factors), matrices) < 1e-13
    eye = torch.eye(rank, dtype=torch.float64).expand(groups, rank, rank)
    assert torch.allclose(factors.U.mT @ factors.U, eye, atol=1e-12)
    assert torch.allclose(factors.Vh @ factors.Vh.mT, eye, atol=1e-12)
    assert (factors.s >= 0).all()
    assert (factors.s.diff(dim=1) <= 1e-12).all()


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 8), st.integers(0, 99), st.sampled_from(["same", "two", "null", "zero"]))
def test_equal_singular_values_get_one_basis(n: int, seed: int, kind: str) -> None:
    """Another, equally valid decomposition of the same weight gives the same factors."""
    generator = torch.Generator().manual_seed(seed)

    def orthogonal() -> torch.Tensor:
        square = torch.randn(n, n, generator=generator, dtype=torch.float64)
        return torch.linalg.qr(square).Q

    values = {
        "same": torch.ones(n),
        "two": torch.cat([torch.full((n - n // 2,), 3.0), torch.full((n // 2,), 1.0)]),
        "null": torch.cat([torch.arange(n - n // 2, 0, -1.0), torch.zeros(n // 2)]),
        "zero": torch.zeros(n),
    }[kind].double()
    weight = orthogonal() @ torch.diag(values) @ orthogonal().mT
    first = factorize(weight)
    # rounding noise makes LAPACK choose other vectors in each tied subspace
    noise = 1e-14 * torch.randn(n, n, generator=generator, dtype=torch.float64)
    second = factorize(weight + noise)
    change = torch.rand(n, generator=generator, dtype=torch.float64)
    if kind == "zero":
        return  # the noise is all there is
    changed = [recompose(f._replace(s=f.s + change)) for f in (first, second)]
    assert error(changed[1], changed[0]) < 1e-6
    assert error(recompose(first)[0], weight) < 1e-9


def test_a_weight_of_zeros_has_factors() -> None:
    factors = factorize(torch.zeros(4, 6))
    assert torch.equal(recompose(factors), torch.zeros(1, 4, 6).double())
    again = factorize(torch.zeros(4, 6))
    assert torch.equal(factors.U, again.U)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_no_decomposition_of_nan(bad: float) -> None:
    weight = torch.randn(3, 3)
    weight[1, 1] = bad
    with pytest.raises(ValueError, match="NaN or infinity"):
        factorize(weight)


def test_spectrum_statistics() -> None:
    start = torch.tensor([[2.0, 1.0]])
    found = spectrum(torch.tensor([[2.0, 2.0]]), start)
    assert found.norm == pytest.approx(8**0.5)
    assert found.change == pytest.approx(1 / 5**0.5)
    assert found.largest == pytest.approx(1.0)
    assert found.effective_rank == pytest.approx(2.0)
