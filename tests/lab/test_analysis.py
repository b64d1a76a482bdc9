"""What a run learned: spectra paired rightly, attention as a number, a page with all of it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from svfseg.cli import main
from svfseg.config import BackboneConfig, TrainConfig
from svfseg.lab.analysis import analyze
from svfseg.lab.spectra import focus, layer_spectra
from svfseg.lab.training import train
from svfseg.models import Backbone, build_backbone
from svfseg.svf import singular_values
from svfseg.tuning.strategies import STRATEGIES
from tests.data.test_files import folder_of
from tests.lab.test_training import config_of
from tests.tuning.test_strategies import nudge, tuned


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder_of(tmp_path_factory.mktemp("folder"), classes=8, each=5)


def config(data: Path, out: Path, strategy: str) -> TrainConfig:
    made = config_of(data, out, strategy)
    model = replace(made.model, backbone=BackboneConfig(output_stride=32))
    selection = replace(made.selection, every=1, curve_episodes=2)
    return replace(made, model=model, optim=replace(made.optim, steps=2), selection=selection)


@pytest.mark.parametrize("strategy", [s for s in STRATEGIES if s not in ("adapter", "bias")])
def test_spectra_are_of_what_changed(strategy: str) -> None:
    plain = build_backbone(BackboneConfig("test_resnet", "none"))
    after = tuned(strategy)
    plain.load_state_dict(tuned("frozen").state_dict())
    assert not [x for x in layer_spectra(plain, after) if x.moved > 1e-5]
    nudge(after)
    found = layer_spectra(plain, after)
    changed = strategy not in ("frozen", "norm")
    assert bool(found) == changed
    if changed:
        assert max(layer.moved for layer in found) > 1e-4
        stages = {layer.stage for layer in found}
        assert stages <= ({0, 1, 2, 3, 4} if strategy == "full" else {2, 3, 4})
    if strategy == "svf":
        exact = singular_values(after)
        for layer in found:
            now, start = (x.flatten().double() for x in exact[layer.name])
            torch.testing.assert_close(layer.after, now)
            torch.testing.assert_close(layer.before, start, rtol=1e-4, atol=1e-5)


def test_focus_is_one_for_flat_features_and_grows_with_the_class() -> None:
    class Flat(Backbone):
        def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
            bright = image[:, :1] / 255
            return [torch.ones(1, 3, 8, 8), *(4 - 3 * bright for _ in range(2)), bright, bright]

    backbone = Flat([torch.nn.Identity() for _ in range(5)], (3, 3, 3, 3, 3))
    mask = torch.zeros(8, 8, dtype=torch.uint8)
    mask[:4, :4] = 1
    mask[7] = 255  # counts nowhere
    image = torch.full((1, 3, 8, 8), 51.0)
    image[..., :4, :4] = 255
    image[..., 7, :] = 1e6
    ratios = focus(backbone, image, mask)
    assert ratios is not None
    assert ratios[0] == pytest.approx(1)
    assert ratios[1] == pytest.approx(1 / 3.4)
    assert ratios[4] == pytest.approx(5)
    assert focus(backbone, image, 0 * mask) is None


@pytest.mark.parametrize("strategy", ["svf", "norm"])
def test_the_page_and_the_json(data: Path, tmp_path: Path, strategy: str) -> None:
    run = train(config(data, tmp_path / "run", strategy))
    words = ["analyze", str(run), "--out", str(tmp_path / "a"), "--episodes", "4"]
    assert main([*words, "--checkpoint", "last", "--device", "cpu"]) == 0
    page = (tmp_path / "a" / "analysis.html").read_text()
    content = json.loads((tmp_path / "a" / "analysis.json").read_text())
    assert page.count("<svg") == (3 if strategy == "svf" else 2)
    assert "http://" not in page.replace("http://www.w3.org", "").replace(
        "http://purl.org", ""
    ).replace("http://creativecommons.org", "")  # nothing is loaded
    assert [row["stage"] for row in content["focus"]] == [f"layer{i}" for i in range(5)]
    assert [row["step"] for row in content["curves"]] == [1, 2]
    assert all(row["novel"] is not None for row in content["curves"])
    assert bool(content["layers"]) == (strategy == "svf")
    for stage in content["focus"][:2]:  # in front of what was tuned
        assert stage["change"] == [0, 0, 0]


def test_random_base_weights_are_told(data: Path, tmp_path: Path) -> None:
    made = config_of(data, tmp_path / "run")
    run = train(replace(made, selection=replace(made.selection, monitor="last")))
    with pytest.raises(ValueError, match="random weights"):
        analyze(run, tmp_path / "a")
    assert not (tmp_path / "a").exists()
