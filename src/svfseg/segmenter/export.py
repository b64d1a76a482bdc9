"""Export a fitted task as ONNX, for programs without torch."""

import copy
import runpy
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from svfseg.data.images import Array
from svfseg.errors import InputError
from svfseg.files import replace_file, write_json, write_text
from svfseg.models.head import ComparingHead
from svfseg.segmenter import FewShotSegmenter
from svfseg.segmenter.adaptation import frozen_copy
from svfseg.segmenter.inference import HIGHEST, Predictor
from svfseg.segmenter.negatives import photographs
from svfseg.segmenter.resizing import MULTIPLE, fit_image

# How far ONNX Runtime may lie from PyTorch, in probability, and how many pixels of the masks of
# example.py may differ from those of `FewShotSegmenter.predict`.
TOLERANCE, PIXELS = 1e-3, 0.005
EXAMPLE = Path(__file__).parent / "templates" / "onnx_example.py"


def export(
    segmenter: FewShotSegmenter, out: str | Path, int8: bool = False, openvino: bool = False
) -> dict[str, float]:
    """Write a fitted segmenter as one graph with an example, and check both.

    query.onnx gives the logits of all classes for an image that is fitted and filled up, and where
    a decoder was fitted also those of the comparison alone, which judge presence: the network, the
    supports and what was fitted to them are in it. task.json holds how images are
    fitted and how logits become masks; example.py does both with onnxruntime, numpy and Pillow
    alone.

    Args:
        segmenter: fitted; what it tuned is merged.
        out: folder to write.
        int8: also query_int8.onnx, its ranges taken from photographs.
        openvino: also query.xml and query.bin.

    Returns:
        Largest difference in probability to PyTorch, by file; and as "masks" the largest share of
        pixels in which the example differs from `FewShotSegmenter.predict`.

    Raises:
        NotFittedError: before `fit`.
        InputError: a task that cannot be exported, a missing package, or a graph or an example
            that answers otherwise.
    """
    segmenter._check_is_fitted()
    if segmenter.tile:
        raise InputError("a task with tiles cannot be exported: fit it without tile")
    predictor = segmenter.predictor_
    predictor = replace(
        predictor,
        head=frozen_copy(predictor.head).to("cpu"),  # the head may be shared
        decoder=copy.deepcopy(predictor.decoder),
        negatives=tuple(map(_on_cpu, predictor.negatives)),
        device="cpu",
    )
    if isinstance(predictor.head, ComparingHead) and predictor.head.stretched:
        raise InputError("a task of format 1 cannot be exported any more: fit it again")
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    shots = [list(map(_on_cpu, own)) for own in segmenter.features_.values()]
    answer = _Answer(predictor, shots).eval()
    any_shape = predictor.head.any_shape
    images = _fitted(predictor, [0, 64, -32] if any_shape else [0, 0, 0])
    _write(answer, images[0], out / "query.onnx", any_shape)
    _write_task(segmenter, predictor, out)
    write_text(out / "example.py", EXAMPLE.read_text(encoding="utf-8"))
    with torch.no_grad():
        expected = [answer(image) for image in images]
    found = [_run(out / "query.onnx", image) for image in images]
    differences = {"query.onnx": max(map(_difference, found, expected))}
    for part, wanted in (
        ("query_int8.onnx", int8),
        ("query.xml", openvino),
        ("query.bin", openvino),
    ):
        if not wanted:  # of an earlier export, maybe of another task
            (out / part).unlink(missing_ok=True)
    if openvino:
        again = _to_openvino(out, images)
        differences["query.xml"] = max(map(_difference, again, expected))
    for name, difference in differences.items():
        if not difference <= TOLERANCE:
            raise InputError(
                f"{name} differs from PyTorch by {difference:.2g}: expected {TOLERANCE}"
            )
    if int8:
        _quantize(out, _fitted(predictor, [0] * len(photographs())))
        differences["query_int8.onnx"] = _difference(
            _run(out / "query_int8.onnx", images[0]), expected[0]
        )
    differences["masks"] = _example_differs(segmenter, out)
    if not differences["masks"] <= PIXELS:
        raise InputError(
            f"example.py differs from predict in {100 * differences['masks']:.2g} % of the pixels: "
            f"expected {100 * PIXELS:g} %"
        )
    return differences


def _on_cpu(features: Any) -> Any:
    return type(features)(*(tensor.cpu() for tensor in features))


class _Answer(nn.Module):
    """Image (1, 3, height, width) -> logits (classes, height, width), fitted and alone."""

    def __init__(self, predictor: Predictor, shots: Sequence[Sequence[Any]]) -> None:
        super().__init__()
        self.predictor, self.shots = predictor, list(shots)

    @property
    def outputs(self) -> list[str]:
        """Name what it gives; without a decoder both are one."""
        return ["logits"] if self.predictor.decoder is None else ["logits", "alone"]

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Answer one fitted image."""
        answer = self.predictor.logits(image, self.shots)
        return (answer.logits[0], answer.alone[0])[: len(self.outputs)]


def _fitted(predictor: Predictor, larger: Sequence[int]) -> list[Tensor]:
    """Photographs as the network sees them, at sizes that differ so much from the task's."""
    return [
        fit_image(
            photograph, max(MULTIPLE, predictor.size + more), predictor.head.any_shape
        ).image[None]
        for photograph, more in zip(photographs(), larger, strict=False)
    ]  # fmt: skip


