"""The loop: it learns, resumes exactly, chooses honestly, and never leaves half a checkpoint."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from svfseg.config import (
    BackboneConfig,
    DataConfig,
    EvalConfig,
    EvalDataConfig,
    ModelConfig,
    OptimConfig,
    SelectionConfig,
    TrainConfig,
    TuningConfig,
    to_dict,
)
from svfseg.lab.evaluation import evaluate
from svfseg.lab.events import CheckpointScored, Event, LayerFactored, StepDone
from svfseg.lab.import_checkpoint import published_config
from svfseg.lab.run import Run, decay
from svfseg.lab.training import train
from svfseg.svf.layers import FactoredLayer
from svfseg.tuning.checkpoint import load_run, restore_model
from tests.data.test_files import folder_of


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder_of(tmp_path_factory.mktemp("folder"), classes=8, each=5)


def config_of(data: Path, out: Path, strategy: str = "svf", **changes: object) -> TrainConfig:
    config = TrainConfig(
        out=str(out),
        data=DataConfig(
            name="folder", root=str(data), size=64, resize_longest=True, validation_fraction=0.4
        ),
        model=ModelConfig(hidden=16, backbone=BackboneConfig("test_resnet", "none")),
        tuning=TuningConfig(strategy=strategy, lr=0.01),  # type: ignore[arg-type]
        optim=OptimConfig(lr=0.05, steps=6, batch=2),
        selection=SelectionConfig(every=3, episodes=4),
        workers=0,
        device="cpu",
    )
    return replace(config, **changes)  # type: ignore[arg-type]


def tensors(run: Path, name: str = "last") -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(run / name / "model.safetensors")


@pytest.mark.parametrize("strategy", ["frozen", "svf", "full"])
@pytest.mark.parametrize("head", ["baseline", "pfenet"])
def test_a_run_from_train_to_evaluation(
    data: Path, tmp_path: Path, strategy: str, head: str
) -> None:
    config = config_of(data, tmp_path / "run", strategy)
    config = replace(config, model=replace(config.model, head=head))
    events: list[Event] = []
    run = train(config, report=events.append)
    assert {p.name for p in run.iterdir()} >= {
        "config.yaml", "environment.json", "metrics.jsonl", "best", "last"
    }  # fmt: skip
    assert [e.step for e in events if isinstance(e, StepDone)] == [1, 2, 3, 4, 5, 6]
    scored = [e for e in events if isinstance(e, CheckpointScored)]
    assert [e.step for e in scored] == [3, 6]
    layers = [e for e in events if isinstance(e, LayerFactored)]
    assert [e.done for e in layers] == list(range(1, len(layers) + 1))
    assert bool(layers) == (strategy == "svf")
    about = json.loads((run / "best" / "checkpoint.json").read_text())
    assert about["selected_on"] == "base-validation"
    assert about["miou"] == max(e.scores["miou"] for e in scored)
    result = evaluate(run, EvalConfig(episodes=5, seeds=(1, 2), workers=0, device="cpu"))
    assert [scores.episodes for scores in result.seeds] == [5, 5]
    assert 0 <= result.miou <= 1
    assert result.monitor == result.to_dict()["selected_on"] == "base-validation"
    assert set(result.seeds[0].classes) == {"class 1", "class 2"}
    model, _ = load_run(run)
    assert not any(isinstance(m, FactoredLayer) for m in model.modules())


@pytest.mark.slow
def test_learning_lowers_the_loss_and_moves_only_what_the_strategy_tunes(
    data: Path, tmp_path: Path
) -> None:
    losses: list[float] = []
    config = config_of(
        data, tmp_path / "run", optim=OptimConfig(lr=0.05, steps=40, batch=2, clip=1.0)
    )
    config = replace(
        config,
        selection=SelectionConfig(monitor="last", every=100),
        model=ModelConfig(hidden=64, dropout=0.0, backbone=BackboneConfig(output_stride=16)),
    )
    run = train(config, report=lambda e: losses.append(e.loss) if isinstance(e, StepDone) else None)
    assert sum(losses[-10:]) < 0.7 * sum(losses[:10])
    trained = restore_model(run / "best", config)
    torch.manual_seed(config.seed)
    from svfseg.models import build_model
    from svfseg.tuning.strategies import tune

    fresh = build_model(config.model)
    tune(fresh, config.tuning)
    changed = {
        name
        for name, value in trained.backbone.state_dict().items()
        if not torch.equal(value, fresh.backbone.state_dict()[name])
    }
    assert changed
    assert all(name.endswith(".s") for name in changed)
    assert all(name.startswith(("layer2", "layer3", "layer4")) for name in changed)


@pytest.mark.parametrize("strategy", ["svf", "full"])
@pytest.mark.parametrize("norm", ["frozen", "train"])
def test_resuming_gives_the_same_weights_as_never_stopping(
    data: Path, tmp_path: Path, strategy: str, norm: str
) -> None:
    def config(out: str) -> TrainConfig:
        made = config_of(data, tmp_path / out, strategy)
        backbone = replace(made.model.backbone, norm=norm)
        return replace(made, model=replace(made.model, backbone=backbone))

    train(config("whole"))

    class Stop(Exception):
        pass

    def stop(event: Event) -> None:
        if isinstance(event, StepDone) and event.step == 4:  # after the checkpoint of step 3
            raise Stop

    with pytest.raises(Stop):
        train(config("parts"), report=stop)
    train(config("parts"), resume=True)
    whole, parts = tensors(tmp_path / "whole"), tensors(tmp_path / "parts")
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[k], parts[k]) for k in whole)
    lines = [
        json.loads(x)["step"] for x in (tmp_path / "parts/metrics.jsonl").read_text().splitlines()
    ]
    assert lines == sorted(lines)


def test_resume_and_restart_guard_what_is_there(data: Path, tmp_path: Path) -> None:
    config = config_of(data, tmp_path / "run")
    with pytest.raises(FileNotFoundError, match="is not a run"):
        train(config, resume=True)
    train(config)
    with pytest.raises(ValueError, match="holds a run already"):
        train(config)
    with pytest.raises(ValueError, match="trained with other settings"):
        train(replace(config, seed=5), resume=True)


def test_a_run_that_stopped_before_its_first_checkpoint_can_be_started_again(
    data: Path, tmp_path: Path
) -> None:
    config = config_of(data, tmp_path / "run", optim=OptimConfig(lr=0.05, steps=25, batch=1))
    config = replace(config, selection=SelectionConfig(every=25, episodes=2))

    def stop(event: Event) -> None:
        if isinstance(event, StepDone) and event.step == 21:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, report=stop)
    run = train(config)
    steps = [json.loads(x)["step"] for x in (run / "metrics.jsonl").read_text().splitlines()]
    assert steps == [20, 25]


def test_packaged_weights_are_not_copied_into_the_run(data: Path, tmp_path: Path) -> None:
    """With weights that can be found again a run holds the head, and s as an adapter."""
    config = config_of(data, tmp_path / "run", optim=OptimConfig(lr=0.01, steps=1, batch=2))
    backbone = BackboneConfig("tf_efficientnet_lite0", "imagenet", 16)
    config = replace(
        config,
        model=replace(config.model, backbone=backbone),
        tuning=replace(config.tuning, stages=(4,)),
    )
    run = train(config)
    assert not [k for k in tensors(run, "best") if k.startswith("backbone.")]
    assert {p.name for p in (run / "best" / "adapter").iterdir()} == {
        "adapter.json", "adapter.safetensors"
    }  # fmt: skip
    assert sum(p.stat().st_size for p in (run / "best" / "adapter").iterdir()) < 100_000
    evaluate(run, EvalConfig(episodes=1, workers=0, device="cpu"))
    about = json.loads((run / "best" / "checkpoint.json").read_text())
    (run / "best" / "checkpoint.json").write_text(json.dumps({**about, "backbone": "0" * 16}))
    with pytest.raises(ValueError, match="was trained on other imagenet weights"):
        load_run(run)


def test_the_published_habit_is_available_and_written_down(data: Path, tmp_path: Path) -> None:
    config = config_of(data, tmp_path / "run")
    config = replace(config, selection=replace(config.selection, monitor="test"))
    run = train(config)
    result = evaluate(run, EvalConfig(episodes=2, workers=0, device="cpu"))
    assert result.monitor == "test"
    from svfseg.cli.tables import result_table

    assert "chosen on the test fold" in result_table(result)


def test_honest_selection_never_loads_a_novel_image(
    data: Path, tmp_path: Path, monkeypatch
) -> None:
    import svfseg.lab.validation as loop

    def forbidden(*_: object) -> None:
        raise AssertionError("the test fold was touched")

    monkeypatch.setattr(loop, "novel_split", forbidden)
    monkeypatch.setattr(loop, "test_index", forbidden)
    train(config_of(data, tmp_path / "run"))


@pytest.mark.posix
def test_a_full_disk_keeps_the_previous_checkpoint(data: Path, tmp_path: Path) -> None:
    """The system refuses to write more than 20 kB: a true failure of write, after step 3."""
    import resource

    config = config_of(data, tmp_path / "run")
    run = Path(config.out)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill_up(event: Event) -> None:
        if isinstance(event, StepDone) and event.step == 4:
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))

    try:
        with pytest.raises(OSError, match="File too large"):
            train(config, report=fill_up)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    for name in ("best", "last"):
        assert json.loads((run / name / "checkpoint.json").read_text())["step"] == 3
        restore_model(run / name, config)
    assert not [p.name for p in run.iterdir() if p.name.startswith(".")]
    train(config, resume=True)
    assert json.loads((run / "last" / "checkpoint.json").read_text())["step"] == 6


def test_schedules() -> None:
    def factors(schedule: str) -> list[float]:
        config = OptimConfig(schedule=schedule, steps=100)  # type: ignore[arg-type]
        return [decay(config, step) for step in (0, 50, 100)]

    assert factors("constant") == [1, 1, 1]
    assert factors("cosine") == pytest.approx([1, 0.5, 0])
    assert factors("poly") == pytest.approx([1, 0.5**0.9, 0])


def test_rates_are_logged_as_the_schedule_says(data: Path, tmp_path: Path) -> None:
    """A true cosine, built once: it ends at zero."""
    config = config_of(data, tmp_path / "run", optim=OptimConfig(lr=0.05, steps=40, batch=1))
    run = train(replace(config, selection=SelectionConfig(monitor="last", every=50)))
    lines = [json.loads(x) for x in (run / "metrics.jsonl").read_text().splitlines()]
    rates = {x["step"]: (x["lr"], x["lr_tuned"]) for x in lines if "lr" in x}
    assert rates[20] == pytest.approx((0.025, 0.005))
    assert rates[40] == pytest.approx((0.0, 0.0))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shot": 0}, "shot is 0"),
        ({"shot": 9}, r"too few images in folder"),
        ({"optim": OptimConfig(steps=0)}, "optim.steps is 0"),
        ({"data": {"fold": 4}}, "folds 0 to 3"),
        ({"data": {"validation_fraction": 1.5}}, "expected 0 to below 1"),
        ({"data": {"validation_fraction": 0.0}}, "set selection.monitor to last"),
        ({"data": {"size": 8}}, "at least 32 pixels"),
        ({"tuning": TuningConfig(stages=(7,))}, "one or more of 0 to 4"),
        ({"tuning": TuningConfig(factors="X")}, "letters S, U and V"),
        ({"device": "tpu"}, "device is tpu"),
        ({"optim": OptimConfig(lr=1e9, steps=6, batch=2)}, "the loss is"),
    ],
)
def test_bad_settings_leave_nothing_behind(
    data: Path, tmp_path: Path, changes: dict, message: str
) -> None:
    config = config_of(data, tmp_path / "run")
    for name, change in changes.items():
        value = replace(config.data, **change) if name == "data" else change
        config = replace(config, **{name: value})
    with pytest.raises(ValueError, match=message):
        train(config)
    assert "the loss" in message or not (tmp_path / "run").exists()


def test_evaluation_settings(data: Path, tmp_path: Path) -> None:
    run = train(config_of(data, tmp_path / "run"))
    base = EvalConfig(episodes=2, workers=0, device="cpu")
    seen = evaluate(run, replace(base, data=EvalDataConfig(fold=1)))
    assert (seen.fold, seen.trained_on_fold) == (1, 0)
    assert evaluate(run, replace(base, shot=3)).shot == 3
    for changes, message in (
        ({"shot": 5}, r"class 1 \(5\)"),
        ({"seeds": ()}, "at least one seed"),
        ({"data": EvalDataConfig(root=str(tmp_path / "no"))}, "no classes.txt"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            evaluate(run, replace(base, **changes))


def test_batches_score_like_single_episodes(data: Path, tmp_path: Path) -> None:
    run = train(config_of(data, tmp_path / "run"))
    scores = [
        evaluate(run, EvalConfig(episodes=7, batch=b, workers=w, resize=r, device="cpu"))
        for b, w, r in ((1, 0, "original"), (3, 0, "original"), (3, 2, "original"))  # type: ignore[arg-type]
    ]
    for other in scores[1:]:
        assert other.miou == pytest.approx(scores[0].miou, abs=1e-3)


@pytest.mark.slow
def test_two_processes_of_one_launch_train_what_one_trains(data: Path, tmp_path: Path) -> None:
    """By torchrun, in step through the runs of a study: the same episodes, halved and averaged."""
    config = config_of(data, tmp_path / "one", selection=SelectionConfig(monitor="last", every=10))
    config = replace(config, model=replace(config.model, dropout=0.0))
    settings = to_dict(config)
    settings.pop("out")
    # without a GPU, auto is the CPU, and the processes of a launch meet there too
    settings["device"] = "cpu" if torch.backends.mps.is_available() else "auto"
    arms: dict[str, dict] = {"exact": {}, "bf16": {"precision": "bf16"}}
    scored = {"episodes": 7, "workers": 0, "device": "cpu"}
    study = {"train": settings, "eval": scored, "arms": arms}
    (tmp_path / "study.yaml").write_text(json.dumps(study))
    words = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "svfseg"]
    done = subprocess.run(
        [sys.executable, *words, "study", "study.yaml", "--out", "two"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("| exact |") == 1  # the first process speaks for both
    assert done.stderr.count("run 1 of 2: exact") == 1
    for arm, bar in (("exact", 1e-3), ("bf16", 2e-2)):
        one = tensors(train(replace(config, out=str(tmp_path / arm), **arms[arm])))
        two = tensors(tmp_path / "two" / "runs" / arm)
        assert max(float((one[k].float() - two[k].float()).abs().max()) for k in one) < bar
        about = json.loads((tmp_path / "two/runs" / arm / "last/checkpoint.json").read_text())
        assert about["step"] == config.optim.steps
        row = json.loads((tmp_path / "two/runs" / arm / "row.json").read_text())
        alone = evaluate(tmp_path / "two" / "runs" / arm, EvalConfig(**scored))
        assert row["miou"] == alone.miou


def test_published_heads_have_the_habits_of_their_authors(tmp_path: Path) -> None:
    for head, dilation in ((None, "uniform"), ("bam", "uniform"), ("baseline", "stepwise")):
        model = published_config(tmp_path, head).model
        assert (model.head, model.backbone.dilation) == (head or "pfenet", dilation)
    assert published_config(tmp_path, "baseline", "vgg16", "uniform").model.backbone == (
        BackboneConfig("vgg16", "none", 16, "uniform")
    )
    with pytest.raises(ValueError, match="did you mean pfenet"):
        published_config(tmp_path, "pfnet")


@pytest.mark.slow
@pytest.mark.posix
def test_a_kill_at_any_rename_loses_nothing(data: Path, tmp_path: Path) -> None:
    """Resumed, or begun again, it ends with the weights and scores of a run never killed."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.lab.kill_training", str(data), str(tmp_path), "0", "2"],
        capture_output=True, text=True, timeout=500, cwd=Path(__file__).parents[2],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["left"] == []
    assert len(found["kills"]) >= 4
    assert [kill for kill in found["kills"] if not kill["same"]] == []
    assert sum(kill["resumed"] for kill in found["kills"]) >= 2


