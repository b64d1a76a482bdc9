"""Every route of a factored layer: one output, one gradient; what is kept, and what is refused."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.checkpoint import checkpoint

from svfseg.lab.bench.measure import saved_bytes
from svfseg.svf import apply_svf, merge_svf, set_route, svf_parameters
from svfseg.svf.functional import ROUTES, Geometry, multiplications, positions
from svfseg.svf.layers import FactoredLayer
from tests.svf.layer_table import CASES, error, made

every_layer = pytest.mark.parametrize("name", CASES)


@every_layer
@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("input_grad", [True, False])
def test_routes_agree_in_output_and_gradients(name: str, route: str, input_grad: bool) -> None:
    layer, x = made(name)
    apply_svf(layer)
    reference = copy.deepcopy(layer)
    with torch.no_grad():
        layer.s *= 1.2
        reference.s *= 1.2
    set_route(reference, "differentiable")
    set_route(layer, route)
    results = []
    for module in (reference, layer):
        given_x = x.clone().requires_grad_(input_grad)
        y = module(given_x)
        (y * torch.arange(y.numel(), dtype=y.dtype).view_as(y)).sum().backward()
        results.append((y, module.s.grad, given_x.grad))
    (y, ds, dx), (y2, ds2, dx2) = results
    assert error(y2, y) < 1e-12
    assert error(ds2, ds) < 1e-12
    assert (dx is None) == (dx2 is None) == (not input_grad)
    if dx is not None:
        assert dx2.shape == x.shape
        assert error(dx2, dx) < 1e-12


def test_only_z_is_kept() -> None:
    layer = nn.Conv2d(64, 8, 3, padding=1)
    apply_svf(layer)
    set_route(layer, "factored")
    x = torch.randn(2, 64, 10, 10, requires_grad=True)
    assert saved_bytes(layer, lambda: layer(x))[0] == 4 * 2 * 8 * 10 * 10  # z, not x
    layer.s.requires_grad_(False)
    assert saved_bytes(layer, lambda: layer(x))[0] == 0


def test_second_derivatives_are_refused_or_right() -> None:
    layer, x = made("conv2d")
    apply_svf(layer)
    set_route(layer, "factored")
    x.requires_grad_(True)
    with pytest.raises(RuntimeError, match=r'set_route\(model, "differentiable"\)'):
        torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)
    set_route(layer, "differentiable")
    assert torch.autograd.gradgradcheck(layer, (x[:1, :, :4, :4].detach().requires_grad_(True),))


def test_an_unknown_route_is_refused() -> None:
    layer, _ = made("conv2d")
    with pytest.raises(ValueError, match="apply_svf first"):
        set_route(layer, "factored")
    apply_svf(layer)
    with pytest.raises(ValueError, match="expected one of auto, factored"):
        set_route(layer, "quick")  # type: ignore[arg-type]


def test_the_route_is_the_cheapest() -> None:
    """A wide layer stays factored; a square one is rebuilt where positions outweigh building."""
    wide, square = nn.Linear(384, 1536), nn.Linear(384, 384)
    for layer in (wide, square):
        apply_svf(layer)
        assert isinstance(layer, FactoredLayer)

    def route(layer: nn.Module, rows: int) -> str:
        x = torch.randn(rows, 384, requires_grad=True)
        return layer.route_for(x, Geometry("linear", layer.svf_shape))  # type: ignore[operator]

    assert route(wide, 20000) == "factored"
    assert route(square, 4000) == "recomposed"
    assert route(square, 100) == "factored"
    set_route(square, "factored")
    assert route(square, 4000) == "factored"


@given(st.integers(1, 600), st.integers(1, 600), st.integers(1, 5000), st.booleans(), st.booleans())
def test_counts_match_the_sums_by_hand(h: int, w: int, n: int, dx: bool, ds: bool) -> None:
    r = min(h, w)
    counts = multiplications(h, w, n, dx, ds)
    backward = (n * r * h if dx or ds else 0) + (n * r * w if dx else 0)
    assert counts["factored"] == n * r * (h + w) + backward
    building = r * h * w
    plain = n * h * w + (n * h * w if dx else 0)
    assert counts["recomposed"] == building + plain + (n * h * w + building if ds else 0)


@settings(deadline=None, max_examples=40)
@given(
    st.integers(1, 3), st.integers(5, 12), st.integers(1, 3), st.integers(0, 2),
    st.integers(1, 3), st.integers(1, 2), st.booleans(),
)  # fmt: skip
def test_positions_are_those_of_the_output(
    n: int, side: int, stride: int, padding: int, k: int, dilation: int, transposed: bool
) -> None:
    kind = nn.ConvTranspose2d if transposed else nn.Conv2d
    layer = kind(2, 3, k, stride=stride, padding=min(padding, k // 2), dilation=dilation)
    x = torch.randn(n, 2, side, side + 1)
    apply_svf(layer)
    _, geometry = layer._prepared(x)  # type: ignore[operator]
    y = layer(x)
    assert positions(x, geometry) == y.numel() // 3


@every_layer
def test_checkpoint_recomputes_the_same(name: str) -> None:
    layer, x = made(name)
    apply_svf(layer)
    x.requires_grad_(True)
    layer(x).square().sum().backward()
    expected = layer.s.grad.clone()
    layer.s.grad = None
    checkpoint(layer, x, use_reentrant=False).square().sum().backward()
    assert torch.equal(layer.s.grad, expected)


def test_hooks_see_and_change_what_they_would() -> None:
    layer, x = made("conv2d")
    apply_svf(layer)
    seen: list[torch.Size] = []
    layer.register_forward_hook(lambda m, i, o: seen.append(o.shape) or 2 * o)
    layer.register_full_backward_hook(lambda m, gi, go: seen.append(go[0].shape))
    plain = merge_svf(copy.deepcopy(layer))
    y = layer(x.requires_grad_(True))
    y.sum().backward()
    assert seen == [y.shape, y.shape]
    assert error(y, plain(x)) < 1e-12


@pytest.mark.parametrize("name", ["conv2d", "conv2d depthwise", "transpose2d", "linear"])
def test_export_keeps_the_numbers(name: str) -> None:
    layer, x = made(name, torch.float32)
    apply_svf(layer)
    program = torch.export.export(nn.Sequential(layer).eval(), (x,))
    assert error(program.module()(x), layer(x)) < 1e-6


@pytest.mark.parametrize("name", ["conv2d", "conv2d grouped", "linear", "own forward"])
@pytest.mark.parametrize("route", ROUTES)
def test_autocast_rounds_no_more_than_the_plain_layer(name: str, route: str) -> None:
    layer, x = made(name, torch.float32)
    x.requires_grad_(True)
    exact = copy.deepcopy(layer).double()(x.detach().double())
    apply_svf(layer)
    set_route(layer, route)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.bfloat16
    assert error(y, exact) < 0.01
    y.float().square().sum().backward()
    assert layer.s.grad.dtype == torch.float32
    ours = layer.s.grad.clone()
    layer.s.grad = None
    layer(x).square().sum().backward()
    assert error(ours, layer.s.grad) < 0.05


def test_unused_gradients_are_not_computed() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1))
    apply_svf(model, ["1"])
    model[0].requires_grad_(False)
    x = torch.randn(1, 3, 8, 8)
    assert not model[0](x).requires_grad  # in front of the first trained layer: no graph
    assert len(svf_parameters(model)) == 1
