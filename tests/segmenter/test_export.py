"""What leaves torch: the same masks from ONNX Runtime and OpenVINO, at other sizes and shots."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from svfseg import FewShotSegmenter
from svfseg.cli import main
from svfseg.config import BackboneConfig, ModelConfig
from svfseg.data import stickers
from svfseg.models import build_model
from svfseg.segmenter.export import TOLERANCE, export
from svfseg.segmenter.inference import Predictor, by_class
from tests.cli.test_commands import fails

SIZE = 128
HEADS = (
    ("baseline", {}),
    ("pfenet", {"bins": (6, 3)}),
    ("pfenet", {"bins": (1.0, 0.5)}),  # shares of a size that is not known yet
    ("bam", {}),
)


@pytest.fixture(scope="module")
def fitted() -> FewShotSegmenter:
    index = stickers(0, 8, "test")
    samples = [index.load(i) for i in range(2)]
    masks = [(s.mask > 0).astype(np.uint8) for s in samples]
    segmenter = FewShotSegmenter(adapt="svf", steps=1, size=SIZE, device="cpu", reject_absent=False)
    return segmenter.fit([s.image for s in samples], masks, ["thing"])


def test_the_graphs_agree_with_torch_and_the_example_needs_none(
    fitted: FewShotSegmenter, tmp_path: Path
) -> None:
    """`export` itself compares three sizes and one to three shots, and refuses a difference."""
    found = export(fitted, tmp_path, int8=True, openvino=True)
    exact = {name: apart for name, apart in found.items() if name != "query_int8.onnx"}
    assert set(exact) == {"support.onnx", "query.onnx", "query.xml"}
    assert max(exact.values()) <= TOLERANCE
    assert found["query_int8.onnx"] < 0.5
    sizes = {p.name: p.stat().st_size for p in tmp_path.iterdir()}
    assert sizes["query_int8.onnx"] < 0.5 * sizes["query.onnx"]
    image = stickers(0, 8, "test").load(3).image
    Image.fromarray(image).save(tmp_path / "photo.png")
    blocked = "import sys; sys.modules['torch'] = None; import runpy; sys.argv = sys.argv[1:]; "
    script = [sys.executable, "-c", f"{blocked}runpy.run_path(sys.argv[0], run_name='__main__')"]
    names = [str(tmp_path / n) for n in ("example.py", "photo.png", "mask.png")]
    subprocess.run([*script, *names], check=True, capture_output=True)
    with Image.open(tmp_path / "mask.png") as mask:
        theirs = np.asarray(mask) > 0
    ours = fitted.predict(image).mask > 0
    assert (theirs != ours).mean() < 0.03  # Pillow resizes otherwise


def test_prototype_heads_leave_too_and_others_say_so(
    fitted: FewShotSegmenter, tmp_path: Path
) -> None:
    for head, more in HEADS:
        model = build_model(
            ModelConfig(
                head=head, hidden=16, backbone=BackboneConfig("test_resnet", "none"), **more
            )
        ).eval()
        other = FewShotSegmenter(size=64, device="cpu")
        other.predictor_ = Predictor(model, 64)
        sample = stickers(0, 8, "test").load(0)
        shown = other.predictor_.encode_supports([sample._replace(mask=sample.mask > 0)], [1])
        other.features_ = by_class(shown, [1])
        other.thresholds_, other.classes_, other.adaptation_ = fitted.thresholds_, ("thing",), None
        if head == "bam":
            with pytest.raises(ValueError, match="BAM cannot be exported"):
                export(other, tmp_path / head)
            continue
        assert max(export(other, tmp_path / head).values()) <= TOLERANCE


def test_on_the_command_line(
    fitted: FewShotSegmenter, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fitted.save(tmp_path / "task.svf")
    assert main(["export", str(tmp_path / "task.svf"), "--out", str(tmp_path / "onnx")]) == 0
    assert "query.onnx" in capsys.readouterr().out
    about = json.loads((tmp_path / "onnx/task.json").read_text())
    assert about["classes"] == ["thing"]
    assert about["size"] == SIZE
    assert "no task at" in fails(capsys, "export", tmp_path / "gone.svf")
