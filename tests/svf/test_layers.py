"""Contracts of the factored layer, over every layer type."""

import copy
import pickle

import pytest
import torch
from torch import nn

from svfseg.svf import apply_svf, merge_svf, svf_parameters
from svfseg.svf.factorize import fold, recompose
from svfseg.svf.layers import FactoredLayer, factorize_layer, is_transposed
from tests.svf.layer_table import CASES, error, made

every_layer = pytest.mark.parametrize("name", CASES)


@every_layer
def test_identity_at_the_start(name: str) -> None:
    layer, x = made(name)
    expected = layer(x)
    apply_svf(layer)
    assert isinstance(layer, FactoredLayer)
    assert error(layer(x), expected) < 1e-13


@every_layer
@pytest.mark.parametrize(
    ("dtype", "bound"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-5), (torch.float16, 1e-5)]
)
def test_identity_at_the_start_in_every_precision(
    name: str, dtype: torch.dtype, bound: float
) -> None:
    layer, x = made(name, dtype)
    expected = layer(x)
    apply_svf(layer)
    assert layer(x).dtype == dtype
    assert error(layer(x), expected) <= bound


@every_layer
def test_full_rank_is_kept(name: str) -> None:
    layer, _ = made(name)
    factors = factorize_layer(layer)
    matrices = fold(layer.weight, getattr(layer, "groups", 1), is_transposed(layer))
    assert factors.s.shape == (len(matrices), min(matrices.shape[1:]))
    assert error(recompose(factors), matrices) < 1e-14


@every_layer
def test_only_singular_values_train(name: str) -> None:
    layer, x = made(name)
    apply_svf(layer)
    layer(x).square().sum().backward()
    trained = {n for n, p in layer.named_parameters() if p.requires_grad}
    assert trained == {"s"}
    assert layer.s.grad is not None
    assert all(p.grad is None for n, p in layer.named_parameters() if n != "s")
    assert [id(p) for p in svf_parameters(layer)] == [id(layer.s)]


@every_layer
def test_gradient_is_that_of_the_recomposed_weight(name: str) -> None:
    """dL/ds_i = u_iᵀ G v_i with G = dL/dW."""
    layer, x = made(name)
    plain = copy.deepcopy(layer)
    apply_svf(layer)
    with torch.no_grad():
        layer.s *= 1 + 0.3 * torch.rand_like(layer.s)
        plain.weight.copy_(layer.weight)
    target = torch.randn_like(plain(x))
    (layer(x) * target).sum().backward()
    (plain(x) * target).sum().backward()
    G = fold(plain.weight.grad, getattr(layer, "groups", 1), is_transposed(layer))
    expected = torch.einsum("gor,goi,gri->gr", layer.U, G, layer.Vh)
    assert error(layer.s.grad, expected) < 1e-12