def test_two_trainings_of_one_folder_are_refused(data: Path, tmp_path: Path) -> None:
    config = config_of(data, tmp_path / "run")
    said = []

    def second(event: Event) -> None:
        if isinstance(event, StepDone) and event.step == 1:
            with pytest.raises(ValueError, match="another svfseg train writes to"):
                train(replace(config, seed=2))
            said.append(event)

    train(config, report=second)
    assert said
    assert f"seed: {config.seed}" in (tmp_path / "run/config.yaml").read_text()


def test_a_config_of_one_s_own_in_the_folder_stays(data: Path, tmp_path: Path) -> None:
    import yaml

    config = config_of(data, tmp_path)
    text = "# mine\n" + yaml.safe_dump(to_dict(config))
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"config.yaml is there already"):
        train(replace(config, seed=5))
    train(config)
    assert (tmp_path / "config.yaml").read_text() == text


@pytest.mark.parametrize("name", ["model.safetensors", "training.pt", "checkpoint.json"])
def test_a_damaged_checkpoint_is_named(data: Path, tmp_path: Path, name: str) -> None:
    config = config_of(data, tmp_path / "run", optim=OptimConfig(lr=0.05, steps=3, batch=2))
    train(config)
    path = tmp_path / "run/last" / name
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    damages = [bytes(flipped), whole[: len(whole) // 2], b"", b"[]"]
    if name == "checkpoint.json":
        head = json.loads(whole)
        damages = [whole[:20], b"[]", *(json.dumps({**head, **wrong}).encode() for wrong in (
            {"step": "3"}, {"step": -1}, {"backbone": None}, {"files": []}))]  # fmt: skip
    for damaged in damages:
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=f"{name} is damaged"):
            train(config, resume=True)


def test_a_torn_line_of_metrics_does_not_stop_a_resume(data: Path, tmp_path: Path) -> None:
    config = config_of(data, tmp_path / "run")
    short = replace(config, optim=replace(config.optim, steps=6))

    def stop(event: Event) -> None:
        if isinstance(event, StepDone) and event.step == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(short, report=stop)
    with (tmp_path / "run/metrics.jsonl").open("a") as file:
        file.write('\n{"step": 4, "lo')
    train(short, resume=True)
    lines = [json.loads(x) for x in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "miou" in line] == [3, 6]


def test_weights_that_are_not_finite_are_not_kept(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last step of a training has no loss after it that would tell."""
    save = Run.save

    def spoiled(run: Run) -> None:
        with torch.no_grad():
            next(p for p in run.head.parameters() if p.requires_grad).fill_(float("inf"))
        save(run)

    monkeypatch.setattr(Run, "save", spoiled)
    config = config_of(data, tmp_path / "run", optim=OptimConfig(lr=0.05, steps=1, batch=2))
    with pytest.raises(ValueError, match=r"are not finite at step 1: lower optim.lr"):
        train(config)
    assert not (tmp_path / "run/last").exists()
