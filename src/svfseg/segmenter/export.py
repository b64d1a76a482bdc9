"""Export a fitted task or a model as ONNX, for programs without torch."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from svfseg.data.transforms import fit_image, to_tensor
from svfseg.errors import InputError
from svfseg.files import replace_file, write_json, write_text
from svfseg.segmenter import FewShotSegmenter
from svfseg.segmenter.adaptation import frozen_copy
from svfseg.segmenter.negatives import photographs

# How far ONNX Runtime may lie from PyTorch, in probability.
TOLERANCE = 1e-3
EXAMPLE = Path(__file__).parent / "templates" / "onnx_example.py"
Array = np.ndarray[Any, np.dtype[Any]]


def export(
    segmenter: FewShotSegmenter, out: str | Path, int8: bool = False, openvino: bool = False
) -> dict[str, float]:
    """Write a fitted segmenter as two graphs, its supports and an example, and check them.

    support.onnx encodes a support; query.onnx outlines the class of any number of supports in an
    image of any height and width; task.npz holds the fitted supports, task.json the rules;
    example.py uses them with onnxruntime, numpy and Pillow alone.

    Args:
        segmenter: fitted; what it tuned is merged.
        out: folder to write.
        int8: also query_int8.onnx, its ranges taken from photographs.
        openvino: also query.xml and query.bin.

    Returns:
        Largest difference in probability to PyTorch, by file.

    Raises:
        NotFittedError: before `fit`.
        InputError: a head that cannot be exported, a missing package, or a graph that differs
            from PyTorch by more than `TOLERANCE`.
    """
    segmenter._check_is_fitted()
    head, size = segmenter.predictor_.head, segmenter.predictor_.size
    modules = frozen_copy(head).to("cpu").onnx_modules()  # the head may be shared
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    encode, answer, names = modules.support.eval(), modules.query.eval(), modules.features
    image = fit_image(to_tensor(photographs()[0]), size)[None]
    mask = torch.zeros(size, size, dtype=torch.uint8)
    mask[size // 4 : size // 2, size // 4 : size // 2] = 1
    with torch.no_grad():
        view = encode(image, mask)
    two = tuple(torch.cat([tensor, tensor]) for tensor in view)
    square = {2: "height", 3: "width"}
    _write(encode, (image, mask), out / "support.onnx", names,
           {"image": square, "mask": {0: "height", 1: "width"}}, modules.positions)  # fmt: skip
    keyed = {name: {0: "shots"} for name in names}
    for name in modules.positions:  # another number at another size
        keyed[name][2] = "positions"
    _write(answer, (image, *two), out / "query.onnx", ("probability",), {"image": square, **keyed})
    _write_task(segmenter, out)
    write_text(out / "example.py", EXAMPLE.read_text(encoding="utf-8"))
    differences = {"support.onnx": 0.0, "query.onnx": 0.0}
    for number, photograph in enumerate(photographs()[:3]):
        # another size and number of shots than it was traced with
        other = fit_image(to_tensor(photograph), size + 32 * number)[None]
        marked = torch.zeros(other.shape[-2:], dtype=torch.uint8)
        marked[16 : 48 + 16 * number, 24:80] = 1
        with torch.no_grad():
            features = encode(other, marked)
            several = tuple(torch.cat([tensor] * (1 + number)) for tensor in features)
            expected = answer(other, *several)
        again = _run(out / "support.onnx", (other, marked))
        for theirs, ours in zip(again, features, strict=True):
            differences["support.onnx"] = max(
                differences["support.onnx"], _difference(theirs, ours)
            )
        (probability,) = _run(out / "query.onnx", (other, *several))
        differences["query.onnx"] = max(
            differences["query.onnx"], _difference(probability, expected)
        )
    for name, difference in differences.items():
        if not difference <= TOLERANCE:
            raise InputError(
                f"{name} differs from PyTorch by {difference:.2g}: expected {TOLERANCE}"
            )
    squares = [fit_image(to_tensor(p), size)[None] for p in photographs()]
    with torch.no_grad():
        expected = answer(squares[0], *two)
    for part, wanted in (
        ("query_int8.onnx", int8),
        ("query.xml", openvino),
        ("query.bin", openvino),
    ):
        if not wanted:  # of an earlier export, maybe of another task
            (out / part).unlink(missing_ok=True)
    if int8:
        _quantize(out, squares, two, ("image", *names))
        (probability,) = _run(out / "query_int8.onnx", (squares[0], *two))
        differences["query_int8.onnx"] = _difference(probability, expected)
    if openvino:
        differences["query.xml"] = _difference(_to_openvino(out, (squares[0], *two)), expected)
        if not differences["query.xml"] <= TOLERANCE:
            raise InputError(f"query.xml differs from PyTorch by {differences['query.xml']:.2g}")
    return differences


def _write(
    module: nn.Module,
    example: tuple[Tensor, ...],
    path: Path,
    outputs: Sequence[str],
    inputs: dict[str, dict[int, str]],
    positions: Sequence[str] = (),
) -> None:
    """One graph; sizes that the inputs name may be any.

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
    axes: dict[str, dict[int, str]] = dict(inputs)
    if "probability" in outputs:
        axes["probability"] = {0: "height", 1: "width"}
    axes |= {name: {2: "positions"} for name in positions}
    with replace_file(path) as fresh, warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module, example, str(fresh), input_names=list(inputs), output_names=list(outputs),
            dynamic_axes=axes, dynamo=False, opset_version=17,
        )  # fmt: skip