@pytest.mark.parametrize("name", ["conv2d grouped", "transpose2d grouped", "linear", "own forward"])
@pytest.mark.parametrize("train", ["S", "U", "V", "SUV"])
def test_gradcheck(name: str, train: str) -> None:
    layer, x = made(name)
    apply_svf(layer, train=train)
    x = x[:1].requires_grad_(True)
    trained = {n: p for n, p in layer.named_parameters() if p.requires_grad}
    assert {id(p) for p in trained.values()} == {id(p) for p in svf_parameters(layer)}
    assert len(trained) == len(train)

    def run(input: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(layer, dict(zip(trained, values, strict=True)), input)

    assert torch.autograd.gradcheck(run, (x, *trained.values()), fast_mode=True)


@every_layer
def test_merge_is_exact_and_plain(name: str) -> None:
    layer, x = made(name)
    original = copy.deepcopy(layer)
    apply_svf(layer)
    with torch.no_grad():
        layer.s *= 1 + 0.3 * torch.rand_like(layer.s)
    expected = layer(x)
    merge_svf(layer)
    assert type(layer) is type(original)
    assert list(layer.state_dict()) == list(original.state_dict())
    assert vars(layer).keys() == vars(original).keys()
    assert {n: p.requires_grad for n, p in layer.named_parameters()} == {
        n: p.requires_grad for n, p in original.named_parameters()
    }
    original.load_state_dict(layer.state_dict())
    assert error(original(x), expected) < 1e-12


@every_layer
@pytest.mark.parametrize("scale", ["direct", "relative"])
def test_copies_and_saved_states(name: str, scale: str) -> None:
    layer, x = made(name, torch.float32)
    plain = copy.deepcopy(layer)
    apply_svf(layer, scale=scale)
    with torch.no_grad():
        svf_parameters(layer)[0].mul_(1.1)
    expected = layer(x)
    again = copy.deepcopy(layer)
    assert type(again) is type(layer)
    assert torch.equal(again(x), expected)
    assert again.s is not layer.s
    assert torch.equal(pickle.loads(pickle.dumps(layer))(x), expected)
    apply_svf(plain, scale=scale)
    plain.load_state_dict(layer.state_dict())
    assert torch.equal(plain(x), expected)


@pytest.mark.parametrize("name", ["conv2d", "linear", "transpose2d", "conv2d depthwise"])
def test_relative_scale_starts_at_one_and_keeps_s(name: str) -> None:
    layer, x = made(name)
    expected = layer(x)
    apply_svf(layer, scale="relative")
    assert torch.equal(layer.gain, torch.ones_like(layer.s))
    assert not layer.s.requires_grad
    assert error(layer(x), expected) < 1e-13
    layer(x).sum().backward()
    relative = layer.gain.grad.clone()
    other, _ = made(name)
    apply_svf(other)
    other(x).sum().backward()
    assert error(relative, other.s.grad * other.s.detach()) < 1e-12


def test_half_precision_layers_keep_their_weights_bit_by_bit() -> None:
    for dtype in (torch.bfloat16, torch.float16):
        layer, _ = made("conv2d", dtype)
        weight = layer.weight.detach().clone()
        apply_svf(layer)
        assert layer.s.dtype == torch.float32
        assert layer.weight.dtype == dtype
        assert error(layer.weight, weight) < 1e-6
        merge_svf(layer)
        assert layer.weight.dtype == dtype
        assert error(layer.weight, weight) < 1e-6


def test_moving_to_half_keeps_factors_wide() -> None:
    layer, x = made("conv2d", torch.float32)
    expected = copy.deepcopy(layer).to(torch.bfloat16)(x.to(torch.bfloat16))
    apply_svf(layer)
    layer.to(torch.bfloat16)
    assert {p.dtype for n, p in layer.named_parameters() if n != "bias"} == {torch.float32}
    assert layer.bias.dtype == torch.bfloat16
    assert error(layer(x.to(torch.bfloat16)), expected) < 1e-5
    layer.to(torch.float64)
    assert {p.dtype for p in layer.parameters()} == {torch.float64}
    assert merge_svf(layer).weight.dtype == torch.float64


def test_moving_to_a_device() -> None:
    layer, _ = made("conv2d grouped", torch.float32)
    apply_svf(layer)
    layer.to("meta")
    assert {p.device.type for p in layer.parameters()} == {"meta"}
    assert layer(torch.empty(2, 8, 6, 6, device="meta")).shape == (2, 12, 6, 6)


def test_optimizer_steps_survive_in_bfloat16_models() -> None:
    """A small step on s would vanish if s were rounded to bfloat16."""
    layer, _ = made("linear", torch.bfloat16)
    apply_svf(layer)
    before = layer.s.detach().clone()
    with torch.no_grad():
        layer.s += 1e-4
    assert (layer.s > before).all()


def test_autocast_matches_the_plain_layer() -> None:
    for name in ("conv2d", "linear", "own forward"):
        layer, x = made(name, torch.float32)
        with torch.autocast("cpu", torch.bfloat16):
            expected = layer(x)
            apply_svf(layer)
            found = layer(x)
        assert found.dtype == expected.dtype
        assert error(found, expected) < 0.02


def test_compile_gives_the_same_numbers() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 1, groups=2))
    apply_svf(model)
    x = torch.randn(2, 3, 6, 6)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    compiled(x).sum().backward()
    found = [p.grad.clone() for p in svf_parameters(model)]
    model.zero_grad()
    model(x).sum().backward()
    for gradient, p in zip(found, svf_parameters(model), strict=True):
        assert error(gradient, p.grad) < 1e-5


def test_output_size_of_a_transposed_convolution() -> None:
    layer = nn.ConvTranspose2d(4, 3, 3, stride=2).double()
    x = torch.randn(1, 4, 5, 5, dtype=torch.float64)
    expected = layer(x, output_size=[12, 11])
    apply_svf(layer)
    assert error(layer(x, output_size=[12, 11]), expected) < 1e-13


def test_repr_tells_the_factors() -> None:
    layer, _ = made("conv2d grouped")
    apply_svf(layer)
    assert "rank=3" in repr(layer)
    assert "groups of factors=4" in repr(layer)
