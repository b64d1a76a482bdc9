"""One test for each known defect of the published layer code: each fails on that code.

The numbers are those of the list of defects that this project keeps (A1 to A21).
"""

import copy
import inspect
import subprocess
import sys
import warnings

import pytest
import torch
from torch import nn

import svfseg.svf.apply
from svfseg.svf import apply_svf, factorize, merge_svf, plan_svf, svf_parameters
from tests.svf.layer_table import error


def start_error(layer: nn.Module, *shape: int) -> float:
    torch.manual_seed(0)
    x = torch.randn(*shape, dtype=next(layer.parameters()).dtype)
    expected = layer(x)
    apply_svf(layer)
    return error(layer(x), expected)


def test_a1_rank_is_full_not_a_multiple_of_four() -> None:
    layer = nn.Conv2d(3, 64, 3)
    assert start_error(layer, 1, 3, 9, 9) < 1e-6
    assert layer.s.shape == (1, 27)


@pytest.mark.parametrize("outputs", [1, 2, 3, 21])
def test_a2_layers_with_few_outputs_keep_their_rank(outputs: int) -> None:
    layer = nn.Conv2d(64, outputs, 1)
    assert start_error(layer, 1, 64, 5, 5) < 1e-6
    assert layer.s.shape == (1, outputs)


def test_a3_linear_layers_receive_weights_and_bias() -> None:
    layer = nn.Linear(10, 7)
    bias = layer.bias.detach().clone()
    assert start_error(layer, 4, 10) < 1e-6
    assert torch.equal(layer.bias, bias)


@pytest.mark.parametrize("groups", [2, 4])
def test_a4_groups_are_factored_one_by_one(groups: int) -> None:
    layer = nn.Conv2d(8, 12, 3, groups=groups)
    assert start_error(layer, 1, 8, 6, 6) < 1e-6
    assert layer.s.shape[0] == groups


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(6, 6, 3, groups=6),
        nn.Conv2d(6, 5, (1, 7)),
        nn.Conv2d(6, 5, (7, 1)),
        nn.Conv2d(1, 5, 3),
        nn.Conv2d(5, 1, 3),
    ],
    ids=["depthwise", "1x7", "7x1", "one input", "one output"],
)
def test_a5_no_convolution_is_skipped_for_its_shape(layer: nn.Conv2d) -> None:
    assert start_error(layer, 1, layer.in_channels, 8, 8) < 1e-6
    assert svf_parameters(layer)[0].numel() > 0


