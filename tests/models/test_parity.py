"""Equal to the reference networks, through the importer of published checkpoints."""

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from svfseg.config import BackboneConfig, ModelConfig
from svfseg.models import build_model
from svfseg.models.published import import_published

pytestmark = pytest.mark.shared

REFERENCES = {
    "pfenet_resnet50": ("pfenet", "resnet50_deep", "uniform", 8),
    "pfenet_resnet50_5shot": ("pfenet", "resnet50_deep", "uniform", 8),
    "pfenet_vgg16": ("pfenet", "vgg16_bn", "uniform", 16),
    "baseline_resnet50": ("baseline", "resnet50_deep", "stepwise", 8),
}


def reference_state(parity: Path, name: str) -> dict[str, torch.Tensor]:
    """The reference's weights, a pure function of each tensor's name and shape."""
    sys.path.insert(0, str(parity))
    try:
        from fill import fill
    finally:
        sys.path.remove(str(parity))
    keys = json.loads((parity / f"{name}.keys.json").read_text())
    return {key: torch.from_numpy(fill(key, tuple(shape))) for key, shape in keys.items()}


@pytest.mark.parametrize("name", REFERENCES)
def test_same_logits_as_the_reference(parity: Path, name: str) -> None:
    head, backbone, dilation, stride = REFERENCES[name]
    config = ModelConfig(
        head=head,
        bins=(60, 30, 15, 8),
        backbone=BackboneConfig(backbone, "none", stride, dilation),
    )
    model = import_published(build_model(config), reference_state(parity, name), name).eval()
    # the recorded inputs are normalised already
    model.backbone.mean.zero_()
    model.backbone.std.fill_(1)
    recorded = load_file(parity / f"{name}.safetensors")
    with torch.inference_mode():
        logits = model(recorded["query"], recorded["support"], recorded["support_mask"])
    off = (logits - recorded["logits"]).abs().max() / recorded["logits"].abs().max()
    assert off <= 1e-4


def test_the_other_dilation_habit_is_another_network(parity: Path) -> None:
    """The parity test would notice a wrong habit."""
    config = ModelConfig(
        head="baseline", backbone=BackboneConfig("resnet50_deep", "none", 8, "uniform")
    )
    model = import_published(
        build_model(config), reference_state(parity, "baseline_resnet50"), "x"
    ).eval()
    model.backbone.mean.zero_()
    model.backbone.std.fill_(1)
    recorded = load_file(parity / "baseline_resnet50.safetensors")
    with torch.inference_mode():
        logits = model(recorded["query"], recorded["support"], recorded["support_mask"])
    assert (logits - recorded["logits"]).abs().max() / recorded["logits"].abs().max() > 1e-3


def test_import_checkpoint_command(
    parity: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A published file becomes a run that predict takes; another network's is refused."""
    import numpy as np
    from PIL import Image

    from svfseg.cli import main

    file = tmp_path / "vgg.safetensors"
    save_file(reference_state(parity, "pfenet_vgg16"), file)
    words = ["import-checkpoint", str(file), "--size", "97"]
    run = tmp_path / "run"
    assert main([*words, "--backbone", "resnet50_deep", "--out", str(run)]) == 2
    message = capsys.readouterr().err
    assert "does not fit the network" in message
    assert "backbone.layer0" in message
    assert not run.exists()
    assert main([*words, "--backbone", "vgg16_bn", "--out", str(run)]) == 0
    image, mask = tmp_path / "a.png", tmp_path / "m.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)).save(image)
    marked = np.zeros((40, 60), np.uint8)
    marked[5:30, 10:40] = 255
    Image.fromarray(marked).save(mask)
    predict = ["predict", str(run), "--support", str(image), "--mask", str(mask)]
    assert main([*predict, "--query", str(image), "--out", str(tmp_path / "found")]) == 0
    assert Image.open(tmp_path / "found" / "a.png").size == (60, 40)