def _run(path: Path, inputs: Sequence[Tensor]) -> list[Array]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    named = zip(session.get_inputs(), inputs, strict=True)
    return list(session.run(None, {spec.name: tensor.numpy() for spec, tensor in named}))


def _difference(theirs: Array, ours: Tensor) -> float:
    return float(np.abs(theirs - ours.numpy()).max())


def _write_task(segmenter: FewShotSegmenter, out: Path) -> None:
    arrays: dict[str, Array] = {}
    for class_id, shots in segmenter.features_.items():
        for name in shots[0]._fields:
            parts = [getattr(shot, name).cpu() for shot in shots]
            if name == "prototype":
                arrays[f"{class_id}/{name}"] = torch.cat(parts).numpy()
                continue
            longest = max(part.shape[1] for part in parts)  # zeros are like nothing
            filled = [nn.functional.pad(part, (0, longest - part.shape[1])) for part in parts]
            arrays[f"{class_id}/{name}"] = torch.stack(filled).numpy()
    with replace_file(out / "task.npz") as fresh, fresh.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
    thresholds = segmenter.thresholds_
    metadata = {
        "classes": list(segmenter.classes_),
        "size": segmenter.predictor_.size,
        "thresholds": [thresholds[i].threshold for i in sorted(thresholds)],
    }
    write_json(out / "task.json", metadata)


def _quantize(
    out: Path, squares: Sequence[Tensor], view: Sequence[Tensor], names: Sequence[str]
) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = iter(squares)

        def get_next(self) -> dict[str, Array] | None:
            square = next(self.left, None)
            if square is None:
                return None
            inputs = zip(names, (square, *view), strict=True)
            return {name: tensor.numpy() for name, tensor in inputs}

    prepared = out / ".prepared.onnx"
    quant_pre_process(str(out / "query.onnx"), str(prepared), skip_symbolic_shape=True)
    quantize_static(
        str(prepared), str(out / "query_int8.onnx"), Reader(), quant_format=QuantFormat.QDQ,
        op_types_to_quantize=["Conv"], per_channel=True,
    )  # fmt: skip
    prepared.unlink()


def _to_openvino(out: Path, inputs: Sequence[Tensor]) -> Array:
    try:
        import openvino
    except ImportError as error:
        raise InputError("this needs the package openvino: pip install openvino") from error
    model = openvino.convert_model(str(out / "query.onnx"))
    openvino.save_model(model, str(out / "query.xml"), compress_to_fp16=False)
    compiled = openvino.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    (differences,) = compiled([tensor.numpy() for tensor in inputs]).values()
    return np.asarray(differences)
