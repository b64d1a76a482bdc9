"""Read damaged files of all kinds: each is refused in one line, or means what it meant.

python -m tests.torture.fuzz FOLDER COUNT [KIND ...]

The damage follows from the kind and a number, so that a failure can be made again:
python -m tests.torture.fuzz FOLDER KIND:NUMBER
"""

import contextlib
import hashlib
import json
import os
import random
import resource
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image

from svfseg import FewShotSegmenter
from svfseg.annotations.coco_masks import compressed
from svfseg.annotations.folders import find_supports
from svfseg.annotations.inputs import as_mask
from svfseg.cli.commands import _advice
from svfseg.config import TrainConfig, from_dict, read_config, to_dict
from svfseg.data.images import read_image
from svfseg.lab.settings import check_settings
from svfseg.lab.study import read_study
from svfseg.lab.training import train
from svfseg.segmenter.report import read_log
from svfseg.svf.adapter import load_adapter, save_adapter
from svfseg.svf.apply import apply_svf
from svfseg.tuning.checkpoint import load_run
from tests.torture import commands
from tests.torture.mutations import mutate_archive, mutate_bytes, mutate_json, mutate_value

SECONDS, BYTES = 20, 1_000_000_000
READ, SAME, REFUSED, WRONG = "read", "same", "refused", "wrong"
MARKS = {
    "a.json": {
        "version": "5", "imagePath": "a.png", "imageHeight": 64, "imageWidth": 64,
        "shapes": [
            {"label": "disc", "shape_type": "polygon", "points": [[5, 5], [40, 5], [30, 50]]},
            {"label": "disc", "shape_type": "circle", "points": [[20, 20], [30, 20]]},
            {"label": "disc", "shape_type": "rectangle", "points": [[2, 3], [30, 40]]},
        ],
    },
    "coco.json": {
        "images": [{"id": 1, "file_name": "a.png", "width": 64, "height": 64}],
        "categories": [{"id": 1, "name": "disc"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "area": 100,
             "bbox": [0, 0, 9, 9], "segmentation": [[5, 5, 40, 5, 30, 50]]},
            {"id": 2, "image_id": 1, "category_id": 1, "iscrowd": 1, "area": 100,
             "segmentation": {"size": [64, 64], "counts": [100, 30, 3966]}},
            {"id": 3, "image_id": 1, "category_id": 1, "iscrowd": 1, "area": 100,
             "segmentation": {"size": [64, 64], "counts": compressed([100, 30, 3966])}},
        ],
    },
    "a.geojson": {
        "type": "FeatureCollection",
        "features": [{"type": "Feature", "properties": {"class": "disc"}, "geometry": {
            "type": "Polygon", "coordinates": [[[5, 5], [40, 5], [30, 50], [5, 5]]]}}],
    },
    "marks.json": {
        "polygons": [{"points": [5, 5, 40, 5, 30, 50], "class": 1}],
        "boxes": [{"points": [1, 1, 9, 9], "class": "disc"}],
        "clicks": [{"points": [20, 20], "class": 1}],
    },
}  # fmt: skip


@dataclass(frozen=True)
class Kind:
    """Files of one kind.

    Attributes:
        files: in the folder of samples; one of them is damaged at a time.
        read: reads the damaged file, whose path is given, and gives what it means.
        mutate: damages its bytes.
        strict: whether whatever is accepted must mean what it meant.
    """

    files: tuple[str, ...]
    read: Callable[[Path], object]
    mutate: Callable[[bytes, random.Random], bytes] = mutate_bytes
    strict: bool = False


def build(folder: Path) -> None:
    """Samples of all kinds."""
    commands.build(folder)
    picture = Image.open(folder / "query/2.jpg").resize((64, 64))
    for end in ("png", "jpg", "tif", "bmp", "gif", "webp"):
        picture.save(folder / f"a.{end}")
    picture.save(folder / "b.tif", compression="tiff_lzw")
    picture.convert("P").save(folder / "p.png")
    mask = Image.open(folder / "masks/0.png").resize((64, 64))
    for end in ("png", "tif", "bmp", "gif"):
        mask.save(folder / f"mask.{end}")
    mask.convert("1").save(folder / "mask1.png")
    mask.save(folder / "mask.jpg", quality=95)
    for name, marks in MARKS.items():
        (folder / name).write_text(json.dumps(marks))
    (folder / "a.txt").write_text("0 0.1 0.1 0.6 0.1 0.4 0.8\n0 0.5 0.5 0.2 0.2\n")
    (folder / "list.csv").write_text("image,mask\nimages/0.jpg,masks/0.png\nimages/1.jpg,\n")
    words = ["predict", "old.svf", "--query", "query", "--out", "found"]
    assert commands.stopped_at(None, commands.typed(folder, words)) == 0
    os.chdir(folder)
    config = from_dict(TrainConfig, {**read_config("train.yaml"), "out": "run"})
    train(config)
    model = small_model()
    apply_svf(model)
    save_adapter(model, folder / "adapter")


