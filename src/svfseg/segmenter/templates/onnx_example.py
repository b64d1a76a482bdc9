"""Outline the classes of an exported task in an image, without torch.

python example.py photo.jpg mask.png
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

here = Path(__file__).parent
task = json.loads((here / "task.json").read_text())
supports = np.load(here / "task.npz")
session = onnxruntime.InferenceSession(here / "query.onnx")
names = [spec.name for spec in session.get_inputs()[1:]]

if len(sys.argv) != 3 or Image.open(sys.argv[1]).mode.startswith(("I", "F")):
    sys.exit("usage: python example.py photo.jpg mask.png (8 bits a channel)")
image = Image.open(sys.argv[1]).convert("RGB")
ratio = task["size"] / max(image.size)
small = image.resize(
    [max(8, int(side * ratio) // 8 * 8) for side in image.size], Image.Resampling.BILINEAR
)
square = np.zeros((1, 3, task["size"], task["size"]), np.float32)
square[0, :, : small.height, : small.width] = np.asarray(small, np.float32).transpose(2, 0, 1)

mask = np.zeros((image.height, image.width), np.uint8)
for number, threshold in enumerate(task["thresholds"], start=1):
    given = {name: supports[f"{number}/{name}"] for name in names}
    (found,) = session.run(None, {"image": square, **given})
    whole = Image.fromarray(found).resize([max(image.size)] * 2, Image.Resampling.BILINEAR)
    mask[np.asarray(whole)[: image.height, : image.width] > threshold] = number
Image.fromarray(mask * (255 // len(task["thresholds"]))).save(sys.argv[2])
print(f"{100 * (mask > 0).mean():.1f} % of {sys.argv[1]} -> {sys.argv[2]}")
