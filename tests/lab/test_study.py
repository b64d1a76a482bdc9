"""A study: its runs, their order, going on after a stop, sharing the work, and its tables."""

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from svfseg.cli import main
from svfseg.lab.bootstrap import Records, difference, mean_interval, resampled_miou
from svfseg.lab.events import Event, RunStarted, StepDone
from svfseg.lab.study import final_jobs, nested, read_study, run_study, search_jobs
from tests.data.test_files import folder_of

ARMS = {
    "frozen": {"tuning.strategy": "frozen"},
    "svf": {"tuning.strategy": "svf"},
    "norm": {"tuning.strategy": "norm"},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder_of(tmp_path_factory.mktemp("folder"), classes=8, each=5)


@pytest.fixture
def write(data: Path, tmp_path: Path) -> Callable[..., Path]:
    def made(**changes: object) -> Path:
        content = {
            "train": {
                "data": {"name": "folder", "root": str(data), "size": 64, "resize_longest": True,
                         "validation_fraction": 0.4},
                "model": {"hidden": 8, "backbone": {"name": "test_resnet", "weights": "none"}},
                "optim": {"steps": 2, "batch": 2, "lr": 0.05},
                "selection": {"every": 1, "episodes": 3, "curve_episodes": 2},
                "workers": 0,
                "device": "cpu",
            },
            "eval": {"episodes": 6, "workers": 0, "device": "cpu"},
            "arms": ARMS,
            "grid": {"data.fold": [0, 1], "seed": [1]},
            "reference": "frozen",
            **changes,
        }  # fmt: skip
        path = tmp_path / "study.yaml"
        path.write_text(yaml.safe_dump(content, sort_keys=False))
        return path

    return made


SEARCH = {
    "train": {"optim.steps": 1},
    "values": {"svf": {"tuning.lr": [0.01, 0.1]}, "frozen": {"optim.lr": [0.01, 0.05]}},
    "inherit": {"optim.lr": "frozen"},
}


def table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def test_runs_tables_and_going_on(write: Callable[..., Path], tmp_path: Path) -> None:
    study, out = read_study(write(search=SEARCH)), tmp_path / "out"
    begun: list[str] = []

    class Stop(Exception):
        pass

    def report(event: Event) -> None:
        if isinstance(event, RunStarted):
            begun.append(event.name)
            if len(begun) == 7:
                raise Stop

    with pytest.raises(Stop):
        run_study(study, out, report)
    assert begun[:2] == ["search/frozen_lr=0.01", "search/frozen_lr=0.05"]  # others inherit
    assert len(table(out / "search.csv")) == 4
    assert len(table(out / "results.csv")) == 2
    run_study(study, out, report)
    assert begun[6] == begun[7]  # the one that was stopped, and none that was done
    assert len(begun) == 4 + 6 + 1
    rows = table(out / "results.csv")
    assert [row["arm"] for row in rows] == ["frozen", "svf", "norm"] * 2
    assert [row["data.fold"] for row in rows] == ["0"] * 3 + ["1"] * 3
    best = max(
        (row for row in table(out / "search.csv") if row["arm"] == "frozen"),
        key=lambda row: float(row["base_miou"]),
    )
    assert {row["optim.lr"] for row in rows} == {best["optim.lr"]}
    assert {bool(row["tuning.lr"]) for row in rows if row["arm"] == "svf"} == {True}
    assert all(0 <= float(row["miou"]) <= 1 for row in rows)
    assert int(rows[1]["trained"]) > 0
    assert rows[0]["trained"] == "0"
    curves = table(out / "curves.csv")
    assert [row["step"] for row in curves[:2]] == ["1", "2"]
    assert all(row["novel_miou"] for row in curves)
    lines = (out / "summary.md").read_text().splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["frozen", "svf", "norm"]
    assert " to " in lines[3]
    run_study(study, out, report)
    assert len(begun) == 11


@pytest.mark.parametrize("monitor", ["test", "last"])
def test_what_chose_the_checkpoints_is_said(
    monitor: str, write: Callable[..., Path], tmp_path: Path
) -> None:
    arms = {"svf": {"tuning.strategy": "svf", "selection.monitor": monitor}, "norm": ARMS["norm"]}
    small = {"grid": {"seed": [1]}, "arms": arms, "reference": "norm"}
    out = run_study(read_study(write(**small)), tmp_path / "out")
    svf, norm = table(out / "results.csv")
    assert norm["base_miou"]
    assert not svf["base_miou"]
    assert bool(svf.get("test_miou")) == (svf.get("selected_on") == "test") == (monitor == "test")
    summary = (out / "summary.md").read_text()
    assert ("Checkpoints of svf were selected on the test fold" in summary) == (monitor == "test")
    curves = [row for row in table(out / "curves.csv") if row["arm"] == "svf"]
    assert not any(row["base_miou"] for row in curves)
    assert all(row["novel_miou"] for row in curves)


def test_a_stopped_run_goes_on_from_its_checkpoint(
    write: Callable[..., Path], tmp_path: Path
) -> None:
    study, out = read_study(write(grid={"seed": [1]})), tmp_path / "out"

    class Stop(Exception):
        pass

    def stop(event: dict) -> None:
        if isinstance(event, StepDone) and event.step == 2:
            raise Stop

    with pytest.raises(Stop):
        run_study(study, out, stop)
    steps: list[int] = []
    run_study(study, out, lambda e: steps.append(e.step) if isinstance(e, StepDone) else None)
    assert steps == [2, 1, 2, 1, 2]


@pytest.mark.slow
def test_two_processes_share_a_study(write: Callable[..., Path], tmp_path: Path) -> None:
    path, out = write(grid={"seed": [1]}), tmp_path / "out"
    words = [sys.executable, "-m", "svfseg", "study", str(path), "--out", str(out)]
    both = [
        subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    begun = []
    for process in both:
        printed, progress = process.communicate()
        assert process.returncode == 0, progress
        assert "| svf |" in printed
        begun += [line.split(": ")[1].split(",")[0] for line in progress.splitlines()
                  if line.startswith("run ")]  # fmt: skip
    assert sorted(begun) == sorted(f"{arm}_seed=1" for arm in ARMS)  # each by one of them
    assert len(table(out / "results.csv")) == len(ARMS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arms": {}}, "names no arms"),
        ({"armz": {}}, "did you mean arms"),
        ({"reference": "frozn"}, "did you mean frozen"),
        ({"grid": {"optim.step": [1]}}, "did you mean steps"),
        ({"arms": {"svf": {"tuning.strategy": "svd"}}, "reference": "svf"}, "did you mean svf"),
        ({"eval": {"episods": 1}}, "did you mean episodes"),
        ({"grid": {"shot": [0]}}, "shot is 0"),
        ({"arms": {"frozen": {"model.head": "pspnet"}}}, "leave out eval"),
        (
            {"search": {"values": {"svf": {"tuning.lr": [1]}, "norm": {"tuning.lr": [1, 2]}}}},
            "the same number of candidates",
        ),
        (
            {
                "search": {
                    "values": {"svf": {"tuning.lr": [1]}},
                    "train": {"selection.monitor": "test"},
                }
            },
            "a search chooses on held-out base classes",
        ),
        (
            {
                "search": {
                    "values": {"svf": {"tuning.lr": [1]}},
                    "train": {"selection.monitor": "last"},
                }
            },
            "has selection.monitor last",
        ),
        ({"arms": ["svf"]}, "arms is ['svf']: expected settings by name"),
        ({"arms": {"svf": True}}, "arms.svf is True: expected settings by name"),
        ({"train": "x"}, "train is 'x': expected settings by name"),
        ({"grid": [1]}, "grid is [1]: expected"),
        ({"reference": {"a": 1}}, "unknown arm"),
        ({"search": {"value": {}}}, "did you mean values"),
        ({"search": {"values": {"svf": {"tuning.lr": 1}}}}, "is 1: expected a list"),
        ({"search": {"inherit": {"optim.lr": ["svf"]}}}, "unknown arm ['svf']"),
    ],
)
def test_bad_studies_are_told_before_the_first_run(
    write: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    changes: dict,
    message: str,
) -> None:
    path = write(**changes)
    assert main(["study", str(path), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_changed_study_does_not_mix_with_old_runs(
    write: Callable[..., Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    run_study(read_study(write(grid={"seed": [1]}, arms={"frozen": ARMS["frozen"]})), out)
    (out / "runs" / "frozen_seed=1" / "row.json").unlink()
    changed = read_study(
        write(grid={"seed": [1]}, arms={"frozen": {**ARMS["frozen"], "optim.lr": 0.01}})
    )
    with pytest.raises(ValueError, match="made with other settings"):
        run_study(changed, out)


def test_names_and_texts_of_the_grid(write: Callable[..., Path]) -> None:
    arms = {"all": {"model.base_learner": "base_fold={data.fold}"}}
    study = read_study(
        write(
            arms=arms, reference="all", grid={"data.fold": [0, 3], "tuning.stages": [[2], [3, 4]]}
        )
    )
    jobs = final_jobs(study, {})
    assert [job.name for job in jobs] == [
        "all_fold=0_stages=2", "all_fold=0_stages=34", "all_fold=3_stages=2", "all_fold=3_stages=34"
    ]  # fmt: skip
    assert [job.settings["model"]["base_learner"][-1] for job in jobs] == ["0", "0", "3", "3"]
    assert not search_jobs(study)
    assert nested({"a.b": 1, "a": {"c": 2}, "a.d.e": 3}) == {"a": {"b": 1, "c": 2, "d": {"e": 3}}}


def records(seed: int, shift: float = 0.0, classes: np.ndarray | None = None) -> Records:
    rng = np.random.default_rng(seed)
    ids = rng.integers(1, 6, 200) if classes is None else classes
    union = rng.integers(50, 100, 200)
    share = np.clip(rng.beta(4, 4, 200) + shift, 0, 1)
    return Records(ids, np.floor(share * union), union.astype(float))


@given(st.integers(0, 100))
@settings(max_examples=20, deadline=None)
def test_intervals_hold_their_value_and_see_a_difference(seed: int) -> None:
    base = records(seed)
    same = difference([(base, base)], draws=200)
    assert tuple(same) == (0, 0, 0)
    better = records(seed, 0.3, base.classes)
    gap = difference([(better, base), (records(seed + 1, 0.3, base.classes), base)], draws=200)
    assert gap.low <= gap.value <= gap.high
    assert gap.low > 0
    back = difference([(base, better), (base, records(seed + 1, 0.3, base.classes))], draws=200)
    assert back.value == pytest.approx(-gap.value)


def test_intervals_cover_as_often_as_they_say() -> None:
    """95 % intervals of single runs hold the true difference in about 95 % of worlds."""
    rng = np.random.default_rng(0)
    ids = np.repeat(np.arange(1, 6), 40)
    inside = 0
    for _ in range(200):
        shares = rng.normal(0.5, 0.1, (2, 200))
        pair = [Records(ids, row * 100, np.full(200, 100.0)) for row in shares]
        gap = difference([(pair[0], pair[1])], draws=300, seed=1)
        inside += gap.low <= 0 <= gap.high
    assert 0.88 <= inside / 200 <= 0.99


def test_resamples_are_the_meters_miou() -> None:
    import torch

    from svfseg.lab.metrics import IoUMeter

    meter = IoUMeter({1: "a", 2: "b"})
    rng = np.random.default_rng(0)
    for i in range(20):
        masks = torch.from_numpy(rng.integers(0, 2, (2, 8, 8)))
        meter.update(masks[0], masks[1], 1 + i % 2)
    found = resampled_miou(Records.of(meter.records), np.ones((1, 20)))
    assert found[0] == pytest.approx(meter.miou())
    with pytest.raises(ValueError, match="different episodes"):
        difference([(records(0), records(1))])
    whole = mean_interval([1.0, 2.0, 3.0])
    assert whole.low <= whole.value == 2 <= whole.high


def test_the_command_lists_runs_without_doing_them(
    write: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(search=SEARCH)
    words = ["study", str(path), "--out", str(tmp_path / "out"), "--dry-run"]
    assert main([*words, "--root", "elsewhere"]) == 0
    assert len(capsys.readouterr().out.split()) == 10
    assert not (tmp_path / "out").exists()
    assert json.dumps(read_study(path, "elsewhere").train["data"]["root"]) == '"elsewhere"'
