"""Contracts of every head: shots, sizes, gradients, losses."""

import copy
import inspect
import pickle
import typing
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from svfseg.config import BackboneConfig, ModelConfig, TuningConfig
from svfseg.errors import InputError
from svfseg.lab.run import Objective
from svfseg.models import HEADS, Backbone, Head, as_head, build_model, computes_features_once
from svfseg.models.dense import summed_up
from svfseg.models.head import GeneralizedHead
from svfseg.svf import merge_svf
from svfseg.tuning.strategies import STRATEGIES, tune

# pspnet learns from single images: see test_bam.py
EPISODIC = [head for head in HEADS if head != "pspnet"]
every_head = pytest.mark.parametrize("head", EPISODIC)


def tiny(head: str, **options: object) -> nn.Module:
    torch.manual_seed(0)
    backbone = BackboneConfig("test_resnet", "none")
    model = build_model(ModelConfig(head=head, hidden=16, backbone=backbone, **options)).eval()
    for layer in model.backbone.norm_layers():
        nn.init.ones_(layer.weight)  # timm starts residual branches at zero: no gradient inside
    return model


def episode(shots: int = 1, size: int = 64, batch: int = 2) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    query = 255 * torch.rand(batch, 3, size, size, generator=generator)
    support = 255 * torch.rand(batch, shots, 3, size, size, generator=generator)
    mask = torch.zeros(batch, shots, size, size, dtype=torch.uint8)
    mask[..., 10:40, 20:50] = 1
    mask[..., :5, :] = 255
    return query, support, mask


def loss_of(model: nn.Module, aux: float, *tensors: torch.Tensor) -> torch.Tensor:
    """The training loss; heads that ask for base classes get a map of them."""
    query, support, mask, target = tensors
    given = {
        "query": query,
        "support": support,
        "support_mask": mask,
        "target": target,
        "base_target": torch.where(target == 255, 255, 2 * target),
        "class_number": torch.full((len(query),), 2),
    }
    return Objective(model, aux)(*(given[name] for name in model.inputs))


@every_head
@pytest.mark.parametrize("size", [64, 65, 97])
def test_logits_have_the_querys_size(head: str, size: int) -> None:
    with torch.inference_mode():
        assert tiny(head)(*episode(size=size)).shape == (2, 2, size, size)


@every_head
def test_shots_are_averaged_not_summed(head: str) -> None:
    """Five copies of one support say what one says, with the same weights."""
    model = tiny(head)
    query, support, mask = episode()
    with torch.inference_mode():
        one = model(query, support, mask)
        five = model(query, support.repeat(1, 5, 1, 1, 1), mask.repeat(1, 5, 1, 1))
    assert torch.allclose(one, five, atol=1e-4 * float(one.abs().max()))


@every_head
def test_supports_and_their_order(head: str) -> None:
    model = tiny(head)
    query, support, mask = episode(shots=3)
    with torch.inference_mode():
        expected = model(query, support, mask)
        assert torch.allclose(model(query, support.flip(1), mask.flip(1)), expected, atol=1e-4)
        assert not torch.allclose(model(query, support[:, :1], mask[:, :1]), expected, atol=1e-4)


@pytest.mark.parametrize("head", [head for head in EPISODIC if head != "dense"])
def test_ignored_support_pixels_are_background(head: str) -> None:
    model = tiny(head)
    query, support, mask = episode()
    with torch.inference_mode():
        expected = model(query, support, mask)
        assert torch.equal(model(query, support, mask * (mask == 1)), expected)


@given(st.integers(0, 2**31), st.integers(0, 60))
@settings(deadline=None)
def test_directions_sum_up_what_is_marked(seed: int, count: int) -> None:
    """Unit vectors, only of what is marked, no matter in which order it lies."""
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.nn.functional.normalize(torch.randn(8, 60, generator=generator), dim=0)
    marked = torch.zeros(60, dtype=torch.bool)
    marked[torch.randperm(60, generator=generator)[:count]] = True
    found = summed_up(vectors.double(), marked, 8)
    if count == 0:
        assert not found.any()
        return
    torch.testing.assert_close(found.norm(dim=0), torch.ones(8).double())
    alone = summed_up(vectors[:, marked].double(), torch.ones(count, dtype=torch.bool), 8)
    torch.testing.assert_close(found, alone)
    if count <= 8:  # each of them is there
        nearest = (found.mT @ vectors[:, marked].double()).amax(dim=0)
        torch.testing.assert_close(nearest, torch.ones(count).double())


