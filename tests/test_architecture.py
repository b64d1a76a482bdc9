"""The layers: a module imports only from layers below its own, and its own package."""

import ast
import pkgutil
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src" / "svfseg"


def test_no_import_climbs() -> None:
    """The contracts of pyproject.toml: layers, and who never knows whom."""
    done = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"],
        capture_output=True, text=True, cwd=SOURCE.parents[1],
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


def test_the_walks_name_what_there_is() -> None:
    """Each walk of docs/architecture.md names at most ten functions, and all of them exist."""
    text = (SOURCE.parents[1] / "docs" / "architecture.md").read_text()
    walks = text.partition("## Four walks")[2].partition("\n## ")[0].split("\n### ")[1:]
    assert len(walks) == 4
    for walk in walks:
        names = re.findall(r"^\d+\. `(svfseg[\w.]*)`", walk, re.MULTILINE)
        assert 5 <= len(names) <= 10
        for name in names:
            assert callable(pkgutil.resolve_name(name)), name


def test_the_graph_has_no_arrow_that_climbs() -> None:
    """The figures in the document are those of `make architecture`."""
    root = SOURCE.parents[1]
    done = subprocess.run(
        [sys.executable, "results/architecture.py"], capture_output=True, text=True, cwd=root
    )
    assert done.returncode == 0, done.stdout
    units, levels, arrows = re.findall(r"\d+", done.stdout.splitlines()[-1])[:3]
    row = f"| packages | {units} | {levels} | {arrows} | 0 |"
    assert row in (root / "docs" / "architecture.md").read_text()


def test_every_package_has_its_paragraph() -> None:
    text = (SOURCE.parents[1] / "docs" / "architecture.md").read_text()
    for path in SOURCE.iterdir():
        if path.is_dir() and path.name != "__pycache__":
            assert f"**{path.name}**" in text


def test_every_package_is_a_layer_as_a_whole() -> None:
    """A layer that names one module of a package lets the others import what they like."""
    project = tomllib.loads((SOURCE.parents[1] / "pyproject.toml").read_text(encoding="utf-8"))
    (contract,) = [c for c in project["tool"]["importlinter"]["contracts"] if c["type"] == "layers"]
    named = {
        re.sub(r"[()\s]", "", n) for layer in contract["layers"] for n in re.split("[|:]", layer)
    }
    homes = {p.stem for p in SOURCE.iterdir() if p.suffix == ".py" or (p / "__init__.py").exists()}
    assert named == {f"svfseg.{home}" for home in homes - {"__init__", "__main__"}}


def test_the_method_imports_only_torch_and_safetensors() -> None:
    for path in (SOURCE / "svf").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                module = node.module if isinstance(node, ast.ImportFrom) else node.names[0].name
                top = str(module).split(".")[0]
                assert top in {"torch", "safetensors", "svfseg"} | sys.stdlib_module_names, path


@pytest.mark.parametrize(
    "code", ["import svfseg.config", "from svfseg.cli import main; main(['-h'])"]
)
def test_settings_and_help_load_no_torch(code: str) -> None:
    script = (
        f"{code}\nimport sys\nassert 'torch' not in sys.modules\nassert 'numpy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)


def test_a_report_is_written_without_torch() -> None:
    script = "import sys, svfseg.segmenter.report\nassert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)


def test_the_roots_names_are_there() -> None:
    import svfseg

    for name in svfseg.__all__:
        assert getattr(svfseg, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'apply_svd'"):
        _ = svfseg.apply_svd


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["eval", "--help"]])
def test_help_loads_little(words: list[str]) -> None:
    """Counted, not timed: seconds are those of the machine, and belong in the benchmark."""
    script = (
        "import sys\nfrom svfseg.cli import main\n"
        f"status = main({words})\nprint(*sys.modules, sep='\\n', file=sys.stderr)\n"
        "sys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "usage: svfseg" in done.stdout
    loaded = done.stderr.split()
    heavy = {"torch", "torchvision", "timm", "numpy", "PIL", "accelerate", "safetensors"}
    assert not heavy & set(loaded)
    assert len(loaded) < 750  # about 500 on Python 3.13; torch alone brings 900


def test_no_file_is_huge() -> None:
    for path in SOURCE.rglob("*.py"):
        assert len(path.read_text().splitlines()) < 450, f"{path.name} holds too much"


def test_the_version_is_said_once() -> None:
    import svfseg

    root = SOURCE.parents[1]
    assert f"version: {svfseg.__version__}\n" in (root / "CITATION.cff").read_text()
    assert "version = " not in (root / "pyproject.toml").read_text().partition("[project.")[0]


def test_no_module_hides_a_public_name() -> None:
    """`from svfseg import train` is the function, whatever was imported before."""
    import svfseg

    homes = {path.stem for path in SOURCE.glob("*.py")} | {p.name for p in SOURCE.iterdir()}
    assert not homes & set(svfseg.__all__)
