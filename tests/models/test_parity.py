"""Equal to the reference networks, through the importer of published checkpoints."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from svfseg.config import BackboneConfig, ModelConfig
from svfseg.models import build_model
from svfseg.models.convert import import_published

pytestmark = pytest.mark.shared

REFERENCES = {
    "pfenet_resnet50": ("pfenet", "resnet50_deep", "uniform", 8),
    "pfenet_resnet50_5shot": ("pfenet", "resnet50_deep", "uniform", 8),
    "pfenet_vgg16": ("pfenet", "vgg16_bn", "uniform", 16),
    "baseline_resnet50": ("baseline", "resnet50_deep", "stepwise", 8),
}


BAMS = {"bam_resnet50": 1, "bam_resnet50_5shot": 5}


def reference_state(parity: Path, name: str) -> dict[str, torch.Tensor]:
    """The reference's weights, a pure function of each tensor's name and shape."""
    sys.path.insert(0, str(parity))
    try:
        from fill import fill
    finally:
        sys.path.remove(str(parity))
    keys = json.loads((parity / f"{name}.keys.json").read_text())
    state = {key: torch.from_numpy(fill(key, tuple(shape))) for key, shape in keys.items()}
    for key in ("gram_merge.weight", "cls_merge.weight"):
        if key in state:
            state[key] = torch.tensor([0.95, 0.05]).view(1, 2, 1, 1)
    return state


def off(found: torch.Tensor, recorded: torch.Tensor) -> float:
    return float((found - recorded).abs().max() / recorded.abs().max())


@pytest.mark.parametrize(("name", "shots"), BAMS.items())
def test_bam_gives_the_references_three_outputs(parity: Path, name: str, shots: int) -> None:
    backbone = BackboneConfig("resnet50_deep", "none", 8, "uniform")
    config = ModelConfig(head="bam", weighted_shots=shots, backbone=backbone)
    model = import_published(build_model(config), reference_state(parity, name), name).eval()
    model.backbone.mean.zero_()
    model.backbone.std.fill_(1)
    recorded = load_file(parity / f"{name}.safetensors")
    episode = [recorded[key] for key in ("query", "support", "support_mask")]
    with torch.inference_mode():
        maps = model.maps(*episode)
        for key, found in maps._asdict().items():
            assert off(found, recorded[key]) <= 1e-4, key
        seen, _ = model.encode(episode[0], [])
        shown = [model.encode(image[None], [mask], query=False)[1][0]
                 for image, mask in zip(episode[1][0], episode[2][0], strict=True)]  # fmt: skip
        assert off(model.decode([seen], [shown], (97, 97)), recorded["final"]) <= 1e-4
        # the base learner's own branch, once the other is about to change
        model.keep_base((3, 4))
        with torch.no_grad():
            model.backbone.stage(3)[0].conv1.weight.mul_(1.1)
        changed = model.maps(*episode)
        assert off(changed.base, recorded["base"]) <= 1e-4
        assert off(changed.final, recorded["final"]) > 1e-3


def reference_pspnet(parity: Path) -> dict[str, torch.Tensor]:
    """The base learner of the reference BAM, under the names of BAM's own PSPNet."""
    return {
        key.replace("learner_base.0.", "ppm.").replace("learner_base.1.", "cls."): value
        for key, value in reference_state(parity, "bam_resnet50").items()
        if key.startswith(("layer", "learner_base"))
    }


def test_the_base_learner_of_a_bam_checkpoint_is_a_pspnet(parity: Path) -> None:
    backbone = BackboneConfig("resnet50_deep", "none", 8, "uniform")
    model = build_model(ModelConfig(head="pspnet", backbone=backbone))
    import_published(model, reference_pspnet(parity), "pspnet").eval()
    model.backbone.mean.zero_()
    model.backbone.std.fill_(1)
    recorded = load_file(parity / "bam_resnet50.safetensors")
    with torch.inference_mode():
        assert off(model(recorded["query"]), recorded["base"]) <= 1e-4


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


def test_import_checkpoint_command_for_bam(
    parity: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Classes and shots are read from the file."""
    from svfseg.cli import main
    from svfseg.tuning.checkpoint import load_run

    file = tmp_path / "bam.safetensors"
    save_file(reference_state(parity, "bam_resnet50_5shot"), file)
    words = ["import-checkpoint", str(file), "--size", "97", "--out", str(tmp_path / "run")]
    assert main([*words, "--head", "bam"]) == 0
    model, config = load_run(tmp_path / "run")
    assert (config.model.base_classes, config.model.weighted_shots, config.shot) == (15, 5, 5)
    assert model.kshot_rw[0].weight.shape == (2, 5, 1, 1)
    other = tmp_path / "other.safetensors"
    save_file(reference_state(parity, "pfenet_vgg16"), other)
    words = ["import-checkpoint", str(other), "--out", str(tmp_path / "no"), "--head", "bam"]
    assert main(words) == 2
    assert "no base learner in the checkpoint" in capsys.readouterr().err


def test_import_checkpoint_command_for_a_pspnet(parity: Path, tmp_path: Path) -> None:
    """It becomes a run that BAM starts from, and so does the file itself."""
    from svfseg.cli import main
    from svfseg.tuning.checkpoint import load_run, start_model

    file, run = tmp_path / "pspnet.safetensors", tmp_path / "run"
    save_file(reference_pspnet(parity), file)
    words = ["import-checkpoint", str(file), "--size", "97", "--out", str(run), "--head", "pspnet"]
    assert main(words) == 0
    base, config = load_run(run)
    assert config.model.base_classes == 15
    image = 255 * torch.rand(1, 3, 97, 97)
    for start in (run, file):
        bam = start_model(replace(config.model, head="bam", base_learner=str(start))).eval()
        with torch.inference_mode():
            found = bam.maps(image, image[:, None], torch.ones(1, 1, 97, 97)).base
            assert off(found, base(image)) <= 1e-6


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
    with Image.open(tmp_path / "found" / "a.png") as found:
        assert found.size == (60, 40)