def test_dense_takes_no_direction_from_ignored_support_pixels() -> None:
    """What the ignored pixels show only matters through the backbone's field of view."""
    model = tiny("dense")
    _query, support, mask = episode()
    with torch.inference_mode():
        (view,) = model.encode(support[0], [mask[0, 0]], query=False)[1]
        (known,) = model.encode(support[0], [mask[0, 0] * (mask[0, 0] == 1)], query=False)[1]
    assert torch.equal(view.keys, known.keys)
    assert not torch.equal(view.ground, known.ground)


@every_head
def test_an_empty_support_mask_gives_finite_logits(head: str) -> None:
    query, support, mask = episode()
    with torch.inference_mode():
        assert torch.isfinite(tiny(head)(query, support, 0 * mask)).all()


@every_head
def test_items_of_a_batch_do_not_mix(head: str) -> None:
    model = tiny(head)
    query, support, mask = episode()
    with torch.inference_mode():
        both = model(query, support, mask)
        alone = model(query[1:], support[1:], mask[1:])
    assert torch.allclose(both[1:], alone, atol=1e-4)


@every_head
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_trained_parameter_gets_a_gradient(head: str, strategy: str) -> None:
    """Head, both reductions and what the strategy tunes, down to layer4's s."""
    model = tiny(head)
    head_parameters, tuned = tune(model, TuningConfig(strategy=strategy))
    query, support, mask = episode()
    loss_of(model, 1.0, query, support, mask, mask[:, 0]).backward()
    missing = [
        n
        for n, p in model.named_parameters()
        if p.requires_grad and (p.grad is None or not p.grad.any())
    ]
    # an inner ReLU of a tiny random network may be shut; nothing else may miss
    assert not [n for n in missing if "backbone" not in n]
    # what starts with a factor of zero hides the other factor's gradient in the first step
    assert len(missing) <= (0.6 if strategy in ("adapter", "lora") else 0.1) * len(tuned)
    assert bool(tuned) == (strategy != "frozen")
    trained = {id(p) for p in (*head_parameters, *tuned)}
    assert all(p.grad is None for p in model.parameters() if id(p) not in trained)
    if strategy == "svf":
        assert {
            n.rpartition(".")[2] for n, p in model.backbone.named_parameters() if p.requires_grad
        } == {"s"}
        with torch.inference_mode():
            factored = model(query, support, mask)
            merge_svf(model.backbone)
            assert torch.allclose(model(query, support, mask), factored, atol=1e-4)


@every_head
def test_ignored_pixels_do_not_change_the_loss(head: str) -> None:
    model = tiny(head)
    query, support, mask = episode()
    target = mask[:, 0].clone()
    with torch.inference_mode():
        whole = loss_of(model, 1.0, query, support, mask, target)
        target[:, 30:] = 255
        assert not torch.isclose(loss_of(model, 1.0, query, support, mask, target), whole)
        assert torch.isfinite(loss_of(model, 1.0, query, support, mask, target))


def test_pfenet_adds_its_auxiliary_losses() -> None:
    model = tiny("pfenet")
    query, support, mask = episode()
    with torch.inference_mode():
        plain = Objective(model, 0.0)(query, support, mask, mask[:, 0])
        logits = model(query, support, mask)
        main = nn.functional.cross_entropy(logits, mask[:, 0].long(), ignore_index=255)
        assert torch.isclose(plain, main)
        half, one = (Objective(model, w)(query, support, mask, mask[:, 0]) for w in (0.5, 1.0))
    assert torch.isclose(one - plain, 2 * (half - plain))
    assert one > plain


def test_published_sizes() -> None:
    """Trainable parameters of the heads at full size."""
    for head, name, stride, expected in (
        ("pfenet", "resnet50_deep", 8, 10_817_034),
        ("baseline", "resnet50_deep", 8, 4_917_250),
        ("bam", "resnet50_deep", 8, 4_917_254),
        ("pfenet", "vgg16_bn", 16, 10_423_818),
        ("baseline", "vgg16_bn", 16, 4_524_034),
    ):
        model = build_model(ModelConfig(head=head, backbone=BackboneConfig(name, "none", stride)))
        found, tuned = tune(model, TuningConfig(strategy="frozen"))
        assert sum(p.numel() for p in found) == expected
        assert not tuned


