"""Contracts of every strategy: identity at the start, what trains, merge, deep copy, save, load."""

import copy
import json
import pickle
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import nn

from svfseg.config import BackboneConfig, TuningConfig
from svfseg.lab.events import Event, StepDone
from svfseg.lab.training import train
from svfseg.models import Backbone, EpisodicHead, build_backbone
from svfseg.tuning.checkpoint import load_run, restore_model
from svfseg.tuning.strategies import STRATEGIES, merge, tune
from tests.data.test_files import folder_of
from tests.lab.test_training import config_of, tensors

NETWORKS = {"test_resnet": 32, "tf_efficientnet_lite0": 16, "vgg16": 16, "resnet50": 16}
every_strategy = pytest.mark.parametrize("strategy", STRATEGIES)


class Head(EpisodicHead):
    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone


def tuned(strategy: str, name: str = "test_resnet", **settings: object) -> Backbone:
    torch.manual_seed(0)
    backbone = build_backbone(BackboneConfig(name, "none", NETWORKS[name])).eval()
    for layer in backbone.norm_layers():
        nn.init.ones_(layer.weight)
    tune(Head(backbone), TuningConfig(strategy=strategy, **settings))  # type: ignore[arg-type]
    return backbone


def nudge(backbone: nn.Module) -> None:
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in backbone.parameters():
            if parameter.requires_grad:
                parameter += (
                    0.02 * torch.randn_like(parameter) * (parameter.std(correction=0) + 0.1)
                )


def outputs(backbone: Backbone) -> torch.Tensor:
    image = 255 * torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        return torch.cat([f.flatten() / f.abs().max().clamp_min(1e-9) for f in backbone(image)])


@cache
def untouched(name: str) -> torch.Tensor:
    return outputs(tuned("frozen", name))


# the factored layers' own tests go over the networks
@pytest.mark.parametrize(
    ("strategy", "name"),
    [(s, n) for s in STRATEGIES for n in NETWORKS if "svf" not in s or n == "test_resnet"],
)
def test_identity_at_the_start(strategy: str, name: str) -> None:
    if strategy == "norm" and name == "vgg16":
        with pytest.raises(ValueError, match="finds nothing to train"):
            tuned(strategy, name)
        return
    assert torch.allclose(outputs(tuned(strategy, name)), untouched(name), atol=1e-4)


@pytest.mark.parametrize("strategy", [s for s in STRATEGIES if s not in ("frozen", "full")])
def test_only_the_chosen_stages_train(strategy: str) -> None:
    backbone = tuned(strategy, stages=(3,))
    names = [n for n, p in backbone.named_parameters() if p.requires_grad]
    assert names
    assert all(n.startswith("layer3.") for n in names)


@every_strategy
def test_merged_it_computes_the_same_in_plain_layers(strategy: str) -> None:
    backbone = tuned(strategy)
    before = outputs(backbone)
    nudge(backbone)
    trained = outputs(backbone)
    assert torch.equal(trained, before) == (strategy == "frozen")
    merge(backbone)
    assert torch.allclose(outputs(backbone), trained, atol=1e-4)
    plain = {n for n, _ in tuned("frozen").named_modules()}
    added = {n for n, _ in backbone.named_modules()} - plain
    assert all(".adapter" in n for n in added)
    assert bool(added) == (strategy == "adapter")


@every_strategy
def test_copies_and_pickles(strategy: str) -> None:
    backbone = tuned(strategy)
    nudge(backbone)
    expected = outputs(backbone)
    twin = copy.deepcopy(backbone)
    assert torch.equal(outputs(twin), expected)
    if strategy not in ("lora",):  # peft's own layers pickle or not as peft decides
        assert torch.equal(outputs(pickle.loads(pickle.dumps(backbone))), expected)
    nudge(twin)
    assert torch.equal(outputs(backbone), expected)


def test_what_each_strategy_trains() -> None:
    def kinds(strategy: str, **settings: object) -> set[str]:
        backbone = tuned(strategy, **settings)
        return {n.rpartition(".")[2] for n, p in backbone.named_parameters() if p.requires_grad}

    assert kinds("norm") == {"weight", "bias"}
    assert kinds("bias") == {"bias"}
    assert kinds("ssf") == {"ssf_scale", "ssf_shift"}
    assert kinds("svf", factors="SU") == {"s", "U"}
    assert kinds("svf", parametrization="relative") == {"gain"}
    assert kinds("svf+norm") == {"s", "weight", "bias"}
    layers = dict(tuned("conv", kernels="pointwise").named_modules())
    for kernels in ("pointwise", "spatial"):
        for name, parameter in tuned("conv", kernels=kernels).named_parameters():
            if parameter.requires_grad:
                size = layers[name.rpartition(".")[0]].kernel_size
                assert (size == (1, 1)) == (kernels == "pointwise")
    with pytest.raises(ValueError, match=r"tuning.rank is 0"):
        tuned("adapter", rank=0)


