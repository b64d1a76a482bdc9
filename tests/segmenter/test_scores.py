"""Scores of masks against other ways to count them, and the command that measures tasks."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage, stats

from svfseg.cli import main
from svfseg.errors import InputError
from svfseg.segmenter.scores import boundary_f, image_iou, pooled_iou, rank_correlation
from svfseg.segmenter.task_bench import arms, draw, load_task, means, read_rows, read_tasks
from tests.cli.test_commands import fails
from tests.segmenter.scenes import scene


def test_regions_are_summed_over_images() -> None:
    truth = [np.array([[1, 1, 0, 255]]), np.array([[0, 0, 1, 1]])]
    found = [np.array([[True, False, True, True]]), np.array([[False, False, True, True]])]
    assert pooled_iou(found, truth) == 3 / 5
    assert image_iou(found[0], truth[0]) == 1 / 3
    nothing = np.zeros((2, 2), bool)
    assert np.isnan(pooled_iou([nothing], [np.zeros((2, 2))]))
    assert image_iou(nothing, np.zeros((2, 2))) == 1


@given(st.integers(0, 500))
def test_boundaries_match_within_a_distance(seed: int) -> None:
    """Against SciPy's distance to the nearest boundary pixel."""
    rng = np.random.default_rng(seed)
    masks = [ndimage.gaussian_filter(rng.normal(size=(40, 50)), 4) > 0 for _ in range(2)]
    edges = [mask & ~ndimage.binary_erosion(mask, border_value=1) for mask in masks]
    found = boundary_f(masks[0], masks[1].astype(np.uint8))
    if not edges[0].any() or not edges[1].any():
        return
    near = [ndimage.distance_transform_edt(~edge) <= 2 for edge in edges]
    precision = (edges[0] & near[1]).sum() / edges[0].sum()
    recall = (edges[1] & near[0]).sum() / edges[1].sum()
    expected = 2 * precision * recall / (precision + recall) if precision + recall else 0
    assert found == pytest.approx(expected, abs=1e-6)


def test_boundaries_shifted_by_the_tolerance_still_match() -> None:
    mask = np.zeros((60, 60), bool)
    mask[20:40, 20:40] = True
    truth = mask.astype(np.uint8)
    assert boundary_f(np.roll(mask, 2, axis=1), truth) == 1
    assert boundary_f(np.roll(mask, 4, axis=1), truth) < 0.8
    assert boundary_f(np.zeros_like(mask), truth) == 0
    assert boundary_f(np.zeros_like(mask), np.zeros_like(truth)) == 1
    around = np.full_like(truth, 255)
    around[20:40, 20:40] = 1
    assert np.isnan(boundary_f(mask, around)), "nothing of the boundary is known"
    around[:, :30] = truth[:, :30]
    assert boundary_f(mask, around) == 1, "half of it is known"


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=3, max_size=20))
def test_ranks_are_those_of_scipy(pairs: list[tuple[int, int]]) -> None:
    first, second = zip(*pairs, strict=True)
    found = rank_correlation(first, second)
    if len(set(first)) == 1 or len(set(second)) == 1:
        assert np.isnan(found)
        return
    assert found == pytest.approx(stats.spearmanr(first, second).statistic, abs=1e-9)


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tasks of four pictures each, one of which does not show the class."""
    folder = tmp_path_factory.mktemp("tasks")
    for name in ("first", "second"):
        for part in ("images", "masks"):
            (folder / name / part).mkdir(parents=True)
        (folder / name / "classes.txt").write_text("thing\n")
        for number in range(4):
            sample = scene(number, 0.0 if number == 3 else 0.5)
            mask = sample.mask if number < 3 else np.zeros_like(sample.mask)
            Image.fromarray(sample.image).save(folder / name / "images" / f"{number}.png")
            Image.fromarray(mask).save(folder / name / "masks" / f"{number}.png")
    return folder


def test_halves_of_the_tasks(tasks: Path, tmp_path: Path) -> None:
    assert [name for name, _ in read_tasks(tasks)] == ["first", "second"]
    assert [name for name, _ in read_tasks(tasks, "A")] == ["first"]
    assert [name for name, _ in read_tasks(tasks, "B")] == ["second"]
    (task,) = load_task(tasks / "first")
    choice = draw(task, 2, 0, 1, 9)
    assert len(choice.supports) == 2
    assert choice.negatives == [3]
    assert not {*choice.supports, *choice.negatives} & set(choice.queries)
    with pytest.raises(InputError, match="3 images with the class"):
        draw(task, 3, 0, 0, 9)
    with pytest.raises(InputError, match="holds no task"):
        read_tasks(tmp_path)


@pytest.mark.slow
def test_the_command_goes_on_where_it_stopped(
    tasks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["bench", "masks", "--tasks", str(tasks), "--draws", "1", "--queries", "2"]
    words += ["--shots", "1", "2", "--device", "cpu", "--csv", str(tmp_path / "m.csv")]
    words += ["--overlays", str(tmp_path / "o"), "--json", str(tmp_path / "m.json"), "--arms"]
    assert main([*words, "instant", "logistic"]) == 0
    with (tmp_path / "m.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 8
    assert {row["arm"] for row in rows} == {"instant", "logistic"}
    assert len(list((tmp_path / "o").iterdir())) == 8
    with Image.open(next((tmp_path / "o").iterdir())) as sheet:
        assert sheet.height == 640
    first = (tmp_path / "m.csv").read_text()
    capsys.readouterr()
    assert main([*words, "instant", "logistic", "forest"]) == 0
    said = capsys.readouterr().err
    assert said.count("IoU") == 4
    assert "instant" not in said
    assert (tmp_path / "m.csv").read_text().startswith(first)
    summary = [json.loads(line) for line in (tmp_path / "m.json").read_text().splitlines()]
    assert {row["arm"] for row in summary if "arm" in row} == {"instant", "logistic", "forest"}
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    other = ["--csv", str(tmp_path / "other.csv")]
    assert "holds no rows" in fails(capsys, "bench", "masks", "--tasks", tasks, *other)
    assert "unknown way" in fails(capsys, *words, "nothing")


def test_means_are_over_tasks() -> None:
    rows = [
        {"task": task, "shots": 1, "draw": number, "arm": "instant", "negatives": 0, "iou": iou}
        for task, values in (("a", (0.2, 0.4)), ("b", (0.9, 0.9)))
        for number, iou in enumerate(values)
    ]
    (row,) = means(rows)
    assert row["iou"] == pytest.approx(0.6)
    assert row["low"] < 0.4 < 0.8 < row["high"]
    assert set(arms(60.0)) == {"instant", "fitted", "fitted+svf", "logistic", "forest"}


def test_rows_are_read_as_written(tmp_path: Path) -> None:
    assert read_rows(tmp_path / "none.csv") == []
