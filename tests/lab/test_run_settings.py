"""A run trains as its config says: groups, precision, auxiliary losses; a list is what is scored."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState

from svfseg.config import EvalConfig, OptimConfig, TrainConfig, TuningConfig
from svfseg.data import TestEpisodes as Episodes
from svfseg.data import draw_test_list, novel_split, write_episodes
from svfseg.data import test_index as index_of
from svfseg.data.transforms import logits_at_original
from svfseg.lab.evaluation import evaluate
from svfseg.lab.metrics import IoUMeter
from svfseg.lab.run import Run, setup
from svfseg.lab.training import batches, train
from svfseg.tuning.checkpoint import load_head
from svfseg.tuning.strategies import trained_parameters
from tests.data.test_files import folder_of
from tests.lab.test_training import config_of


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder_of(tmp_path_factory.mktemp("folder"), classes=8, each=5)


@pytest.fixture(autouse=True)
def own_accelerator() -> Iterator[None]:
    """The precision of one test is not that of the next one."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def started(data: Path, out: Path, head: str = "baseline", **changes: object) -> Run:
    config = config_of(data, out, **changes)
    return setup(replace(config, model=replace(config.model, head=head)))


def one_batch(run: Run) -> dict[str, torch.Tensor]:
    loader = batches(run.config, run.head, run.source, run.accelerator)
    batch: dict[str, torch.Tensor] = next(iter(loader))
    return batch


@pytest.mark.parametrize(("momentum", "decay"), [(0.9, 1e-4), (0.4, 0.03)])
@pytest.mark.parametrize("decay_to", ["zero", "start"])
def test_the_optimizers_groups_are_those_of_the_config(
    data: Path, tmp_path: Path, momentum: float, decay: float, decay_to: str
) -> None:
    optim = OptimConfig(lr=0.02, momentum=momentum, weight_decay=decay, steps=4, batch=2)
    tuning = TuningConfig(strategy="svf", lr=0.003, weight_decay=0.07, decay_to=decay_to)  # type: ignore[arg-type]
    run = started(data, tmp_path / "run", optim=optim, tuning=tuning)
    head, tuned = run.optimizer.param_groups
    own, inside = trained_parameters(run.head)
    assert [id(p) for p in head["params"]] == [id(p) for p in own]
    assert [id(p) for p in tuned["params"]] == [id(p) for p in inside]
    assert len(inside) > 0
    assert (head["lr"], head["weight_decay"], head["momentum"]) == (0.02, decay, momentum)
    # what is pulled to its start is decayed by the run, not by the optimizer
    pulled = 0.07 if decay_to == "zero" else 0.0
    assert (tuned["lr"], tuned["weight_decay"], tuned["momentum"]) == (0.003, pulled, momentum)
    assert len(run.anchors) == (0 if decay_to == "zero" else len(inside))


def test_a_frozen_backbone_has_one_group(data: Path, tmp_path: Path) -> None:
    run = started(data, tmp_path / "run", strategy="frozen")
    (head,) = run.optimizer.param_groups
    assert [id(p) for p in head["params"]] == [id(p) for p in trained_parameters(run.head)[0]]


def test_two_steps_are_those_of_the_formula(data: Path, tmp_path: Path) -> None:
    """SGD with momentum and weight decay by hand, on the gradients that the run computes."""
    optim = OptimConfig(
        lr=0.02, momentum=0.6, weight_decay=0.05, schedule="constant", steps=4, batch=2
    )
    run = started(data, tmp_path / "run", strategy="frozen", optim=optim)
    parameters = run.optimizer.param_groups[0]["params"]
    expected = [p.detach().clone() for p in parameters]
    speed = [torch.zeros_like(p) for p in parameters]
    gradients: list[torch.Tensor] = []
    limit = run._limit_gradients

    def remember() -> None:
        limit()
        gradients[:] = [p.grad.clone() for p in parameters]

    run._limit_gradients = remember  # type: ignore[method-assign]
    for _ in range(2):
        run.advance(one_batch(run))
        for i, gradient in enumerate(gradients):
            speed[i] = 0.6 * speed[i] + gradient + 0.05 * expected[i]
            expected[i] = expected[i] - 0.02 * speed[i]
    for parameter, value in zip(parameters, expected, strict=True):
        torch.testing.assert_close(parameter.detach(), value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("precision", "kind"), [("no", torch.float32), ("bf16", torch.bfloat16)])
def test_a_step_computes_in_the_precision_of_the_config(
    data: Path, tmp_path: Path, precision: str, kind: torch.dtype
) -> None:
    run = started(data, tmp_path / "run", strategy="frozen", precision=precision)
    kinds = set()
    for layer in run.head.modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.register_forward_hook(lambda _, __, output: kinds.add(output.dtype))
    run.advance(one_batch(run))
    assert kind in kinds
    assert run.accelerator.mixed_precision == precision


@pytest.mark.parametrize("weight", [0.0, 0.5, 3.0])
def test_the_loss_weighs_auxiliary_losses_as_the_config_says(
    data: Path, tmp_path: Path, weight: float
) -> None:
    optim = OptimConfig(lr=0.02, steps=4, batch=2, aux_weight=weight)
    run = started(data, tmp_path / "run", head="pfenet", strategy="frozen", optim=optim)
    batch = one_batch(run)
    tensors = [batch[name] for name in run.head.inputs]
    run.head.train()
    losses = []
    for aux in (0.0, 1.0):  # dropout is drawn alike
        torch.manual_seed(0)
        losses.append(float(run.head.loss(*tensors, aux=aux).detach()))
    torch.manual_seed(0)
    assert losses[1] > losses[0] + 0.01
    expected = losses[0] + weight * (losses[1] - losses[0])
    assert run.advance(batch) == pytest.approx(expected, rel=1e-4)


def test_a_list_of_episodes_scores_those_very_episodes(data: Path, tmp_path: Path) -> None:
    """Its records are those of the head run on each of them by hand; drawn ones are others."""
    config: TrainConfig = config_of(data, tmp_path / "run", strategy="frozen")
    run = train(config)
    source = novel_split(index_of(config.data), config.data.fold)
    episodes = draw_test_list(source, 1, 77, 40)[25:32]
    write_episodes(tmp_path / "list.json", source.index, episodes)
    settings = EvalConfig(episodes=7, seeds=(0,), workers=0, device="cpu")
    scored = evaluate(run, settings, tmp_path / "list.json")
    drawn = evaluate(run, settings)
    head, _ = load_head(run)
    meter = IoUMeter(source.names())
    items = Episodes(source.index, episodes, config.data.size)
    for number, episode in enumerate(episodes):
        item = items[number]
        inputs = (item[name][None] for name in ("query", "support", "support_mask"))
        with torch.inference_mode():
            logits = head(*inputs)[0].float()
        original = item["original"]
        mask = logits_at_original(logits, *original.shape).argmax(dim=0)
        meter.update(mask, original, episode.class_id)
    (seed,) = scored.seeds
    assert [record[0] for record in sorted(seed.records)] == sorted(e.class_id for e in episodes)
    found, expected = (np.array(sorted(records)) for records in (seed.records, meter.records))
    assert np.abs(found - expected).max() <= 5  # rounding of features that episodes share
    assert scored.miou == pytest.approx(meter.miou(), abs=2e-3)
    assert sorted(drawn.seeds[0].records) != sorted(seed.records)