def test_statistics_are_a_switch_of_their_own() -> None:
    image = 255 * torch.rand(2, 3, 64, 64)
    for statistics in (False, True):
        backbone = tuned("norm", stages=(3,), statistics=statistics).train()
        before = {k: v.clone() for k, v in backbone.named_buffers()}
        backbone(image)
        moved = {k for k, v in backbone.named_buffers() if not torch.equal(v, before[k])}
        assert bool(moved) == statistics
        assert all(k.startswith("layer3.") for k in moved)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder_of(tmp_path_factory.mktemp("folder"), classes=8, each=5)


@every_strategy
@pytest.mark.parametrize("weights", ["none", "imagenet"])
def test_saved_loaded_and_resumed(data: Path, tmp_path: Path, strategy: str, weights: str) -> None:
    """The run folder gives back the trained function, and going on is as if never stopped."""

    def config(out: str):  # type: ignore[no-untyped-def]
        made = config_of(data, tmp_path / out, strategy)
        tuning = replace(made.tuning, statistics="norm" in strategy, weight_decay=0.1,
                         decay_to="start")  # fmt: skip
        if weights == "imagenet":
            backbone = BackboneConfig(output_stride=32)
            made = replace(made, model=replace(made.model, backbone=backbone))
        optim = replace(made.optim, steps=4)
        selection = replace(made.selection, every=2, monitor="last")
        return replace(made, tuning=tuning, optim=optim, selection=selection)

    class Stop(Exception):
        pass

    def stop(event: Event) -> None:
        if isinstance(event, StepDone) and event.step == 3:
            raise Stop

    train(config("whole"))
    with pytest.raises(Stop):
        train(config("parts"), report=stop)
    train(config("parts"), resume=True)
    for folder in ("", "adapter"):
        if weights == "imagenet" and folder and strategy.startswith("svf"):
            one, two = (
                (tmp_path / run / "last" / folder / "adapter.safetensors").read_bytes()
                for run in ("whole", "parts")
            )
            assert one == two
    whole, parts = tensors(tmp_path / "whole"), tensors(tmp_path / "parts")
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[k], parts[k]) for k in whole)
    restored = restore_model(tmp_path / "parts" / "last", config("parts")).eval()
    merged, _ = load_run(tmp_path / "parts", "last")
    # the tiny random network amplifies rounding; what matters is that it is the same function
    assert torch.allclose(outputs(merged.backbone), outputs(restored.backbone), atol=1e-3)
    size = sum(f.stat().st_size for f in (tmp_path / "parts/best").rglob("*") if f.is_file())
    if weights == "imagenet" and strategy not in ("full", "layers", "conv"):
        assert size < 3e6  # the head and what trained, not the backbone
    assert json.loads((tmp_path / "parts/last/checkpoint.json").read_text())["step"] == 4


def test_decay_towards_the_start_holds_the_weights_there(data: Path, tmp_path: Path) -> None:
    """With a strong pull to the start s stays near it; to zero it shrinks."""
    sums = {}
    for goal in ("zero", "start"):
        made = config_of(data, tmp_path / goal)
        tuning = replace(made.tuning, lr=0.02, weight_decay=1.0, decay_to=goal)
        optim = replace(made.optim, schedule="constant", steps=20, clip=1e-6)
        run = train(replace(made, tuning=tuning, optim=optim,
                            selection=replace(made.selection, monitor="last")))  # fmt: skip
        model = restore_model(run / "last", replace(made, tuning=tuning))
        start = sum(float(m.svf_start.sum()) for m in model.modules() if hasattr(m, "svf_start"))
        now = sum(float(m.s.detach().sum()) for m in model.modules() if hasattr(m, "svf_start"))
        sums[goal] = now / start
    assert sums["start"] == pytest.approx(1, abs=0.01)  # the random base is drawn anew
    assert sums["zero"] < 0.9
