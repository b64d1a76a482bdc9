"""What the documents print runs as printed, and its figures are those of the results."""

import csv
import importlib
import json
import re
import shlex
import shutil
import sys
from itertools import chain
from pathlib import Path
from statistics import mean
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from tests.torture.__main__ import table as torture_table

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def script(name: str) -> ModuleType:
    """A script of results/, imported."""
    sys.path.insert(0, str(ROOT / "results"))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(ROOT / "results"))


def blocks(language: str) -> list[tuple[str, str]]:
    return [
        (path.name, block)
        for path in DOCUMENTS
        for block in re.findall(rf"```{language}\n(.*?)```", path.read_text(), re.DOTALL)
    ]


def files(page: str) -> dict[str, str]:
    """The files that a page shows, by name."""
    text = next(path for path in DOCUMENTS if path.name == page).read_text()
    return dict(re.findall(r'```python title="(.*?)"\n(.*?)```', text, re.DOTALL))


@pytest.mark.parametrize(("name", "block"), blocks("python"))
def test_python_blocks_run(
    name: str, block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In this process, as importing torch takes longer than most of them; files are imported."""
    for file, content in files(name).items():
        (tmp_path / file).write_text(content)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    Image.fromarray(np.arange(60_000, dtype=np.uint16).reshape(200, 300)).save(
        tmp_path / "nuclei.tif"
    )
    exec(compile(block, name, "exec"), {"__name__": "__main__"})
    for file in files(name):  # the next test's folder has its own
        sys.modules.pop(file.removesuffix(".py"), None)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all that the pages of the tool name, small: images, masks, folders of them."""
    from svfseg.data import stickers

    folder = tmp_path_factory.mktemp("home")
    index = stickers(0, 8, "test")
    for place in ("photos", "others", "inbox", "mine/images", "mine/masks"):
        (folder / place).mkdir(parents=True)
    for number, name in enumerate(("bird", "crack1", "crack2", "a")):
        sample = index.load(number % 2)
        mask = (
            sample.mask == max(index.pixels[number % 2], key=index.pixels[number % 2].get)
        ) * 255
        for image, marks in ((name, name), (f"mine/images/{name}", f"mine/masks/{name}")):
            Image.fromarray(sample.image).save(folder / f"{image}.jpg")
            Image.fromarray(mask.astype(np.uint8)).save(folder / f"{marks}.png")
        Image.fromarray(index.load(2 + number % 2).image).save(folder / f"photos/{name}.jpg")
        Image.fromarray(index.load(4).image).save(folder / f"others/{name}.jpg")
    return folder


# What runs in this test; all else is long, or needs data, or does not end: its words are checked.
SHORT = ("fit", "predict", "report", "inspect")


def commands(path: Path) -> list[list[str]]:
    lines = re.findall(
        r"^    (?:[A-Z_]+=\S+ )*(svfseg .*?)(?:  +#.*)?$", path.read_text(), re.MULTILINE
    )
    return [shlex.split(line)[1:] for line in lines]


@pytest.mark.slow
@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_commands_run_as_they_are_printed(
    path: Path, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Short ones to their end, in the page's order; of the others all words are read."""
    from svfseg import cli
    from svfseg.cli import bench, data, lab, parse, segment, web

    class Read(BaseException):
        pass

    def read(*given: object, **named: object) -> None:
        parse.parse(*given, **named)
        raise Read

    monkeypatch.chdir(home)
    shutil.rmtree(home / "found", ignore_errors=True)
    for link in ("configs", "results"):
        if not (home / link).exists():
            (home / link).symlink_to(ROOT / link)
    for words in commands(path):
        long = {"--watch", "--adapt"} & set(words) or words[1].startswith("runs/")
        runs = words[0] in SHORT and not long
        with monkeypatch.context() as patch:
            if runs:
                assert cli.main(words) == 0, (words, capsys.readouterr().err)
                continue
            for module in (bench, data, lab, segment, web):
                patch.setattr(module, "parse", read)
            with pytest.raises(Read):
                cli.main(words)


def test_commands_in_the_documents_exist() -> None:
    from svfseg.cli.commands import COMMANDS

    words = {
        word
        for path in DOCUMENTS
        for word in re.findall(r"^    svfseg ([a-z-]+)", path.read_text(), re.MULTILINE)
    }
    assert words
    assert words <= set(COMMANDS)
    makefile = (ROOT / "Makefile").read_text()
    targets = re.findall(r"make ([a-z]+)", (ROOT / "README.md").read_text())
    assert {"demo", "test"} <= set(targets)
    for target in targets:
        assert f"\n{target}:" in makefile


def test_links_and_pictures_are_there() -> None:
    for path in DOCUMENTS:
        for link in re.findall(r"\]\(([^)#]+)\)|src=\"([^\"]+)\"", path.read_text()):
            target = link[0] or link[1]
            assert target.startswith("http") or (path.parent / target).exists(), (path.name, target)


def test_the_table_of_pascal_is_made_from_the_results() -> None:
    pascal5i_reduced = script("pascal5i_reduced")
    assert pascal5i_reduced.table() in (ROOT / "docs" / "study.md").read_text()


def test_the_performance_tables_are_made_from_their_rows() -> None:
    performance = script("performance")
    text = (ROOT / "docs" / "performance.md").read_text()
    for name, table in performance.tables().items():
        assert table in text, name
    for name in performance.COMMANDS:
        assert performance.rows(name)
        assert performance.environment(name)["torch"]


def test_the_tables_of_own_data_are_made_from_their_rows() -> None:
    own_data = script("own_data")
    text = (ROOT / "docs" / "own-data.md").read_text()
    for table in (own_data.tables(), own_data.class_table(), own_data.second_table()):
        assert table in text
    rows = own_data.rows()
    assert len(rows) == 10 * len(own_data.SHOTS) * 2 * len(own_data.MODES)
    assert all(row["command"].startswith("python results/own_data.py run") for row in rows)


def test_every_result_row_has_its_command_and_setting() -> None:
    rows = list(
        csv.DictReader((ROOT / "results" / "pascal5i_reduced.csv").read_text().splitlines())
    )
    assert {(row["strategy"], row["seed"]) for row in rows} == {
        (strategy, seed) for strategy in ("frozen", "svf") for seed in ("321", "510")
    }
    for row in rows:
        assert row["command"].startswith(
            f"svfseg train configs/pascal5i_reduced/{row['strategy']}.yaml"
        )
        assert row["episodes"] == "1000"
        classes = [float(row[c]) for c in ("aeroplane", "bicycle", "bird", "boat", "bottle")]
        assert sum(classes) / 5 == pytest.approx(float(row["miou"]), abs=0.02)


def test_the_table_of_masks_is_made_from_its_rows() -> None:
    masks = script("masks")
    assert masks.table() in (ROOT / "docs" / "own-data.md").read_text()


def test_the_tables_of_reliability_are_made_from_their_counts() -> None:
    text = (ROOT / "docs" / "reliability.md").read_text()
    for name in ("torture", "torture_before"):
        assert torture_table(json.loads((ROOT / f"results/{name}.json").read_text())) in text


def test_the_tables_of_the_far_domain_are_made_from_their_rows() -> None:
    far = script("far_domain")
    text = (ROOT / "docs" / "own-data.md").read_text()
    for table in far.table().split("\n\n"):
        assert table in text
    fits = {(row["shot"], row["adapt"], row["steps"], row["lr"]) for row in far.rows()}
    assert len(far.rows()) == 2 * (2 * (1 + 4 * 3) + 4) + len(far.SETTINGS)
    assert len(fits) == 2 * (1 + 4 * 3) + 4


def late(rows: list[dict[str, str]], arm: str, part: str, step: int) -> dict[str, list[float]]:
    """Points of mIoU from a step on, by seed."""
    found: dict[str, list[float]] = {}
    for row in rows:
        if row["arm"] == arm and int(row["step"]) >= step:
            found.setdefault(row["seed"], []).append(100 * float(row[part]))
    return found


def test_what_is_said_of_the_curves_is_what_their_rows_say() -> None:
    study = script("study")
    text = (ROOT / "docs" / "study.md").read_text()
    assert study.gap_table("steps_reduced") in text
    rows = study.read(ROOT / "results" / "steps_reduced_gaps.csv")
    assert rows == study.gaps(study.read(ROOT / "results" / "steps_reduced_curves.csv"))
    svf = late(rows, "svf", "novel_miou", 450)
    assert mean(svf["321"]) == pytest.approx(2.2, abs=0.05)
    assert mean(svf["510"]) == pytest.approx(0.6, abs=0.05)
    ahead = [v > 0 for values in svf.values() for v in values]
    assert sum(ahead) == 7
    assert len(ahead) == 8


def test_what_is_said_of_constant_rates_is_what_their_rows_say() -> None:
    study = script("study")
    assert study.gap_table("rate_steps_reduced") in (ROOT / "docs" / "study.md").read_text()
    curves = study.read(ROOT / "results" / "rate_steps_reduced_curves.csv")
    rows = study.read(ROOT / "results" / "rate_steps_reduced_gaps.csv")
    assert rows == study.gaps(curves)
    # A constant rate's 600 steps are the first 600 of 900: trained anew, the same to every digit.
    same = {"frozen": "frozen", "direct 0.002": "svf"}
    longer = study.read(ROOT / "results" / "steps_reduced_curves.csv")
    again = [row | {"arm": same[row["arm"]]} for row in curves if row["arm"] in same]
    assert len(again) == 2 * 2 * 4
    assert all(row in longer for row in again)
    for arm, said in {"direct 0.002": 1.5, "direct 0.02": 2.0,
                      "relative 0.002": 1.8, "relative 0.02": 1.3}.items():  # fmt: skip
        found = late(rows, arm, "novel_miou", 450)
        assert mean(chain(*found.values())) == pytest.approx(said, abs=0.05)


def test_what_is_said_of_few_images_is_what_their_rows_say() -> None:
    study = script("study")
    text = (ROOT / "docs" / "study.md").read_text()
    for part in ("novel_miou", "novel_less_base"):
        assert study.gap_table("steps_few_reduced", part) in text
    rows = study.read(ROOT / "results" / "steps_few_reduced_gaps.csv")
    assert rows == study.gaps(study.read(ROOT / "results" / "steps_few_reduced_curves.csv"))
    said = {  # base classes, novel classes, novel minus base
        "svf 0.002": (0.4, 0.3, -0.1),
        "svf 0.02": (-2.8, -2.2, 0.5),
        "full 0.0001": (1.9, 0.3, -1.5),
        "full 0.001": (0.0, -3.4, -3.3),
    }
    for arm, figures in said.items():
        for part, figure in zip(study.GAPS, figures, strict=True):
            found = list(chain(*late(rows, arm, part, 600).values()))
            assert len(found) == 2 * 4
            assert mean(found) == pytest.approx(figure, abs=0.06), (arm, part)
    for arm, interval in {"full 0.0001": (-3.5, 0.4), "full 0.001": (-6.4, -0.2)}.items():
        leans = late(rows, arm, "novel_less_base", 600)
        assert max(chain(*leans.values())) < 0
        one, two = map(mean, leans.values())
        half = 12.706 * abs(one - two) / 2  # Student's t of two numbers
        assert ((one + two) / 2 - half, (one + two) / 2 + half) == pytest.approx(interval, abs=0.05)
    fallen = late(rows, "full 0.001", "novel_miou", 600)
    assert sum(v < 0 for v in chain(*fallen.values())) == 7
    assert [mean(v) for v in fallen.values()] == pytest.approx([-0.2, -6.5], abs=0.05)
    whole = study.read(ROOT / "results" / "steps_reduced_gaps.csv")
    for arm in ("svf", "full", "lora"):
        assert abs(mean(chain(*late(whole, arm, "novel_less_base", 450).values()))) < 0.35


def test_the_table_of_budgets_is_made_from_its_rows() -> None:
    study = script("study")
    text = (ROOT / "docs" / "study.md").read_text()
    assert study.table_by("images_reduced", "training images") in text
    rows = study.read(ROOT / "results" / "images_reduced.csv")
    assert len(rows) == 4 * 3 * 2
    for line in study.read(ROOT / "results" / "images_reduced_by.csv"):
        runs = [
            100 * float(row["miou"])
            for row in rows
            if (row["arm"], row["data.train_count"]) == (line["arm"], line["data.train_count"])
        ]
        assert sum(runs) / len(runs) == pytest.approx(float(line["miou"]), abs=0.006)


def test_the_table_of_shots_is_made_from_its_rows() -> None:
    shots = script("shots")
    path = ROOT / "results" / "shots_reduced.csv"
    assert shots.table(path) in (ROOT / "docs" / "study.md").read_text()
    one = {
        (row["arm"], row["seed"]): f"{100 * float(row['miou']):.2f}"
        for row in csv.DictReader(
            (ROOT / "results" / "strategies_reduced.csv").read_text().splitlines()
        )
    }
    for row in csv.DictReader(path.read_text().splitlines()):
        if row["shot"] == "1":  # the runs of the table of strategies
            assert row["miou"] == one[row["arm"], row["seed"]]


def test_the_tables_of_what_was_learned_are_those_of_the_analyses() -> None:
    text = (ROOT / "docs" / "study.md").read_text()
    analysis = script("analysis")
    assert all(table in text for table in analysis.tables())
    (row,) = (r for r in json.loads(analysis.PATH.read_text())["900 steps"]["focus"]
              if r["stage"] == "layer3")  # fmt: skip
    assert 100 * row["change"][0] / row["before"][0] == pytest.approx(1.3, abs=0.05)


STUDIES = sorted(path for path in (ROOT / "results").glob("*.md"))


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_the_tables_of_studies_are_those_of_their_rows(path: Path) -> None:
    """docs/study.md shows the table that the study wrote, and its means are those of its rows."""
    from statistics import mean

    table = path.read_text().strip()
    assert table in (ROOT / "docs" / "study.md").read_text()
    rows = list(csv.DictReader(path.with_suffix(".csv").read_text().splitlines()))
    for line in table.splitlines()[2:]:
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        found = [row for row in rows if row["arm"] == cells[0]]
        assert len(found) == int(cells[1])
        assert f"{100 * mean(float(row['miou']) for row in found):.2f}" == cells[7].split()[0]
    searched = path.with_name(f"{path.stem}_search.csv")
    if searched.exists():  # every arm runs with the best of its candidates
        candidates = list(csv.DictReader(searched.read_text().splitlines()))
        for row in rows:
            own = [c for c in candidates if c["arm"] == row["arm"]]
            best = max(own, key=lambda c: float(c["base_miou"]), default=None)
            for name in ("optim.lr", "tuning.lr"):
                if best is not None and best.get(name):
                    assert row[name] == best[name]
