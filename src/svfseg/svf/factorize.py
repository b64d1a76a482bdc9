"""Factor a weight into singular triplets, W -> (U, s, Vh) per group, and back: pure functions."""

from typing import NamedTuple

import torch
from torch import Tensor

from svfseg.errors import InputError

# Singular values closer than this fraction of the largest span a subspace in which LAPACK's
# vectors are arbitrary: they change from one library or machine to the next. Farther apart,
# float64 vectors agree to about 1e-16 / 1e-9 = 1e-7, the precision of a float32 weight.
DEGENERATE = 1e-9


class Factors(NamedTuple):
    """One thin singular value decomposition per group: ``W[g] = U[g] @ diag(s[g]) @ Vh[g]``.

    Attributes:
        U: (groups, out / groups, rank), orthonormal columns.
        s: (groups, rank), descending, not negative.
        Vh: (groups, rank, in / groups * kernel), orthonormal rows.
    """

    U: Tensor
    s: Tensor
    Vh: Tensor


def fold(weight: Tensor, groups: int = 1, transposed: bool = False) -> Tensor:
    """Lay the weight of a layer out as one matrix per group.

    Args:
        weight: (out, in / groups, *kernel) of a convolution, (in, out / groups, *kernel) of a
            transposed one, (out, in) of a linear layer.
        groups: number of groups of the convolution.
        transposed: whether the weight is a transposed convolution's.

    Returns:
        (groups, out / groups, in / groups * kernel).
    """
    if transposed:
        per_group = weight.reshape(groups, weight.shape[0] // groups, *weight.shape[1:])
        return per_group.transpose(1, 2).flatten(2)
    return weight.reshape(groups, weight.shape[0] // groups, -1)


def unfold(matrices: Tensor, shape: tuple[int, ...], transposed: bool = False) -> Tensor:
    """Undo `fold`: (groups, out / groups, in / groups * kernel) -> ``shape``."""
    if not transposed:
        return matrices.reshape(shape)
    groups, rows, _ = matrices.shape
    per_group = matrices.reshape(groups, rows, shape[0] // groups, *shape[2:])
    return per_group.transpose(1, 2).reshape(shape)


def factorize(weight: Tensor, groups: int = 1, transposed: bool = False) -> Factors:
    """Factor a weight in float64, at full rank min(out, in * kernel) of each group.

    Singular vectors are made unique (up to a common sign, which does not change ``u vᵀ``) where
    singular values coincide, so that a vector ``s`` trained on one machine means the same
    function on another (see `canonical`).

    Args:
        weight: as in `fold`, any floating dtype.
        groups: number of groups.
        transposed: whether the weight is a transposed convolution's.

    Returns:
        Factors in float64 on the weight's device.

    Raises:
        InputError: the weight holds NaN or infinity.
    """
    matrices = fold(weight.detach(), groups, transposed)
    if not torch.isfinite(matrices).all():
        raise InputError("the weight holds NaN or infinity and has no singular value decomposition")
    device = matrices.device
    # Apple's GPU has no float64; every other device factors where the weight lies.
    matrices = (matrices.cpu() if device.type == "mps" else matrices).double()
    factors = canonical(Factors(*torch.linalg.svd(matrices, full_matrices=False)))
    return factors if factors.U.device == device else Factors(*(f.to(device) for f in factors))


def recompose(factors: Factors) -> Tensor:
    """Compute ``U diag(s) Vh`` of every group: (groups, out / groups, in / groups * kernel)."""
    return (factors.U * factors.s.unsqueeze(-2)) @ factors.Vh


def canonical(factors: Factors) -> Factors:
    """Choose one basis wherever a decomposition leaves the vectors free.

    A triplet's common sign: the largest entry of each row of Vh is made positive. Within a run of
    (nearly) equal singular values only the spanned subspace is determined: its projector applied
    to a fixed pseudo-random matrix, orthonormalised, depends on the subspace alone. Left and
    right vectors are rotated together, so the product stays W; where the values are zero, left
    and right subspaces are independent and each gets its own basis.
    """
    U, s, Vh = factors
    largest = s[:, :1]
    tied = (s[:, :-1] - s[:, 1:]) <= DEGENERATE * largest
    null = s <= DEGENERATE * largest
    for group in torch.nonzero(tied.any(dim=1) | null.any(dim=1)).flatten().tolist():
        for start, stop in _runs(tied[group].tolist()):
            if stop - start == 1 and not null[group, start]:
                continue
            block = slice(start, stop)
            if null[group, start:stop].all():
                U[group, :, block] = _fixed_basis(U[group, :, block])
                Vh[group, block] = _fixed_basis(Vh[group, block].mT).mT
            else:
                basis = _fixed_basis(Vh[group, block].mT)
                rotation = Vh[group, block] @ basis
                Vh[group, block] = basis.mT
                U[group, :, block] = U[group, :, block] @ rotation
    peak = Vh.gather(2, Vh.abs().argmax(dim=2, keepdim=True))
    sign = torch.where(peak < 0, -1.0, 1.0)
    return Factors(U * sign.mT, s, Vh * sign)


def _runs(tied: list[bool]) -> list[tuple[int, int]]:
    """Maximal runs [start, stop) of neighbours that are tied; a lone value is a run of one."""
    starts = [0] + [i + 1 for i, same in enumerate(tied) if not same]
    return list(zip(starts, [*starts[1:], len(tied) + 1], strict=True))


def _fixed_basis(vectors: Tensor) -> Tensor:
    """An orthonormal basis of the span of (n, k) orthonormal columns that depends on the span."""
    n, k = vectors.shape
    generator = torch.Generator().manual_seed(0)
    probe = torch.randn(n, k, generator=generator, dtype=torch.float64).to(vectors.device)
    basis, triangle = torch.linalg.qr(vectors @ (vectors.mT @ probe))
    unique: Tensor = basis * torch.where(triangle.diagonal() < 0, -1.0, 1.0)
    return unique


class Spectrum(NamedTuple):
    """How a layer's singular values moved, summed up.

    Attributes:
        norm: Euclidean norm of the singular values now (the Frobenius norm of the weight).
        change: norm of the difference to the start, divided by the norm at the start.
        largest: largest change of one value, relative to its start value.
        effective_rank: exp of the entropy of s / sum(s) (Roy and Vetterli, 2007).
    """

    norm: float
    change: float
    largest: float
    effective_rank: float


def spectrum(s: Tensor, start: Tensor) -> Spectrum:
    """Compare singular values ``s`` with those at the ``start``, same shape each."""
    now, then = s.detach().double().flatten(), start.detach().double().flatten()
    share = now.abs() / now.abs().sum().clamp_min(1e-300)
    entropy = -(share * share.clamp_min(1e-300).log()).sum()
    floor = then.norm().clamp_min(1e-300)
    return Spectrum(
        norm=now.norm().item(),
        change=((now - then).norm() / floor).item(),
        largest=((now - then).abs() / then.abs().clamp_min(1e-12 * floor.item())).max().item(),
        effective_rank=entropy.exp().item(),
    )