def small_model() -> torch.nn.Module:
    """A network with factors, equal for each call."""
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 4, 1))


def _digest(array: Any) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def _task(path: Path) -> object:
    result = FewShotSegmenter.load(path).predict(path.parent / "query/2.jpg")
    return [_digest(result.mask), _digest(result.probabilities)]


def _adapter(path: Path) -> object:
    model = small_model()
    load_adapter(model, path.parents[0])
    return _digest(model(torch.ones(1, 3, 8, 8)).detach().numpy())


def _run(path: Path) -> object:
    run = path.parent if path.parent.name == "run" else path.parents[1]
    head, _ = load_run(run, "last")
    return {name: _digest(value) for name, value in head.state_dict().items()}


def _resume(path: Path) -> object:
    """Go on with a run whose end was reached: what is read is checked, and nothing is trained."""
    run = path.parent if path.parent.name == "run" else path.parents[1]
    config = from_dict(TrainConfig, {**read_config(run.parent / "train.yaml"), "out": str(run)})
    train(config, resume=True)
    return None


def _config(path: Path) -> object:
    config = from_dict(TrainConfig, read_config(path))
    check_settings(config)
    return to_dict(config)


def _marks(path: Path) -> object:
    image = read_image(path.parent / "a.png")
    return _digest(as_mask(path, image, ("disc",)))


def _log(path: Path) -> object:
    return read_log(path.parent)


def mutate_yaml(data: bytes, rng: random.Random) -> bytes:
    """Change a YAML file in its values, in its bytes, or make a bomb of it."""
    way = rng.random()
    if way < 0.3:
        return mutate_bytes(data, rng)
    if way < 0.4:
        return rng.choice((bomb(9), bomb(30), mapping_bomb(30), b"a: " * 1000, b"a: 2001-99-99",
                           b"a: !!bool x", b"a: " + b"1" * 5000, b"[" * 10_000, b"? " * 5000,
                           b"- " * 20_000, b"!!python/object/apply:os.abort []", b"&a [*a]",
                           b"a: &a {<<: *a}", b"\x00", b"\xff\xfe", b"%YAML 9.9\n---\na: 1"))  # fmt: skip
    try:
        return yaml.dump(mutate_value(yaml.safe_load(data), rng)).encode(errors="surrogatepass")
    except RecursionError:
        return b"[" * 100_000 + b"]" * 100_000


