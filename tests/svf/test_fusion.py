"""Frozen normalisation folded into factored layers, ReLU that keeps bits."""

import copy
import pickle

import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, ResNet
from torchvision.models.vgg import make_layers

from svfseg.lab.bench.measure import saved_bytes
from svfseg.svf import apply_svf, fuse, merge_svf, set_route, svf_parameters, unfuse
from svfseg.svf.fusion import FoldedNorm, LeanReLU, pack, unpack
from tests.svf.layer_table import error


def settled(model: nn.Module) -> nn.Module:
    """Frozen normalisations that do something, in float64."""
    torch.manual_seed(0)
    for m in model.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.running_mean.normal_(0, 0.2)
            m.running_var.uniform_(0.5, 1.5)
            if m.affine:
                nn.init.uniform_(m.weight, 0.5, 1.5)
                nn.init.normal_(m.bias, 0, 0.2)
    return model.double().eval().requires_grad_(False)


class Block(nn.Module):
    """A residual block whose ReLU is shared, as torchvision's."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(4, 6, 3, padding=1, bias=True), nn.BatchNorm2d(6)
        self.conv2, self.bn2 = nn.Conv2d(6, 4, 1, bias=False), nn.BatchNorm2d(4, affine=False)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(y)) + x)


NARROW = [32, "M", 64, "M", 128, 128, "M", 256, 256, "M", 256, 256, "M"]  # half of VGG-11
MODELS = {
    "block": (lambda: Block(), (2, 4, 7, 5), 2),
    "resnet": (lambda: ResNet(BasicBlock, [1, 1, 1, 1], num_classes=3), (1, 3, 33, 33), 12),
    "vgg": (lambda: make_layers(NARROW, batch_norm=True), (1, 3, 33, 33), 8),
    "efficientnet": (
        lambda: timm.create_model("tf_efficientnet_lite0", features_only=True).blocks,
        (1, 32, 17, 17),
        43,  # of 47: four pad dynamically
    ),
    "depthwise": (
        lambda: nn.Sequential(
            nn.Conv2d(4, 4, 3, groups=4), nn.BatchNorm2d(4), nn.ReLU6(), nn.Conv2d(4, 2, 1)
        ),
        (1, 4, 9, 9),
        1,
    ),
}
every_model = pytest.mark.parametrize("name", MODELS)


def both(name: str) -> tuple[nn.Module, nn.Module, Tensor]:
    build, shape, _ = MODELS[name]
    model = settled(build())
    apply_svf(model)
    with torch.no_grad():
        for s in svf_parameters(model):
            s.mul_(1.05)
    fused = copy.deepcopy(model)
    fuse(fused)
    return model, fused, torch.randn(shape, dtype=torch.float64)


def gradients(model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    y = model(x)
    y.square().sum().backward()
    return y.detach(), torch.cat([s.grad.flatten() for s in svf_parameters(model)])


@every_model
def test_fused_gives_the_same_outputs_and_gradients(name: str) -> None:
    plain, fused, x = both(name)
    y, g = gradients(plain, x)
    y2, g2 = gradients(fused, x)
    assert error(y2, y) < 1e-12
    assert error(g2, g) < 1e-10
    with torch.no_grad():
        assert error(fused(x), y) < 1e-12


@every_model
def test_every_norm_behind_a_standard_layer_is_folded(name: str) -> None:
    _, _, expected = MODELS[name]
    plain, fused, x = both(name)
    found = [m for m in fused.modules() if isinstance(m, FoldedNorm)]
    assert len(found) == expected
    assert all(getattr(p, n).folded_norm() is m for m in found for p, n in [m.svf_conv])
    # max pooling, in VGG, keeps its input
    assert saved_bytes(fused, lambda: fused(x))[0] < 0.6 * saved_bytes(plain, lambda: plain(x))[0]


@every_model
def test_state_copies_and_pickles(name: str) -> None:
    plain, fused, x = both(name)
    assert list(fused.state_dict()) == list(plain.state_dict())
    assert [n for n, _ in fused.named_modules()] == [n for n, _ in plain.named_modules()]
    expected = fused(x)
    again = copy.deepcopy(fused)
    for s in svf_parameters(fused):
        s.data.zero_()
    assert torch.equal(again(x), expected)
    folded = [m for m in again.modules() if isinstance(m, FoldedNorm)]
    assert {id(m.svf_conv[0]) for m in folded} <= {id(m) for m in again.modules()}
    assert torch.equal(pickle.loads(pickle.dumps(again))(x), expected)


@every_model
def test_merge_and_unfuse_give_the_classes_back(name: str) -> None:
    build, _, _ = MODELS[name]
    types = [type(m) for m in build().modules()]
    plain, fused, x = both(name)
    y = plain(x)
    standard = sum(not m.svf_own_forward for m in plain.modules() if hasattr(m, "svf_shape"))
    assert MODELS[name][2] == standard - (name in ("resnet", "depthwise"))
    assert [type(m) for m in unfuse(copy.deepcopy(fused)).modules()] == [
        type(m) for m in plain.modules()
    ]
    merge_svf(fused)
    assert [type(m) for m in fused.modules()] == types
    assert error(fused(x), y) < 1e-12
    assert not any(k.startswith("svf_") for m in fused.modules() for k in vars(m))


def test_a_norm_that_works_is_left_to_work() -> None:
    """Training mode, trained weights, hooks, a replaced module: nothing is folded."""
    plain, fused, x = both("block")
    expected = plain(x)
    seen = []
    handle = fused.conv1.register_forward_hook(lambda m, i, o: seen.append(o))
    assert error(fused(x), expected) < 1e-12
    assert error(seen[0], plain.conv1(x)) < 1e-12  # the convolution's own output
    handle.remove()
    fused.bn1.weight.requires_grad_(True)
    fused(x).sum().backward()
    assert fused.bn1.weight.grad is not None
    fused.bn1.weight.requires_grad_(False)
    fused.bn1.train()
    plain.bn1.train()
    assert error(fused(x), plain(x)) < 1e-12
    assert torch.equal(fused.bn1.running_mean, plain.bn1.running_mean)
    fused.bn1 = nn.Identity()
    plain.bn1 = nn.Identity()
    assert error(fused(x), plain(x)) < 1e-12


def test_shared_and_branching_layers_are_left_alone() -> None:
    class Branch(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.bn = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
            self.twice, self.bn2 = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            return self.bn2(self.twice(self.twice(self.bn(y) + y)))

    model = settled(Branch())
    apply_svf(model)
    assert fuse(model) == 0


def test_a_norm_whose_channels_depend_on_the_input_is_left_alone() -> None:
    """BatchNorm1d normalises the second dimension, a linear layer's channels are the last."""
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)).double().eval().requires_grad_(False)
    nn.init.uniform_(model[1].running_var, 0.5, 1.5)
    x = torch.randn(2, 3, 4, dtype=torch.float64)
    expected = model(x)
    apply_svf(model)
    assert fuse(model) == 0
    assert error(model(x), expected) < 1e-12


