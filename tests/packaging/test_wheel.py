"""The wheel holds what it needs and runs without extras; the sdist holds what its tests read."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from tests.packaging.closure import closure, modules

ROOT = Path(__file__).resolve().parents[2]
BARE = Path(__file__).with_name("bare.py")
# Folders that the tests read, or that document the project.
TRACKED = ("src", "tests", "configs", "docs", "results")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the sdist of this checkout."""
    folder = tmp_path_factory.mktemp("dist")
    program = (
        "import sys; from hatchling import build; "
        "build.build_sdist(sys.argv[1]); build.build_wheel(sys.argv[1])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (path,) = built.glob("*.whl")
    return path


def test_the_wheel_holds_the_package_and_its_data_alone(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    own = {name for name in names if name.startswith("svfseg/")}
    assert {name.split("/")[0].split("-")[0] for name in names} == {"svfseg"}
    source = ROOT / "src"
    expected = {
        path.relative_to(source).as_posix()
        for path in (source / "svfseg").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert own == expected
    for name in (
        "py.typed",
        "segmenter/default/config.yaml",
        "segmenter/default/best/model.safetensors",
        "segmenter/negative_images/README.md",
        "segmenter/templates/report.html",
        "lab/templates/demo.html",
        "web/static/index.html",
    ):
        assert f"svfseg/{name}" in own
    assert sum(name.endswith(".jpg") for name in own) == 8
    assert wheel.stat().st_size < 1_000_000


def test_every_negative_names_its_source_and_licence() -> None:
    from svfseg.segmenter import negatives

    assert len(negatives.photographs()) == 8
    rows = (negatives.FOLDER / "README.md").read_text(encoding="utf-8")
    files = list(negatives.FOLDER.glob("*.jpg"))
    assert {path.stem for path in files} == set(negatives.NAMES)
    assert sum(path.stat().st_size for path in files) < 300_000
    for path in files:
        (row,) = [line for line in rows.splitlines() if line.startswith(f"| {path.name} |")]
        assert row.endswith(("| CC0 |", "| public domain |"))
        with Image.open(path) as image:
            assert max(image.size) <= 400


def test_the_sdist_holds_all_that_git_tracks_in_the_folders_of_the_tests(built: Path) -> None:
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a checkout: nothing says which files are tracked")
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True
    ).stdout.split("\0")
    tracked = {name for name in listed if name and (ROOT / name).is_file()}
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    assert {name for name in tracked if name.split("/")[0] in TRACKED} <= inside
    # and nothing is left out elsewhere either
    assert tracked <= inside
    assert not any(name.startswith((".venv", "shared", "runs")) for name in inside)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A red disc on a mottled ground at two places, with masks; an empty COCO beside them."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for name, (x, y) in {"support": (60, 60), "query": (110, 70)}.items():
        image = Image.fromarray(rng.integers(60, 120, (128, 176, 3)).astype(np.uint8))
        mask = Image.new("L", image.size)
        for canvas, ink in ((image, (220, 30, 40)), (mask, 255)):
            ImageDraw.Draw(canvas).ellipse((x - 30, y - 30, x + 30, y + 30), fill=ink)
        image.save(folder / f"{name}.png")
        mask.save(folder / f"{name}_mask.png")
    (folder / "coco/annotations").mkdir(parents=True)
    (folder / "coco/annotations/instances_val2014.json").write_text("{}")
    return folder


# A command that needs an extra, and the extra that its one line must name.
NEED_EXTRAS = {
    "app": ["app", "cracks", "--images", "photos"],
    "export": ["export", "disc.svf", "--out", "exported"],
    "lab": ["analyze", "runs/svf", "--out", "analysis"],
    "demo": ["demo", "--out", "demo"],
    "coco": ["data", "verify", "coco20i", "--root", "coco"],
    "peft": ["fit", "--support", "support.png", "--mask", "support_mask.png", "--adapt", "lora",
             "--steps", "1", "--out", "lora.svf"],
}  # fmt: skip


@pytest.fixture(scope="module")
def answers(
    wheel: Path, pictures: Path, tmp_path_factory: pytest.TempPathFactory
) -> list[dict[str, object]]:
    """What the commands of `test_a_bare_installation_...` answered, in one process."""
    folder = tmp_path_factory.mktemp("bare")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "wheel")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = closure(project["dependencies"])
    plan = {
        "wheel": str(folder / "wheel"),
        "modules": sorted({m for each in needed.values() for m in modules(each)}),
        "site": sorted({sysconfig.get_path(kind) for kind in ("purelib", "platlib")}),
        "commands": [
            ["--help"],
            ["fit", "--support", "support.png", "--mask", "support_mask.png", "--classes", "disc",
             "--device", "cpu", "--out", "disc.svf"],
            ["predict", "disc.svf", "--query", "query.png", "--out", "found",
             "--format", "png", "geojson", "--device", "cpu"],
            *NEED_EXTRAS.values(),
        ],
    }  # fmt: skip
    (folder / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
    environment = {key: os.environ[key] for key in os.environ if not key.startswith("PYTHON")}
    done = subprocess.run(
        # -S: what .pth files add, an editable installation above all, stays out
        [sys.executable, "-S", "-E", str(BARE), str(folder / "plan.json")],
        cwd=pictures, env=environment | {"OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.slow
def test_a_bare_installation_fits_and_predicts(
    answers: list[dict[str, object]], pictures: Path
) -> None:
    shown, fitted, predicted = answers[:3]
    assert (shown["status"], "predict" in str(shown["out"])) == (0, True)
    assert fitted["status"] == 0, fitted["err"]
    assert predicted["status"] == 0, predicted["err"]
    (path,) = (pictures / "found").rglob("query.png")
    with Image.open(path) as image, Image.open(pictures / "query_mask.png") as target:
        found, expected = np.asarray(image) > 0, np.asarray(target) > 0
    assert (found & expected).sum() / (found | expected).sum() > 0.7
    assert list((pictures / "found").rglob("query.geojson"))


@pytest.mark.slow
@pytest.mark.parametrize(("number", "extra"), list(enumerate(NEED_EXTRAS, start=3)))
def test_a_command_names_the_extra_that_it_needs(
    number: int, extra: str, answers: list[dict[str, object]]
) -> None:
    answer = answers[number]
    assert answer["status"] == 2, answer
    lines = [line for line in str(answer["err"]).splitlines() if line.strip()]
    assert f"pip install 'svfseg[{extra}]'" in lines[-1]
    assert not any(line.startswith("Traceback") for line in lines)
    assert len(lines) == 1


def test_extras_are_named_for_what_they_give_and_all_joins_them() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    assert extras["all"] == ["svfseg[app,export,lab,coco,demo,peft]"]
    assert {"app", "export", "lab", "coco", "demo", "peft", "openvino", "docs"} <= set(extras)