def bomb(levels: int) -> bytes:
    """YAML whose anchors name ten times what the level below names."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, levels)]
    return "\n".join(lines).encode()


def mapping_bomb(levels: int) -> bytes:
    """The same in mappings, below a name that files have."""
    lines = ["a0: &a0 {x: 1}"]
    lines += [f"a{n}: &a{n} {{l: *a{n - 1}, r: *a{n - 1}}}" for n in range(1, levels)]
    return ("\n".join(lines) + f"\ntrain: *a{levels - 1}\narms: *a{levels - 1}\n").encode()


def mutate_lines(data: bytes, rng: random.Random) -> bytes:
    """Change one line of JSON lines, or the bytes."""
    lines = data.splitlines()
    if rng.random() < 0.4 or not lines:
        return mutate_bytes(data, rng)
    at = rng.randrange(len(lines))
    lines[at] = mutate_json(lines[at], rng)
    return b"\n".join(lines) + b"\n"


KINDS = {
    "pictures": Kind(
        ("a.png", "a.jpg", "a.tif", "b.tif", "a.bmp", "a.gif", "a.webp", "p.png"),
        lambda path: _digest(read_image(path)),
    ),
    "masks": Kind(
        ("mask.png", "mask.tif", "mask.bmp", "mask.gif", "mask1.png", "mask.jpg"),
        _marks,
    ),
    "marks": Kind(("a.json", "coco.json", "a.geojson", "marks.json"), _marks, mutate_json),
    "outlines": Kind(("a.txt",), _marks),
    "lists": Kind(("list.csv",), lambda path: find_supports([path])),
    "logs": Kind(("found/predictions.jsonl",), _log, mutate_lines),
    "tasks": Kind(("old.svf",), _task, mutate_bytes, strict=True),
    "repacked tasks": Kind(("old.svf",), _task, mutate_archive),
    "adapters": Kind(
        ("adapter/adapter.safetensors", "adapter/adapter.json"), _adapter, strict=True
    ),
    "adapters' settings": Kind(("adapter/adapter.json",), _adapter, mutate_json),
    "checkpoints": Kind(("run/last/model.safetensors",), _run, strict=True),
    "checkpoints' settings": Kind(("run/last/checkpoint.json",), _run, mutate_json),
    "states of training": Kind(("run/last/training.pt",), _resume),
    "scores of runs": Kind(("run/metrics.jsonl",), _resume, mutate_lines),
    "configurations": Kind(("train.yaml",), _config, mutate_yaml),
    "studies": Kind(("study.yaml",), lambda path: read_study(path), mutate_yaml),
}


def in_a_process(work: Callable[[], object]) -> tuple[str, Any, int]:
    """Do work in a process of its own: what came of it, its value or words, and the bytes it took."""
    reader, writer = os.pipe()
    sys.stdout.flush()
    process = os.fork()
    if not process:
        signal.alarm(SECONDS)
        before = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
        answer: list[Any] = [WRONG, "", 0]
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
            try:
                with contextlib.redirect_stderr(nowhere):
                    answer = [READ, work(), 0]
            except Exception as error:
                line = _advice(error)
                answer = [WRONG, traceback.format_exc()[-2000:], 0]
                if line is not None:
                    answer = [REFUSED if line.strip() else WRONG, line, 0]
        answer[2] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
        os.write(writer, json.dumps(answer, default=str).encode()[:60_000])
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, errors="replace") as file:
        text = file.read()
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    if status != 0:
        late = status == -signal.SIGALRM
        return WRONG, f"more than {SECONDS} s" if late else f"status {status}", 0
    way, value, taken = json.loads(text)
    return way, value, max(0, taken)


def try_one(folder: Path, name: str, number: int) -> dict[str, Any]:
    """Damage one file, read it, put it back, and say what came of it."""
    kind = KINDS[name]
    rng = random.Random(f"{name} {number}")
    os.chdir(folder)
    path = folder / kind.files[number % len(kind.files)]
    data = path.read_bytes()
    meant = in_a_process(lambda: kind.read(path)) if kind.strict else None
    damaged = kind.mutate(data, rng)
    kept = folder / "kept"
    shutil.rmtree(kept, ignore_errors=True)
    if "run" in path.parts:  # reading a run may mend it
        shutil.copytree(folder / "run", kept)
    try:
        path.write_bytes(damaged)
        way, value, taken = in_a_process(lambda: kind.read(path))
    finally:
        path.write_bytes(data)
        if kept.exists():
            shutil.rmtree(folder / "run")
            kept.rename(folder / "run")
    if way == READ and meant is not None:
        way = SAME if value == meant[1] else WRONG
        value = value if way == SAME else "it means something else, without a word"
    if taken > BYTES:
        way, value = WRONG, f"{taken:,} bytes"
    return {"file": path.name, "outcome": way, "value": value, "bytes": taken}


def sweep(folder: Path, count: int, names: list[str]) -> dict[str, dict[str, Any]]:
    """Damage COUNT files of each kind; give counts of outcomes, and what went wrong."""
    torch.set_num_threads(1)
    if not (folder / "train.yaml").is_file():  # in a process of its own, whose memory is given back
        assert commands.stopped_at(None, lambda: build(folder)) == 0
    os.chdir(folder)
    for name in names:
        for file in KINDS[name].files:
            path, read = folder / file, KINDS[name].read
            way, value, _ = in_a_process(lambda read=read, path=path: read(path))
            assert way == READ, (name, file, value)
    found: dict[str, dict[str, Any]] = {}
    for name in names:
        counts: dict[str, Any] = {READ: 0, SAME: 0, REFUSED: 0, "wrong": [], "bytes": 0}
        for number in range(count):
            one = try_one(folder, name, number)
            counts["bytes"] = max(counts["bytes"], one["bytes"])
            if one["outcome"] == WRONG:
                counts["wrong"].append([f"{name}:{number}", one["file"], one["value"]])
            else:
                counts[one["outcome"]] += 1
        found[name] = counts
    return found


if __name__ == "__main__":
    place, what = Path(sys.argv[1]).resolve(), sys.argv[2]
    if ":" in what:
        of, _, at = what.partition(":")
        print(json.dumps(try_one(place, of, int(at)), indent=1))
    else:
        print(json.dumps(sweep(place, int(what), sys.argv[3:] or list(KINDS)), indent=1))