def test_a6_padding_mode_is_kept() -> None:
    assert start_error(nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"), 1, 4, 6, 6) < 1e-6


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_a7_precision_is_kept(dtype: torch.dtype) -> None:
    layer = nn.Conv2d(4, 4, 3).to(dtype)
    assert start_error(layer, 1, 4, 6, 6) < 1e-5
    assert layer.weight.dtype == dtype
    assert layer(torch.randn(1, 4, 6, 6).to(dtype)).dtype == dtype


def test_a8_the_model_stays_on_its_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is moved: the call never touches .to() or .cpu() of the model or its layers."""

    def moved(*_: object, **__: object) -> None:
        raise AssertionError("the model was moved")

    for name in ("to", "cpu", "cuda"):
        monkeypatch.setattr(nn.Module, name, moved)
    apply_svf(nn.Sequential(nn.Linear(3, 3)))


def test_a9_the_model_is_changed_in_place_without_a_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Sequential(nn.Linear(3, 3))
    layer, bias = model[0], model[0].bias

    def copied(*_: object) -> None:
        raise AssertionError("the model was copied")

    monkeypatch.setattr(copy, "deepcopy", copied)
    apply_svf(model)
    assert model[0] is layer
    assert layer.bias is bias


def test_a10_merging_gives_back_the_plain_cost() -> None:
    model = nn.Sequential(nn.Conv2d(4, 6, 3), nn.Linear(4, 6))
    before = [(type(m), sum(p.numel() for p in m.parameters())) for m in model.modules()]
    apply_svf(model)
    merge_svf(model)
    assert [(type(m), sum(p.numel() for p in m.parameters())) for m in model.modules()] == before


def test_a11_freezing_is_part_of_the_call() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    model.requires_grad_(False)
    apply_svf(model)
    assert {n for n, p in model.named_parameters() if p.requires_grad} == {"0.s"}
    merge_svf(model)
    assert not any(p.requires_grad for p in model.parameters())


def test_a12_root_layers_and_layers_inside_attention_are_reached() -> None:
    assert plan_svf(nn.Conv2d(3, 4, 3)).trained == 4
    attention = nn.MultiheadAttention(8, 2)
    assert [row.name for row in plan_svf(attention).layers] == ["out_proj"]


def test_a13_subclasses_and_other_dimensions_are_reached() -> None:
    class Mine(nn.Conv2d):
        pass

    model = nn.Sequential(
        Mine(3, 3, 1), nn.ConvTranspose2d(3, 3, 2), nn.Conv1d(3, 3, 1), nn.Conv3d(3, 3, 1)
    )
    assert len(plan_svf(model).layers) == 4
    apply_svf(model)
    assert isinstance(model[0], Mine)


def test_a14_shared_modules_stay_one() -> None:
    conv = nn.Conv2d(3, 3, 1)
    model = nn.ModuleDict({"a": conv, "b": nn.Sequential(conv)})
    apply_svf(model)
    assert model["a"] is model["b"][0]
    assert len(svf_parameters(model)) == 1


def test_a15_weight_can_still_be_read() -> None:
    layer = nn.Linear(4, 3)
    weight = layer.weight.detach().clone()
    apply_svf(layer)
    assert torch.allclose(layer.weight, weight, atol=1e-6)


def test_a16_layers_can_be_excluded_by_pattern() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    assert [row.name for row in plan_svf(model, exclude_modules="[1-9]").layers] == ["0"]


def test_a17_no_mutable_default_arguments() -> None:
    for name, function in inspect.getmembers(svfseg.svf.apply, inspect.isfunction):
        for parameter in inspect.signature(function).parameters.values():
            assert not isinstance(parameter.default, (list, dict, set)), name


def test_a18_nothing_deprecated_is_called() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        factors = factorize(torch.randn(4, 300))
    assert factors.Vh.shape == (1, 4, 300)  # thin, not 300 x 300


def test_a19_mode_hooks_and_names_survive() -> None:
    model = nn.Sequential(nn.Conv2d(3, 3, 1)).eval()
    seen: list[int] = []
    model[0].register_forward_hook(lambda *_: seen.append(1))
    plain = copy.deepcopy(model)
    apply_svf(model)
    assert not model[0].training
    model(torch.randn(1, 3, 2, 2))
    assert seen == [1]
    merge_svf(model)
    plain.load_state_dict(model.state_dict())


def test_a20_every_attribute_of_the_layer_is_kept() -> None:
    layer = nn.Conv2d(4, 8, (3, 5), (2, 1), (1, 2), (1, 2), 2, False, "circular")
    before = {k: v for k, v in vars(layer).items() if not k.startswith(("_parameters", "_buffers"))}
    apply_svf(layer)
    assert {k: vars(layer)[k] for k in before if k != "_non_persistent_buffers_set"} == {
        k: v for k, v in before.items() if k != "_non_persistent_buffers_set"
    }


def test_a21_every_module_of_the_method_runs_alone() -> None:
    code = "import sys, svfseg.svf as s; print(*sorted(m for m in sys.modules if 'svfseg' in m))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(found.stdout.split()) - {"svfseg"}
    assert loaded
    below = ("svfseg.files", "svfseg.errors", "svfseg._version", "svfseg._lazy")
    assert not {name for name in loaded if not name.startswith("svfseg.svf")} - set(below)