@pytest.mark.parametrize("fold", [False, True])
def test_a_bias_trains_too_if_it_is_asked_to(fold: bool) -> None:
    plain, model, x = both("block")
    for m in (plain, model):
        m.conv1.bias.requires_grad_(True)
        (m if fold or m is plain else unfuse(m))(x).square().sum().backward()
    assert model.conv1.bias.grad is not None
    set_route(plain, "differentiable")
    plain.zero_grad()
    plain(x).square().sum().backward()
    assert error(model.conv1.bias.grad, plain.conv1.bias.grad) < 1e-10


def test_what_cannot_be_traced_is_searched_inside() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Block()

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x) if x.sum() > 0 else self.inner(-x)

    model = settled(Odd())
    apply_svf(model)
    assert fuse(model) == 2


@given(st.lists(st.integers(1, 9), min_size=1, max_size=4), st.integers(0, 2**31), st.booleans())
def test_bits_round_trip(shape: list[int], seed: int, swapped: bool) -> None:
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(seed)) > 0.5
    if swapped:
        mask = mask.transpose(0, -1).clone(memory_format=torch.preserve_format)
    bits = pack(mask)
    assert bits.dtype == torch.uint8
    assert bits.numel() == -(-mask.numel() // 8)
    assert torch.equal(unpack(bits, mask.shape, mask.stride()).bool(), mask)


@pytest.mark.parametrize("kind", [nn.ReLU, nn.ReLU6])
@pytest.mark.parametrize("inplace", [True, False])
def test_relu_keeps_a_bit_and_has_second_derivatives(kind: type, inplace: bool) -> None:
    relu = nn.Sequential(kind(inplace=inplace))
    plain = copy.deepcopy(relu)
    fuse(relu)
    assert isinstance(relu[0], LeanReLU)
    x = (4 * torch.randn(3, 5, 7, dtype=torch.float64)).requires_grad_(True)
    y, y2 = plain(x * 1), relu(x * 1)
    assert torch.equal(y, y2)
    w = torch.randn_like(y)
    (g,), (g2,) = (torch.autograd.grad((v * w).sum(), x) for v in (y, y2))
    assert torch.equal(g, g2)
    assert saved_bytes(relu, lambda: relu(x + 0))[0] == -(-x.numel() // 8)
    assert torch.autograd.gradgradcheck(lambda v: relu(v * v), (x,))


@pytest.mark.parametrize("name", ["block", "depthwise"])
def test_compile_export_and_autocast_of_fused_models(name: str) -> None:
    plain, fused, x = both(name)
    _, g = gradients(plain, x)
    compiled = torch.compile(fused, backend="aot_eager", fullgraph=True)
    y, g2 = gradients(compiled, x)
    assert error(g2, g) < 1e-10
    assert error(torch.export.export(fused, (x,)).module()(x), y) < 1e-12
    with torch.autocast("cpu", torch.bfloat16):
        assert error(fused.float()(x.float()), y) < 0.05
