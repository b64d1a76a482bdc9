"""BAM and its base learner: what is shared, how shots are weighed, one map for all classes."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from svfseg.config import EvalConfig, TrainConfig, TuningConfig
from svfseg.lab.evaluation import evaluate
from svfseg.lab.events import StepDone
from svfseg.lab.training import train
from svfseg.models import BAM, PSPNet
from svfseg.models.bam import channel_cosines
from svfseg.models.functional import generalized_map, gram, gram_difference
from svfseg.tuning.checkpoint import load_run, restore_model, start_model
from svfseg.tuning.strategies import merge, tune
from tests.data.test_files import folder_of
from tests.lab.test_training import config_of
from tests.models.test_heads import episode, loss_of, tiny


def maps(model: nn.Module, *tensors: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return torch.cat([m.flatten() for m in model.maps(*tensors)])


@pytest.mark.parametrize("stages", [(4,), (3,), (2, 4), (2, 3, 4), (1, 2), (0,)])
def test_the_base_learner_keeps_its_backbone_whatever_is_tuned(stages: tuple[int, ...]) -> None:
    model = tiny("bam")
    tensors = episode()
    with torch.inference_mode():
        before = model.maps(*tensors)
    tune(model, TuningConfig(strategy="svf", stages=stages))
    assert set(model.base_stages) == {f"layer{i}" for i in stages}  # all others are shared
    assert not any(p.requires_grad for p in model.base_stages.parameters())
    with torch.no_grad():
        for parameter in model.backbone.parameters():
            if parameter.requires_grad:
                parameter *= 1.2
    with torch.inference_mode():
        after = model.maps(*tensors)
    torch.testing.assert_close(after.base, before.base, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(after.final, before.final, rtol=1e-6)
    expected = maps(model, *tensors)
    merge(model.backbone)
    torch.testing.assert_close(maps(model, *tensors), expected, rtol=1e-3, atol=1e-4)


def test_a_frozen_backbone_is_shared_whole() -> None:
    model = tiny("bam")
    tune(model, TuningConfig(strategy="frozen"))
    assert not model.base_stages
    model.train()
    assert not any(m.training for m in model.learner_base.modules())


def test_the_episodes_own_class_is_left_out_of_the_base_map() -> None:
    model = tiny("bam")
    with torch.no_grad():
        model.cls_merge.weight[0, 1] = 0.5
    tensors = episode()
    with torch.inference_mode():
        every = model.maps(*tensors).final
        without = model.maps(*tensors, torch.tensor([3, 7])).final
    assert (without[:, 0] < every[:, 0]).all()
    torch.testing.assert_close(without[:, 1], every[:, 1])


def test_the_three_losses() -> None:
    model = tiny("bam")
    query, support, mask = episode()
    tensors = (query, support, mask, mask[:, 0])
    plain, half, one = (loss_of(model, weight, *tensors) for weight in (0.0, 0.5, 1.0))
    torch.testing.assert_close(one - plain, 2 * (half - plain))
    assert one > plain


@given(st.integers(2, 9), st.integers(2, 6), st.integers(0, 1000))
def test_shot_weights_of_any_number(shots: int, trained: int, seed: int) -> None:
    """They sum to 1 and follow their shots, whatever number the weighting was made for."""
    torch.manual_seed(seed)
    model = BAM.__new__(BAM)
    nn.Module.__init__(model)
    model.shots = trained
    model.kshot_rw = nn.Sequential(nn.Conv2d(trained, 2, 1), nn.ReLU(), nn.Conv2d(2, trained, 1))
    psi = torch.rand(3, shots)
    with torch.inference_mode():
        weights = model.shot_weights(psi)
        torch.testing.assert_close(weights.sum(dim=1), torch.ones(3))
        order = torch.randperm(shots)
        torch.testing.assert_close(model.shot_weights(psi[:, order]), weights[:, order])
        assert torch.equal(model.shot_weights(psi[:, :1]), torch.ones(3, 1))
        model.shots = 1
        assert torch.equal(model.shot_weights(psi), torch.full((3, shots), 1 / shots))


def test_gram_difference() -> None:
    x = torch.randn(2, 5, 4, 4)
    own = gram(x)
    torch.testing.assert_close(own.diagonal(dim1=1, dim2=2), torch.ones(2, 5))
    assert gram_difference(own, own).tolist() == [0, 0]
    torch.testing.assert_close(gram(3 * x), own)
    torch.testing.assert_close(
        gram_difference(torch.ones(1, 5, 5), torch.zeros(1, 5, 5)), torch.ones(1)
    )


def test_one_map_for_base_and_novel() -> None:
    final = torch.tensor([[[[0.0, 0.0]], [[0.95, 0.73]]]])
    base = torch.tensor([[[[0.0, 0.0]], [[1.0, 0.0]], [[0.0, 1.0]]]])
    assert generalized_map(final, base).tolist() == [[[3, 2]]]
    assert generalized_map(final, base, 0.5).tolist() == [[[3, 3]]]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder_of(tmp_path_factory.mktemp("folder"), classes=8, each=9)


@pytest.fixture(scope="module")
def base_run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(base_config(data, tmp_path_factory.mktemp("base") / "run"))


def base_config(data: Path, out: Path) -> TrainConfig:
    """The published base training in small: all weights, normalisation included."""
    made = config_of(data, out, "full")
    backbone = replace(made.model.backbone, norm="train")
    model = replace(made.model, head="pspnet", base_classes=6, backbone=backbone)
    scale = replace(made.data, scale_range=(0.5, 2.0))
    return replace(made, model=model, data=scale)


def bam_config(data: Path, base_run: Path, out: Path, strategy: str, shot: int = 1) -> TrainConfig:
    made = config_of(data, out, strategy, shot=shot)
    model = replace(
        made.model, head="bam", base_learner=str(base_run), base_classes=6, weighted_shots=shot
    )
    return replace(made, model=model)


def test_a_base_learner_learns_and_is_scored_on_held_out_images(data: Path, tmp_path: Path) -> None:
    config = base_config(data, tmp_path / "run")
    with pytest.raises(ValueError, match="expected 2 images or more in each"):
        train(replace(config, optim=replace(config.optim, batch=1)))
    optim = replace(config.optim, steps=30, lr=0.02)
    losses: list[float] = []
    run = train(
        replace(config, optim=optim, selection=replace(config.selection, every=30)),
        report=lambda e: losses.append(e.loss) if isinstance(e, StepDone) else None,
    )
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
    model, _ = load_run(run)
    assert isinstance(model, PSPNet)
    assert model(torch.rand(1, 3, 64, 80)).shape == (1, 7, 64, 80)
    with pytest.raises(ValueError, match="learns base classes"):
        evaluate(run, EvalConfig(episodes=2, workers=0, device="cpu"))


@pytest.mark.parametrize(("strategy", "shot"), [("frozen", 1), ("svf", 1), ("svf", 2)])
def test_bam_from_base_learner_to_score(
    data: Path, base_run: Path, tmp_path: Path, strategy: str, shot: int
) -> None:
    config = bam_config(data, base_run, tmp_path / "run", strategy, shot)
    start = start_model(config.model)
    base, _ = load_run(base_run)
    for name, value in base.backbone.state_dict().items():
        assert torch.equal(start.backbone.state_dict()[name], value)
    run = train(config)
    trained = restore_model(run / "last", config)
    image = 255 * torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        kept = trained.eval().maps(image, image[None], torch.ones(1, 1, 64, 64)).base
        torch.testing.assert_close(kept, base(image), rtol=1e-3, atol=1e-3)
    plain = EvalConfig(episodes=4, workers=0, device="cpu", shot=3)
    result = evaluate(run, plain)
    assert 0 <= result.miou <= 1
    whole = evaluate(run, replace(plain, generalized=True))
    scores = whole.generalized
    assert scores is not None
    assert set(scores) >= {"base", "novel", "mean"}
    assert scores["mean"] == pytest.approx((6 * scores["base"] + 2 * scores["novel"]) / 8)


def test_bad_bases_are_told_in_a_line(data: Path, base_run: Path, tmp_path: Path) -> None:
    config = bam_config(data, base_run, tmp_path / "run", "frozen")
    for changes, words in (
        ({"base_classes": 5}, "width or number of classes"),
        ({"hidden": 32}, "of another backbone, width"),
        ({"base_learner": str(tmp_path / "nothing")}, "no weight file"),
        ({"head": "pfenet"}, "model.base_learner is for bam"),
        ({"weighted_shots": 5}, "weighted_shots is 5"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=words):
            train(replace(config, model=replace(config.model, **changes)))  # type: ignore[arg-type]
    assert not (tmp_path / "run").exists()


def test_psi_is_of_layer2_at_the_size_of_layer3() -> None:
    """Where a network has a stride between the two; else it is layer2 as it is."""
    generator = torch.Generator().manual_seed(0)
    layer2 = torch.randn(2, 5, 13, 11, generator=generator)
    smaller = torch.zeros(2, 7, 6, 5)
    assert torch.equal(channel_cosines(layer2, layer2), gram(layer2))
    resized = torch.nn.functional.interpolate(layer2, (6, 5), mode="bilinear", align_corners=True)
    assert torch.allclose(channel_cosines(layer2, smaller), gram(resized))
    assert not torch.allclose(channel_cosines(layer2, smaller), gram(layer2), atol=1e-2)
