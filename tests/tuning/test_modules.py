"""Additions to plain layers, of both kinds: they begin as nothing and merge into plain weights."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

from svfseg.tuning.lora import add_lora, merge_lora
from svfseg.tuning.ssf import add_scales, merge_scales

INSERTS: dict[str, tuple[Callable[[nn.Module], int], Callable[[nn.Module], None]]] = {
    "lora": (lambda net: add_lora(net, ".*", 2), merge_lora),
    "scales": (lambda net: add_scales(net, ".*"), merge_scales),
}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", INSERTS)
def test_convolutions_and_linear_layers_are_given_it_and_get_it_back(name: str, bias: bool) -> None:
    add, merge = INSERTS[name]
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=2, dilation=2, bias=bias), nn.Flatten(2), nn.Linear(25, 4, bias)
    ).requires_grad_(False)
    plain = copy.deepcopy(net)
    x = torch.randn(2, 3, 5, 5)
    assert add(net) == 2
    assert torch.allclose(net(x), plain(x), atol=1e-6)
    trained = [p for p in net.parameters() if p.requires_grad]
    assert len(trained) == 4  # two for each layer
    for parameter in trained:
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    changed = net(x)
    assert not torch.allclose(changed, plain(x), atol=1e-3)
    merge(net)
    assert [type(m) for m in net.modules()] == [type(m) for m in plain.modules()]
    assert torch.allclose(net(x), changed, atol=1e-5)
