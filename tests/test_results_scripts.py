"""The scripts of results/ still run where that needs no data."""

from types import SimpleNamespace

import pytest

from tests.segmenter.scenes import scene
from tests.test_docs import script


@pytest.mark.slow
def test_a_fit_of_own_data_and_presence() -> None:
    index = SimpleNamespace(load=scene)
    segmenter, seconds = script("own_data").fitted(index, 1, [0, 1], "none")
    assert segmenter.predict(scene(2).image).mask.any()
    assert seconds > 0