def _write(module: _Answer, example: Tensor, path: Path, any_shape: bool) -> None:
    """One graph; where images may have any shape, the sides of its input may be any.

    By tracing: the exporter of torch.compile reasons for minutes about padding that depends on
    the size (TensorFlow's "same"), and gives the same graph.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"exporting needs the package {error.name}: pip install 'svfseg[export]'"
        ) from error
    head = type(module.predictor.head).__name__
    sides = {1: "height", 2: "width"}
    axes = {"image": {2: "height", 3: "width"}, **dict.fromkeys(module.outputs, sides)}
    with replace_file(path) as fresh, warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        try:
            torch.onnx.export(
            module, (example,), str(fresh), input_names=["image"],
            output_names=module.outputs,
            dynamic_axes=axes if any_shape else None, dynamo=False, opset_version=17,
        )  # fmt: skip
        except torch.onnx.errors.OnnxExporterError as error:
            raise InputError(f"{head} cannot be exported: {str(error).splitlines()[0]}") from error


def _run(path: Path, image: Tensor) -> list[Array]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return [np.asarray(logits) for logits in session.run(None, {"image": image.numpy()})]


def _difference(theirs: Sequence[Array], ours: Sequence[Tensor]) -> float:
    """Largest difference in probability."""
    return max(
        float((torch.from_numpy(np.array(a)).sigmoid() - b.sigmoid()).abs().max())
        for a, b in zip(theirs, ours, strict=True)
    )


def _write_task(segmenter: FewShotSegmenter, predictor: Predictor, out: Path) -> None:
    rules = segmenter.thresholds_
    # heads that stretch their logits judge presence by features, which are not in the graph
    judges = isinstance(predictor.head, ComparingHead)
    metadata = {
        "classes": list(segmenter.classes_),
        "size": predictor.size,
        "multiple": MULTIPLE if predictor.head.any_shape else predictor.size,
        "border": "edge" if predictor.head.any_shape else "black",
        "highest": HIGHEST,
        "reject_absent": segmenter.reject_absent and judges,
        "rules": [rules[i].to_plain() for i in sorted(rules)],
    }
    write_json(out / "task.json", metadata)


def _example_differs(segmenter: FewShotSegmenter, out: Path) -> float:
    """Compare the example's masks with `predict`'s on 20 images of other sizes and turns."""
    import onnxruntime

    session = onnxruntime.InferenceSession(
        str(out / "query.onnx"), providers=["CPUExecutionProvider"]
    )
    segment: Callable[..., Array] = runpy.run_path(str(out / "example.py"))["segment"]
    plain = copy.copy(segmenter).set_params(reject_absent=False)
    worst = 0.0
    for number in range(20):
        photograph = photographs()[number % len(photographs())]
        height, width = photograph.shape[:2]
        sides = ((1.0, 1.0), (0.6, 0.6), (1.7, 1.7), (0.4, 1.0), (1.0, 0.4))[number % 5]
        size = (max(16, round(width * sides[1])), max(16, round(height * sides[0])))
        image = Image.fromarray(photograph).resize(size)
        if number % 4 == 3:
            image = image.convert("L")
        if number % 3 == 2:
            image.getexif()[0x0112] = 6  # lies on its side
        theirs = segment(image, session, reject=False)
        worst = max(worst, float((theirs != plain.predict(image).mask).mean()))
    return worst


def _quantize(out: Path, images: Sequence[Tensor]) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = iter(images)

        def get_next(self) -> dict[str, Array] | None:
            image = next(self.left, None)
            return None if image is None else {"image": image.numpy()}

    prepared = out / ".prepared.onnx"
    quant_pre_process(str(out / "query.onnx"), str(prepared), skip_symbolic_shape=True)
    quantize_static(
        str(prepared), str(out / "query_int8.onnx"), Reader(), quant_format=QuantFormat.QDQ,
        op_types_to_quantize=["Conv"], per_channel=True,
    )  # fmt: skip
    prepared.unlink()


def _to_openvino(out: Path, images: Sequence[Tensor]) -> list[list[Array]]:
    try:
        import openvino
    except ImportError as error:
        raise InputError("this needs the package openvino: pip install openvino") from error
    model = openvino.convert_model(str(out / "query.onnx"))
    openvino.save_model(model, str(out / "query.xml"), compress_to_fp16=False)
    compiled = openvino.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return [list(map(np.asarray, compiled([image.numpy()]).values())) for image in images]
