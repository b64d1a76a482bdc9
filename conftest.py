"""What the examples in the docstrings of src/ run in; the tests have tests/conftest.py."""

from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def folder_of_an_example(request: pytest.FixtureRequest) -> Iterator[None]:
    """Run an example in an empty folder, with an empty cache and without downloads."""
    if not isinstance(request.node, pytest.DoctestItem):
        yield
        return
    folder: Path = request.getfixturevalue("tmp_path")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("SVFSEG_CACHE", str(folder / "cache"))
        patch.setenv("HF_HUB_OFFLINE", "1")
        yield