def test_a_head_of_your_own_by_its_dotted_path() -> None:
    assert isinstance(tiny("tests.models.test_heads.Mine"), Mine)
    with pytest.raises(ValueError, match="did you mean pfenet"):
        build_model(ModelConfig(head="pfnet"))
    with pytest.raises(ValueError, match="cannot be imported"):
        build_model(ModelConfig(head="tests.models.test_heads.Nothing"))


class Sized(nn.Module):
    """A plain module with settings, of which the config has two."""

    def __init__(self, backbone: Backbone, hidden: int = 64, own: float = 0.5) -> None:
        super().__init__()
        self.backbone, self.hidden, self.own = backbone, hidden, own


def test_settings_reach_a_head_of_your_own_or_are_refused() -> None:
    backbone = BackboneConfig("test_resnet", "none")
    config = ModelConfig("tests.models.test_heads.Sized", backbone=backbone)
    assert build_model(config).hidden == 64
    assert build_model(replace(config, hidden=16)).hidden == 16
    with pytest.raises(ValueError, match=r"model.dropout is 0.1, and .*Sized takes no dropout"):
        build_model(replace(config, dropout=0.1))


class Mine(nn.Module):
    """A plain module: a backbone and a forward, and no more."""

    def __init__(self, backbone: Backbone, hidden: int = 1) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, query: Tensor, support: Tensor, support_mask: Tensor) -> Tensor:
        bright = query.mean(dim=1) / 255 - support_mask.float().mean()
        return torch.stack([-bright, bright], dim=1)


def test_a_plain_module_is_completed() -> None:
    """What it lacks comes from EpisodicHead; it can be copied, pickled and tuned."""
    head = tiny("tests.models.test_heads.Mine")
    assert not computes_features_once(head)
    query, support, mask = episode(shots=2)
    features, _ = head.encode(query[:1], [])
    supports = [head.encode(support[0, k][None], [mask[0, k]], query=False)[1][0] for k in range(2)]
    expected = head(query[:1], support[:1], mask[:1])
    torch.testing.assert_close(head.decode([features], [supports], (64, 64)), expected)
    for again in (copy.deepcopy(head), pickle.loads(pickle.dumps(head))):
        assert isinstance(again, Mine)
        torch.testing.assert_close(again(query[:1], support[:1], mask[:1]), expected)
    assert tune(head, TuningConfig(strategy="bias"))[1]


def test_it_is_a_head_on_newer_pythons_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """From Python 3.12 on, a protocol looks up members statically: submodules are not seen."""

    def statically(thing: object, name: str) -> bool:
        return inspect.getattr_static(thing, name, None) is not None

    monkeypatch.setattr(typing, "hasattr", statically, raising=False)
    for name in ("tests.models.test_heads.Mine", "baseline", "dense", "bam"):
        assert as_head(tiny(name)).backbone is not None
    assert isinstance(tiny("bam"), GeneralizedHead)


def test_what_a_plain_module_brings_is_kept() -> None:
    class Own(Mine):
        inputs = ("query", "target")

        def loss(self, query: Tensor, target: Tensor, aux: float = 1.0) -> Tensor:
            return (query.mean(dim=1) - target).square().mean()

    head = as_head(Own(tiny("baseline").backbone))
    assert head.inputs == ("query", "target")
    assert float(head.loss(torch.zeros(1, 3, 4, 4), torch.ones(1, 4, 4))) == 1
    with pytest.raises(InputError, match="expected a backbone as its attribute"):
        as_head(nn.Linear(2, 2))


@pytest.mark.parametrize("name", HEADS)
def test_every_head_keeps_the_contract(name: str) -> None:
    head = tiny(name)
    members = {each for each in (*vars(Head), *Head.__annotations__) if not each.startswith("_")}
    assert {"backbone", "decode", "inputs", "state_dict"} < members
    assert not {each for each in members if not hasattr(head, each)}
