"""Outline the classes of an exported task in an image, as svfseg predict does, without torch.

python example.py photo.jpg mask.png
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

HERE = Path(__file__).parent
TASK = json.loads((HERE / "task.json").read_text(encoding="utf-8"))


def fit(image: Image.Image) -> tuple[np.ndarray, int, int]:
    """Scale an image so that its longer side is the task's, and fill it up; its own sides too."""
    ratio = TASK["size"] / max(image.size)
    width, height = (max(1, round(side * ratio)) for side in image.size)
    small = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR), np.float32)
    step = TASK["multiple"]
    rows, columns = (-(-side // step) * step for side in (height, width))
    padding = ((0, rows - height), (0, columns - width), (0, 0))
    edge = TASK["border"] == "edge"  # else black
    padded = np.pad(small, padding, "edge") if edge else np.pad(small, padding)
    filled = padded.transpose(2, 0, 1)[None]
    return np.ascontiguousarray(filled), height, width


def enlarge(maps: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize (classes, rows, columns) bilinearly, pixel areas to pixel areas."""
    for axis, count in ((1, height), (2, width)):
        extent = maps.shape[axis]
        place = ((np.arange(count, dtype=np.float32) + 0.5) * extent / count - 0.5).clip(0)
        low = np.minimum(place.astype(int), extent - 1)
        share = (place - low).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(3)])
        above = np.minimum(low + 1, extent - 1)
        maps = maps.take(low, axis) * (1 - share) + maps.take(above, axis) * share
    return maps


def segment(
    image: Image.Image,
    session: onnxruntime.InferenceSession,
    reject: bool = TASK["reject_absent"],
) -> np.ndarray:
    """Give a mask of ids, 0 where no class is, for an image of Pillow."""
    image = ImageOps.exif_transpose(image).convert("RGB")
    filled, height, width = fit(image)
    logits, *alone = (each[:, :height, :width] for each in session.run(None, {"image": filled}))
    judging = alone[0] if alone else logits  # the comparison alone tells what is there
    highest = np.sort(judging.reshape(len(judging), -1), axis=1)
    count = max(1, round(TASK["highest"] * highest.shape[1]))
    scores = highest[:, -count:].mean(axis=1)
    rules = TASK["rules"]
    scale = np.array([(rule["slope"], rule["shift"]) for rule in rules], np.float32)
    own = enlarge(logits, image.height, image.width)
    scaled = own * scale[:, :1, None] + scale[:, 1:, None]
    top = np.maximum(scaled.max(axis=0), 0)
    shares = np.exp(scaled - top) / (np.exp(-top) + np.exp(scaled - top).sum(axis=0))
    margins = shares - np.array([rule["threshold"] for rule in rules])[:, None, None]
    for number, rule in enumerate(rules):
        if reject and rule["presence"] is not None and scores[number] < rule["presence"]:
            margins[number] = -1
    return np.where(margins.max(axis=0) > 0, margins.argmax(axis=0) + 1, 0).astype(np.uint8)


if __name__ == "__main__":
    if len(sys.argv) != 3 or Image.open(sys.argv[1]).mode.startswith(("I", "F")):
        sys.exit("usage: python example.py photo.jpg mask.png (8 bits a channel)")
    mask = segment(Image.open(sys.argv[1]), onnxruntime.InferenceSession(HERE / "query.onnx"))
    single = len(TASK["classes"]) == 1  # white is the class, as svfseg predict writes it
    Image.fromarray(mask * 255 if single else mask).save(sys.argv[2])
    print(f"{100 * (mask > 0).mean():.1f} % of {sys.argv[1]} -> {sys.argv[2]}")
