"""The public names and their signatures are those of tests/public_api.txt.

What is changed on purpose is written down anew: ``python -m tests.test_public_api``.
"""

import importlib
import inspect
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

SNAPSHOT = Path(__file__).with_name("public_api.txt")
MODULES = (
    "svfseg",
    "svfseg.svf",
    "svfseg.models",
    "svfseg.data",
    "svfseg.tuning",
    "svfseg.annotations",
    "svfseg.segmenter",
    "svfseg.lab",
    "svfseg.web",
    "svfseg.cli",
)
# what README and docs promise, wherever it lies
PROMISED = {
    "svfseg": "apply_svf plan_svf merge_svf svf_parameters svf_summary fuse set_route save_adapter "
    "load_adapter build_model build_backbone train evaluate TrainConfig EvalConfig "
    "FewShotSegmenter Segmentation",
    "svfseg.models": "HEADS Head Backbone build_model functional",
    "svfseg.data": "BENCHMARKS Index Sample Split Episode",
    "svfseg.tuning": "STRATEGIES Strategy tune merge load_run",
    "svfseg.cli": "main",
}


def signature(of: object) -> str:
    """Names, kinds and defaults of parameters; annotations are mypy's to check."""
    try:
        found = inspect.signature(of)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return "(...)"
    parameters = []
    for parameter in found.parameters.values():
        if inspect.isfunction(parameter.default):
            parameter = parameter.replace(default=Named(parameter.default.__name__))
        parameters.append(parameter.replace(annotation=inspect.Parameter.empty))
    return str(found.replace(parameters=parameters, return_annotation=inspect.Signature.empty))


class Named:
    """A default that is shown by its name: the address of a function differs each time."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return self.name


def described(name: str, value: object) -> Iterator[str]:
    """A line for a name, and one for each public method of a class."""
    if isinstance(value, type):
        protocol = getattr(value, "_is_protocol", False)
        yield f"class {name}{'' if protocol else signature(value)}"
        for method, function in sorted(vars(value).items()):
            inner = getattr(function, "__func__", function)
            if isinstance(function, property):
                yield f"    {method}"
            elif inspect.isfunction(inner) and not method.startswith("_"):
                yield f"    {method}{signature(inner)}"
    elif inspect.isfunction(value):
        yield f"{name}{signature(value)}"
    elif isinstance(value, dict):
        yield f"{name} of {', '.join(value)}"
    elif isinstance(value, types.ModuleType):
        yield f"module {name}"
    else:
        yield name


def public_api() -> str:
    lines = []
    for module in MODULES:
        lines.append(f"# {module}")
        loaded = importlib.import_module(module)
        for name in sorted(loaded.__all__):
            lines += described(name, getattr(loaded, name))
        lines.append("")
    return "\n".join(lines)


def test_the_public_api_is_the_one_that_was_written_down() -> None:
    expected, found = SNAPSHOT.read_text().splitlines(), public_api().splitlines()
    assert found == expected, "changed on purpose? python -m tests.test_public_api"


@pytest.mark.parametrize("module", PROMISED)
def test_what_is_promised_can_be_imported(module: str) -> None:
    loaded = importlib.import_module(module)
    assert set(PROMISED[module].split()) <= set(loaded.__all__)


@pytest.mark.parametrize("module", MODULES)
def test_a_name_that_is_not_there_is_an_attribute_error(module: str) -> None:
    with pytest.raises(AttributeError, match=f"module '{module}' has no attribute 'no_such_name'"):
        _ = importlib.import_module(module).no_such_name


@pytest.mark.parametrize(
    "statement",
    [
        "import svfseg, svfseg.segmenter, svfseg.lab, svfseg.annotations, svfseg.web, svfseg.cli",
        "import svfseg.lab.events, svfseg.segmenter.events, svfseg.web.settings",
        "from svfseg.segmenter import write_report",
    ],
)
def test_packages_load_without_torch(statement: str) -> None:
    script = f"{statement}\nimport sys\nassert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


if __name__ == "__main__":
    SNAPSHOT.write_text(public_api())
