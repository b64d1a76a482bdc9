"""The floors: a module imports only from floors below its own, and its own package."""

import ast
import subprocess
import sys
import time
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src" / "svfseg"
FLOORS = {
    "config": 0, "files": 0, "device": 0, "_version": 0,
    "svf": 1, "calibration": 1, "sources": 1, "metrics": 1, "functional": 1, "intervals": 1,
    "models": 2, "data": 2, "inserts": 2,
    "tuning": 3, "checkpoint": 3, "runtime": 3, "views": 3,
    "training": 4, "selection": 4, "evaluation": 4, "published": 4, "learned": 4,
    "adapt": 4, "outline": 4, "rules": 4, "task": 4, "segmenter": 4,
    "progress": 5, "demo": 5, "study": 5, "study_tables": 5, "analyze": 5, "bench": 5, "arguments": 5,
    "formats": 5, "predictions": 5, "report": 5, "export": 5, "web": 5,
    "cli": 6, "bench_cli": 6, "lab_cli": 6, "data_cli": 6, "tool_cli": 6, "web_cli": 6, "__main__": 6,
}  # fmt: skip
# Two modules of one floor may know each other only in this direction.
BESIDE = {
    ("training", "selection"),
    ("selection", "evaluation"),
    ("checkpoint", "tuning"),
    ("demo", "progress"),
    ("study", "study_tables"),
    ("study", "bench"),
    ("rules", "adapt"),
    ("rules", "outline"),
    ("task", "adapt"),
    ("segmenter", "adapt"),
    ("segmenter", "outline"),
    ("segmenter", "rules"),
    ("segmenter", "task"),
    ("predictions", "formats"),
    ("predictions", "report"),
    ("web", "formats"),
    ("cli", "tool_cli"),
    ("cli", "web_cli"),
    ("cli", "bench_cli"),
    ("cli", "lab_cli"),
    ("cli", "data_cli"),
    ("__main__", "cli"),
}


def room(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """Rooms of this package that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            names = [f"{node.module}.{a.name}" for a in node.names]
        elif isinstance(node, ast.Import):
            names = [a.name for a in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "svfseg":
                # the package's root holds the version, and names that load their home when used
                found |= {parts[1]} & FLOORS.keys()
    return found


ROOMS = sorted(
    path
    for path in SOURCE.rglob("*.py")
    if path != SOURCE / "__init__.py" and "templates" not in path.parts  # written out, not imported
)


@pytest.mark.parametrize("path", ROOMS, ids=lambda path: str(path.relative_to(SOURCE)))
def test_no_arrow_climbs(path: Path) -> None:
    own = room(path)
    assert own in FLOORS, f"{own} has no floor: give it one here and in docs/architecture.md"
    for other in imported(path) - {own}:
        allowed = FLOORS[other] < FLOORS[own] or (own, other) in BESIDE
        assert allowed, f"{path.name} (floor {FLOORS[own]}) imports {other} ({FLOORS[other]})"


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
    script = "import sys, svfseg.report\nassert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)


def test_the_roots_names_are_there() -> None:
    import svfseg

    for name in svfseg.__all__:
        assert getattr(svfseg, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'apply_svd'"):
        _ = svfseg.apply_svd


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["eval", "--help"]])
def test_help_needs_no_torch_and_is_quick(words: list[str]) -> None:
    times = []
    for _ in range(3):
        start = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-X", "importtime", "-m", "svfseg", *words],
            capture_output=True,
            text=True,
        )
        times.append(time.perf_counter() - start)
        assert done.returncode == 0
        assert "torch" not in done.stderr
    assert min(times) < 2.0  # 0.5 s on an idle machine; the test machine is busy


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
