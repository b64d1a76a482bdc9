"""Selection, sharing, refusal and merging on whole models."""

import copy
from itertools import pairwise

import pytest
import timm
import torch
from torch import nn
from torch.nn.utils import prune

from svfseg.svf import apply_svf, fuse, merge_svf, plan_svf, svf_parameters, svf_summary
from svfseg.svf.layers import FactoredLayer
from tests.svf.layer_table import error


class Twice(nn.Module):
    """One block under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Conv2d(4, 4, 3, padding=1)
        self.right = nn.Sequential(self.left, nn.BatchNorm2d(4))
        self.head = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.right(self.left(x)).mean(dim=(2, 3)))


def small() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 1)
    )


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("resnet50", 64),
        ("vgg16_bn", 32),
        ("mobilenetv2_100", 64),
        ("tf_efficientnet_lite0", 65),
        ("resnext26ts", 64),
        ("convnext_atto", 64),
        ("vit_tiny_patch16_224", 224),
    ],
)
def test_networks_start_equal_and_merge_exactly(name: str, size: int) -> None:
    """Whole networks of timm in float32, output against output, <= 1e-5."""
    torch.manual_seed(0)
    # VGG's first fully connected layer, 4096 x 25088, alone takes minutes to factor
    few = {"num_classes": 0, "global_pool": "avg"} if name != "vgg16_bn" else {}
    net = timm.create_model(name, features_only=name == "vgg16_bn", **few).eval()
    keys = list(net.state_dict())
    x = torch.randn(1, 3, size, size)
    with torch.inference_mode():
        expected = _last(net(x))
        summary = apply_svf(net)
        assert error(_last(net(x)), expected) <= 1e-5
        assert summary.trained == sum(p.numel() for p in svf_parameters(net))
        for parameter in svf_parameters(net):
            parameter.mul_(1 + 0.1 * torch.rand_like(parameter))
        factored = _last(net(x))
        merge_svf(net)
        assert error(_last(net(x)), factored) <= 1e-5
    assert error(factored, expected) > 1e-3
    assert list(net.state_dict()) == keys


def _last(output: torch.Tensor | list[torch.Tensor]) -> torch.Tensor:
    return output if isinstance(output, torch.Tensor) else output[-1]


def test_plan_tells_what_apply_does() -> None:
    net = timm.create_model("mobilenetv2_100")
    for train in ("S", "UV"):
        plan = plan_svf(net, r"blocks\.[12]\..*", train=train)
        assert not any(isinstance(m, FactoredLayer) for m in net.modules())
        assert apply_svf(net, r"blocks\.[12]\..*", train=train) == plan
        merge_svf(net)


def test_selection_by_expression_list_and_exclusion() -> None:
    def chosen(**selection: object) -> list[str]:
        return [row.name for row in plan_svf(small_named(), **selection).layers]

    assert chosen() == ["stem.0", "body.conv", "body.proj", "head"]
    assert chosen(target_modules=r"body\..*") == ["body.conv", "body.proj"]
    assert chosen(target_modules=["conv", "head"]) == ["body.conv", "head"]
    assert chosen(target_modules=["body.proj"]) == ["body.proj"]
    assert chosen(exclude_modules=["head", "stem.0"]) == ["body.conv", "body.proj"]
    assert chosen(target_modules=r".*\.\w+", exclude_modules=r".*conv") == ["stem.0", "body.proj"]


def small_named() -> nn.Module:
    model = nn.Module()
    model.stem = nn.Sequential(nn.Conv2d(3, 4, 3))
    model.body = nn.Module()
    model.body.conv = nn.Conv2d(4, 4, 3)
    model.body.norm = nn.BatchNorm2d(4)
    model.body.proj = nn.Conv2d(4, 4, 1)
    model.head = nn.Linear(4, 2)
    return model


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        ({"target_modules": r"bodyy\..*"}, "nearest name is 'body'"),
        ({"target_modules": ["porj"]}, "nearest name is 'proj'"),
        ({"target_modules": "("}, "not a regular expression"),
        ({"target_modules": ["conv"], "exclude_modules": ["conv"]}, "leaves none"),
        ({"exclude_modules": ["hed"]}, "nearest name is 'head'"),
        ({"train": ""}, "letters S, U and V"),
        ({"train": "W"}, "letters S, U and V"),
        ({"scale": "log"}, "direct, relative"),
    ],
)
def test_bad_arguments_change_nothing(selection: dict, message: str) -> None:
    model = small_named()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=message):
        apply_svf(model, **selection)
    assert model.state_dict().keys() == before.keys()


def test_what_is_not_selected_is_left_as_it_was() -> None:
    model = small_named()
    model.stem[0].weight.requires_grad_(False)
    before = {n: p.requires_grad for n, p in model.named_parameters()}
    norm = model.body.norm
    apply_svf(model, ["conv"])
    after = {n: p.requires_grad for n, p in model.named_parameters() if "body.conv" not in n}
    assert after == {n: r for n, r in before.items() if "body.conv" not in n}
    assert model.body.norm is norm
    merge_svf(model)
    assert {n: p.requires_grad for n, p in model.named_parameters()} == before


def test_a_shared_module_stays_shared() -> None:
    model, x = Twice().eval(), torch.randn(2, 4, 6, 6)
    expected = model(x)
    for selection in (None, ["left"], ["right.0"]):
        apply_svf(model, selection, exclude_modules=["head"])
        assert model.left is model.right[0]
        assert isinstance(model.left, FactoredLayer)
        assert error(model(x), expected) < 1e-5
        assert len(svf_parameters(model)) == 1
        merge_svf(model)
        assert model.left is model.right[0]
        assert type(model.left) is nn.Conv2d


def test_the_model_may_be_a_layer_itself() -> None:
    layer = nn.Linear(4, 3)
    summary = apply_svf(layer)
    assert summary.layers[0].name == ""
    assert "(root)" in str(summary)
    assert type(merge_svf(layer)) is nn.Linear


def test_hooks_mode_and_attributes_survive() -> None:
    model = small()
    calls = []
    model[0].register_forward_hook(lambda *_: calls.append("forward"))
    model[0].register_forward_pre_hook(lambda *_: calls.append("before"))
    model[0].note = "mine"
    model.eval()
    apply_svf(model)
    assert not any(m.training for m in model.modules())
    model(torch.randn(1, 3, 5, 5))
    merge_svf(model)
    model(torch.randn(1, 3, 5, 5))
    assert calls == ["before", "forward"] * 2
    assert model[0].note == "mine"
    assert not any(m.training for m in model.modules())


def test_a_second_call_refuses_what_is_factored() -> None:
    model = small()
    apply_svf(model, ["0"])
    with pytest.raises(ValueError, match="'0' is factored already: call merge_svf first"):
        apply_svf(model)
    apply_svf(model, ["3"], train="SV")
    assert [row.name for row in svf_summary(model).layers] == ["0", "3"]


@pytest.mark.parametrize("wrap", ["parallel", "compiled", "inside"])
def test_wrapped_models_are_refused(wrap: str) -> None:
    model = small()
    wrapped = {
        "parallel": lambda: nn.DataParallel(model),
        "compiled": lambda: torch.compile(model, backend="eager"),
        "inside": lambda: nn.Sequential(nn.DataParallel(model)),
    }[wrap]()
    with pytest.raises(ValueError, match="plain model"):
        apply_svf(wrapped)


def test_layers_that_cannot_be_factored_are_named() -> None:
    model = small()
    torch.nn.utils.parametrizations.weight_norm(model[3])
    with pytest.raises(ValueError, match=r"'3' is computed by a parametrization"):
        apply_svf(model)
    apply_svf(model, exclude_modules=["3"])
    assert isinstance(model[0], FactoredLayer)

    tied = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    tied[2].weight = tied[0].weight
    with pytest.raises(ValueError, match="share one weight tensor"):
        apply_svf(tied)
    with pytest.raises(ValueError, match="no weights yet"):
        apply_svf(nn.LazyLinear(3))
    with pytest.raises(ValueError, match="no layer that SVF can factor"):
        apply_svf(nn.ReLU())
    broken = nn.Linear(3, 3)
    broken.weight.data[0, 0] = float("nan")
    with pytest.raises(ValueError, match="NaN"):
        apply_svf(broken)
    assert type(broken) is nn.Linear
    for call in (merge_svf, svf_parameters, svf_summary):
        with pytest.raises(ValueError, match="call apply_svf first"):
            call(nn.Linear(2, 2))


def test_attention_reads_the_recomposed_weight() -> None:
    """A code path that uses .weight of its layers, without calling them, works and learns."""
    torch.manual_seed(0)
    block = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    x = torch.randn(2, 5, 8)
    for mode in (True, False):
        block.train(mode)
        with torch.set_grad_enabled(mode):
            expected = block(x)
            apply_svf(block)
            assert error(block(x), expected) < 1e-5
        if mode:
            block(x).sum().backward()
            assert all(p.grad is not None for p in svf_parameters(block))
        merge_svf(block)


def test_summary_prints_a_table() -> None:
    summary = apply_svf(small())
    assert [row.rank for row in summary] == [8, 4]
    assert len(summary) == 2
    text = str(summary)
    lines = text.splitlines()
    assert lines[0].split() == ["layer", "type", "weight", "groups", "rank", "trained"]
    assert lines[1].split() == ["0", "Conv2d", "8x3x3x3", "1", "8", "8"]
    assert lines[-1].split() == ["total", "2", "layers", "12"]


def test_training_moves_only_singular_values() -> None:
    model = small()
    model.requires_grad_(False)
    apply_svf(model)
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.SGD(svf_parameters(model), lr=0.1)
    losses = []
    x, target = torch.randn(4, 3, 6, 6), torch.randn(4, 4, 6, 6)
    model.eval()
    for _ in range(20):
        loss = (model(x) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert all(later < earlier for earlier, later in pairwise(losses))
    changed = {k for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
    assert changed == {"0.s", "3.s"}


WRITES = {
    "copy_": lambda layer: layer.weight.copy_(torch.ones(4, 3, 3, 3)),
    "data.add_": lambda layer: layer.weight.data.add_(1.0),
    "data +=": lambda layer: exec("layer.weight.data += 1", {"layer": layer}),
    "detach": lambda layer: layer.weight.detach().mul_(2),
    "data =": lambda layer: exec("layer.weight.data = 1 * layer.weight", {"layer": layer}),
    "item": lambda layer: layer.weight.__setitem__(0, 1.0),
    "init": lambda layer: nn.init.zeros_(layer.weight),
    "reset": lambda layer: layer.reset_parameters(),
    "prune": lambda layer: prune.l1_unstructured(layer, "weight", 0.3),
    "assign": lambda layer: setattr(layer, "weight", nn.Parameter(torch.zeros(4, 3, 3, 3))),
}


@pytest.mark.parametrize("way", WRITES)
def test_a_write_to_the_weight_is_never_silent(way: str) -> None:
    """It is computed at each look, so what is written would be lost."""
    layer = nn.Conv2d(3, 4, 3)
    apply_svf(layer)
    before = layer.weight.clone()
    with torch.no_grad(), pytest.raises(ValueError, match="call merge_svf first"):
        WRITES[way](layer)
    assert torch.equal(layer.weight, before)


def test_the_weight_is_read_as_before() -> None:
    layer = nn.Conv2d(3, 4, 3)
    apply_svf(layer)
    made = layer.weight * 2
    assert type(made) is torch.Tensor
    made.sum().backward()
    assert layer.s.grad is not None
    assert type(layer.weight.clone()) is torch.Tensor
    layer.weight.clone().zero_()
    assert float(layer.weight.data.norm()) == pytest.approx(float(layer.weight.norm().detach()))


def test_transforms_of_torch_func_work_on_every_route() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3)).eval()
    net.requires_grad_(False)
    apply_svf(net)
    fuse(net)
    x = torch.randn(2, 3, 9, 9)
    trained = {name: p for name, p in net.named_parameters() if p.requires_grad}

    def loss(values: dict) -> torch.Tensor:
        return torch.func.functional_call(net, values, (x,)).square().mean()

    found = torch.func.grad(loss)(trained)
    net(x).square().mean().backward()
    for name, p in trained.items():
        assert torch.allclose(found[name], p.grad, atol=1e-6)


@pytest.mark.parametrize("shape", [(8, 16, 3), (8, 16, 1)])
def test_the_memory_format_comes_back(shape: tuple[int, int, int]) -> None:
    plain = nn.Conv2d(*shape).to(memory_format=torch.channels_last)
    kept = plain.weight.stride()
    apply_svf(plain)
    merge_svf(plain)
    assert plain.weight.stride() == kept or shape[2] == 1


def test_what_is_left_out_is_named() -> None:
    model = nn.ModuleDict({
        "attention": nn.MultiheadAttention(8, 2), "lstm": nn.LSTM(8, 8),
        "table": nn.Embedding(5, 8), "out": nn.Linear(8, 4),
    })  # fmt: skip
    for summary in (plan_svf(model), apply_svf(model)):
        assert set(summary.left_out) == {
            "attention.in_proj_weight", "lstm.weight_ih_l0", "lstm.weight_hh_l0",
        }  # fmt: skip
        assert "left as they are: attention.in_proj_weight" in str(summary)
    assert plan_svf(nn.Linear(3, 3)).left_out == ()


def test_parts_of_low_rank_additions_are_passed_over_unless_named() -> None:
    model = nn.ModuleDict({"base_layer": nn.Linear(8, 8), "lora_A": nn.ModuleDict(
        {"default": nn.Linear(8, 2, bias=False)})})  # fmt: skip
    assert [row.name for row in plan_svf(model)] == ["base_layer"]
    assert plan_svf(model).left_out == ("lora_A.default",)
    assert [row.name for row in plan_svf(model, "lora_A[.].*")] == ["lora_A.default"]


def test_a_container_s_name_is_told_how_to_be_given() -> None:
    model = nn.ModuleDict({"enc": nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3))})
    for wrong in ({"target_modules": "enc"}, {"exclude_modules": ["enc"]}):
        with pytest.raises(ValueError, match=r"'enc' holds 2 layers: 'enc\[.\].\*' matches them"):
            apply_svf(model, **wrong)
    assert len(apply_svf(model, "enc[.].*")) == 2
