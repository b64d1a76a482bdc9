"""Time and memory of indexing annotations of COCO's real size, on a synthetic file.

    python results/coco_index.py            # writes results/coco_index.json

The file has 82,081 images and 600,000 annotations, polygons of 43 corners each (as in
instances_train2017 of a sample of COCO), in random places: about 450 MB.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

IMAGES, ANNOTATIONS, CORNERS, CLASSES = 82_081, 600_000, 43, 80
HERE = Path(__file__).parent


def write(root: Path) -> Path:
    """A synthetic instances_train2014.json, written piece by piece."""
    rng = np.random.default_rng(0)
    path = root / "annotations" / "instances_train2014.json"
    path.parent.mkdir(parents=True)
    numbers = [*range(1, 12), *range(13, 26), *range(27, 29), *range(31, 45), *range(46, 66), 67,
               70, *range(72, 83), *range(84, 91)]  # fmt: skip
    with path.open("w") as file:
        categories = [{"id": n, "name": f"class {n}"} for n in numbers]
        file.write(f'{{"info": {{}}, "categories": {json.dumps(categories)}, "images": [')
        for i in range(IMAGES):
            name = f"COCO_train2014_{i:012d}.jpg"
            row = {"id": i, "file_name": name, "height": 480, "width": 640, "license": 1}
            file.write(("," if i else "") + json.dumps(row))
        file.write('], "annotations": [')
        angles = np.linspace(0, 2 * np.pi, CORNERS, endpoint=False)
        for i in range(ANNOTATIONS):
            image = i if i < IMAGES else int(rng.integers(IMAGES))
            radius = np.exp(rng.normal(3.6, 0.8)) * rng.uniform(0.7, 1.3, CORNERS)
            x = np.clip(rng.uniform(0, 640) + radius * np.cos(angles), 0, 640)
            y = np.clip(rng.uniform(0, 480) + radius * np.sin(angles), 0, 480)
            outline = np.stack([x, y], 1).round(2).ravel().tolist()
            row = {"segmentation": [outline], "area": 1.0, "iscrowd": 0, "image_id": image,
                   "bbox": [0, 0, 1, 1], "category_id": numbers[i % CLASSES], "id": i}  # fmt: skip
            file.write(("," if i else "") + json.dumps(row))
        file.write("]}")
    return path


def child(root: str) -> None:
    """Index once and say what it took."""
    from svfseg.data.coco import coco20i

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    index = coco20i(root, ("train2014",))
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"images": len(index.items), "seconds": round(seconds, 2),
                      "peak MB of the process": peak // 1024,
                      "of these before": before // 1024}))  # fmt: skip


def main() -> None:
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder))
        size = path.stat().st_size // 2**20
        print(f"wrote {size} MiB", flush=True)
        for what in ("first time", "from the cache"):
            told = subprocess.run(
                [sys.executable, __file__, folder],
                env={**os.environ, "SVFSEG_CACHE": f"{folder}/cache"},
                capture_output=True, text=True, check=True,
            ).stdout  # fmt: skip
            rows.append({"what": what, "file MiB": size, "annotations": ANNOTATIONS,
                         **json.loads(told)})  # fmt: skip
            print(rows[-1], flush=True)
    (HERE / "coco_index.json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    child(sys.argv[1]) if len(sys.argv) > 1 else main()
