"""What leaves torch: the masks of the example are those of predict, on any image."""

import json
import shutil
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
from svfseg.errors import InputError
from svfseg.models import build_model
from svfseg.segmenter import export as module
from svfseg.segmenter.export import TOLERANCE, export
from svfseg.segmenter.inference import Predictor, by_class
from svfseg.segmenter.learning import Learned, TrustRule
from tests.cli.test_commands import fails

SIZE = 128


def halves(mask: np.ndarray) -> np.ndarray:
    """Which pixels lie to the right of the middle of what is marked."""
    columns = np.nonzero(mask)[1]
    return np.broadcast_to(np.arange(mask.shape[1]) > np.median(columns), mask.shape)


@pytest.fixture(scope="module")
def fitted() -> FewShotSegmenter:
    """Two classes and an image without, with a decoder whatever held-out supports say of it."""
    index = stickers(0, 8, "test")
    samples = [index.load(i) for i in range(2)]
    # the left half of each thing is one class, the right half the other
    masks = [(s.mask > 0) * (1 + halves(s.mask)).astype(np.uint8) for s in samples]
    segmenter = FewShotSegmenter(adapt="svf", steps=1, size=SIZE, device="cpu")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("svfseg.segmenter.learning.MANY", TrustRule(-1e9))
        patch.setattr("svfseg.segmenter.learning.STEPS", 6)
        images = [*(s.image for s in samples), np.full_like(samples[0].image, 128)]
        segmenter.fit(images, [*masks, None], ["one", "two"])
    assert segmenter.predictor_.decoder is not None
    assert segmenter.predictor_.negatives
    return segmenter


@pytest.fixture(scope="module")
def exported(fitted: FewShotSegmenter, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    found = export(fitted, folder, int8=True, openvino=True)
    assert set(found) == {"query.onnx", "query.xml", "query_int8.onnx", "masks"}
    assert max(found["query.onnx"], found["query.xml"]) <= TOLERANCE
    assert found["query_int8.onnx"] < 0.6
    assert found["masks"] <= 0.005
    return folder


def photographs(folder: Path) -> list[Path]:
    """Files as people have them: sizes, modes, and a picture that lies on its side."""
    image = Image.fromarray(stickers(0, 8, "test").load(3).image)
    turned = Image.Exif()
    turned[0x0112] = 6
    image.save(folder / "plain.png")
    image.resize((333, 77)).save(folder / "wide.png")
    image.resize((61, 402)).convert("L").save(folder / "tall_grey.png")
    image.resize((700, 650)).convert("RGBA").save(folder / "large_alpha.png")
    image.crop((0, 0, 200, 120)).save(folder / "turned.jpg", exif=turned)
    return sorted(folder.iterdir())


@pytest.mark.slow
def test_the_example_gives_the_masks_of_predict_without_torch(
    fitted: FewShotSegmenter, exported: Path, tmp_path: Path
) -> None:
    out = tmp_path.with_name(f"{tmp_path.name}_masks")
    out.mkdir()
    blocked = "import sys; sys.modules['torch'] = None; import runpy; sys.argv = sys.argv[1:]; "
    script = [sys.executable, "-c", f"{blocked}runpy.run_path(sys.argv[0], run_name='__main__')"]
    ids: set[int] = set()
    for path in photographs(tmp_path):
        target = out / f"{path.stem}.png"
        words = [*script, str(exported / "example.py"), str(path), str(target)]
        subprocess.run(words, check=True, capture_output=True)
        with Image.open(target) as mask:
            theirs = np.asarray(mask)
        ours = fitted.predict(path).mask
        assert theirs.shape == ours.shape, path.name
        assert (theirs != ours).mean() < 0.005, path.name
        ids |= set(np.unique(ours).tolist())
    assert len(ids) > 1  # something was found


def test_nothing_else_is_needed_and_int8_is_small(exported: Path) -> None:
    sizes = {p.name: p.stat().st_size for p in exported.iterdir()}
    expected = {"query.onnx", "query_int8.onnx", "query.xml", "query.bin", "task.json"}
    assert set(sizes) - {"__pycache__"} == expected | {"example.py"}
    assert sizes["query_int8.onnx"] < 0.5 * sizes["query.onnx"]


def test_an_example_that_answers_otherwise_is_refused(
    fitted: FewShotSegmenter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = tmp_path / "wrong.py"
    text = module.EXAMPLE.read_text(encoding="utf-8")
    wrong.write_text(text.replace("+ 0.5) * extent / count - 0.5", ") * extent / count"))
    assert wrong.read_text() != text
    monkeypatch.setattr(module, "EXAMPLE", wrong)
    with pytest.raises(InputError, match="differs from predict"):
        export(fitted, tmp_path / "out")


@pytest.mark.parametrize("head", ["baseline", "pfenet"])
def test_heads_that_compare_otherwise_leave_too(
    head: str, fitted: FewShotSegmenter, tmp_path: Path
) -> None:
    found = export(with_head(head, fitted), tmp_path)
    assert found["query.onnx"] <= TOLERANCE
    assert found["masks"] <= 0.005
    # what judges presence is not in the graph, and the task says so
    assert json.loads((tmp_path / "task.json").read_text())["reject_absent"] is False


def test_a_head_that_cannot_leave_says_why(fitted: FewShotSegmenter, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="BAM cannot be exported"):
        export(with_head("bam", fitted), tmp_path)
    assert not (tmp_path / "query.onnx").exists()


def with_head(head: str, fitted: FewShotSegmenter) -> FewShotSegmenter:
    """A segmenter on an untrained head."""
    model = build_model(
        ModelConfig(head=head, hidden=16, backbone=BackboneConfig("test_resnet", "none"))
    ).eval()
    other = FewShotSegmenter(size=64, device="cpu")
    other.predictor_ = Predictor(model, 64)
    sample = stickers(0, 8, "test").load(0)
    mask = (sample.mask > 0).astype(np.uint8)
    shown = other.predictor_.encode_supports([sample._replace(mask=mask)], [1])
    other.features_ = by_class(shown, [1])
    other.thresholds_ = {1: fitted.thresholds_[1]}
    other.classes_, other.adaptation_, other.learned_ = ("thing",), None, Learned()
    return other


def test_what_cannot_leave_is_refused(fitted: FewShotSegmenter, tmp_path: Path) -> None:
    fitted.save(tmp_path / "task.svf")
    tiled = FewShotSegmenter.load(tmp_path / "task.svf", device="cpu").set_params(tile=True)
    with pytest.raises(InputError, match="tiles cannot be exported"):
        export(tiled, tmp_path / "out")
    old = Path(__file__).parents[1] / "fixtures" / "format1" / "none.svf"
    with pytest.raises(InputError, match="format 1 cannot be exported"):
        export(FewShotSegmenter.load(old, device="cpu"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_on_the_command_line(
    fitted: FewShotSegmenter, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fitted.save(tmp_path / "task.svf")
    assert main(["export", str(tmp_path / "task.svf"), "--out", str(tmp_path / "onnx")]) == 0
    said = capsys.readouterr().out
    assert "query.onnx" in said
    assert "of the pixels differ at most" in said
    about = json.loads((tmp_path / "onnx/task.json").read_text())
    assert about["classes"] == ["one", "two"]
    assert about["size"] == SIZE
    assert "no task at" in fails(capsys, "export", tmp_path / "gone.svf")
    shutil.rmtree(tmp_path / "onnx")
