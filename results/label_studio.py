"""Label Studio's backend over HTTP on classes of Pascal VOC: predict, annotate, fit, predict again.

    python results/label_studio.py --root VOC2012

Starts `svfseg label-studio` with the real label-studio-ml, and asks it as Label Studio does. Of
each class, images of the val list that show it alone: one is annotated with its true mask, then
three more; 20 others are predicted after each. Mean IoU over these, in label_studio.json.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import numpy as np

from svfseg.data.pascal import pascal5i
from svfseg.web.labelstudio.rle import decode_mask, encode_mask

FOUND = Path(__file__).with_suffix(".json")
CLASSES, SEED, SUPPORTS, QUERIES = ("cow", "aeroplane"), 0, (0, 1, 4), 20
CONFIG = """<View><Image name="image" value="$image"/><BrushLabels name="tag" toName="image">
<Label value="{}"/></BrushLabels></View>"""


def measure(root: str, name: str) -> dict[str, object]:
    """Mean IoU after each number of annotated images, and the seconds from submitting to fitted."""
    index = pascal5i(root, ("val",))
    class_id = index.classes.index(name) + 1
    alone = [i for i, p in enumerate(index.pixels)
             if set(p) == {class_id} and p[class_id] >= index.min_pixels]  # fmt: skip
    chosen = np.random.default_rng((SEED, class_id)).permutation(alone)
    supports, queries = chosen[: SUPPORTS[-1]], chosen[SUPPORTS[-1] :][:QUERIES]
    config = CONFIG.format(name)
    project = {"id": 1, "label_config": config}

    def task(position: int) -> dict[str, object]:
        address = f"/data/local-files/?d={index.items[position]}.jpg"
        return {"id": int(position), "data": {"image": address}, "project": 1}

    rows = []
    words = ["--images", str(Path(root) / "JPEGImages"), "--port", "0", "--device", "cpu"]
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(
            [sys.executable, "-m", "svfseg", "label-studio", "--project", folder, *words],
            stderr=subprocess.PIPE, text=True,
        ) as server,
    ):  # fmt: skip
        try:
            url = address_of(server)
            version = ask(url, "/setup", {"project": "1.0", "schema": config})["model_version"]
            for done, count in zip((0, *SUPPORTS), SUPPORTS, strict=False):
                start = time.perf_counter()
                for position in supports[done:count]:
                    mask = index.load(position).mask == class_id
                    annotation = {"id": int(position), "result": [brushed(mask, name)]}
                    event = {"action": "ANNOTATION_CREATED", "project": project}
                    ask(url, "/webhook",
                        event | {"task": task(position), "annotation": annotation})  # fmt: skip
                before = version
                while count and version == before:
                    time.sleep(0.1)
                    version = ask(url, "/setup", {"project": "1.0", "schema": config})[
                        "model_version"
                    ]
                seconds = time.perf_counter() - start
                request = {"tasks": [task(i) for i in queries], "project": "1.0", "params": {}}
                results = ask(url, "/predict", request)["results"] or [{"result": []}] * QUERIES
                shares = [
                    iou(result["result"], index.load(position).mask, class_id)
                    for position, result in zip(queries, results, strict=True)
                ]
                rows.append({
                    "annotated": count, "model_version": version,
                    "iou": round(float(np.mean(shares)), 4),
                    "images_with_a_mask": sum(bool(r["result"]) for r in results),
                    "seconds_to_fitted": round(seconds, 1) if count else None,
                })  # fmt: skip
                print(name, rows[-1], flush=True)
        finally:
            server.terminate()
    return {"class": name, "images": QUERIES, "after": rows}


def address_of(server: subprocess.Popen[str]) -> str:
    assert server.stderr is not None
    for line in server.stderr:
        if found := re.search(r"http://\S+", line):
            return found[0]
        print(line, end="", file=sys.stderr)
    raise RuntimeError("the server stopped before it listened")


def ask(url: str, path: str, body: object) -> dict[str, object]:
    request = urllib.request.Request(
        url + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=300) as answer:
        return json.load(answer)


def brushed(mask: np.ndarray, name: str) -> dict[str, object]:
    height, width = mask.shape
    return {
        "id": "r1", "from_name": "tag", "to_name": "image", "type": "brushlabels",
        "original_width": width, "original_height": height, "image_rotation": 0,
        "value": {"format": "rle", "rle": encode_mask(mask), "brushlabels": [name]},
    }  # fmt: skip


def iou(results: list, mask: np.ndarray, class_id: int) -> float:
    found = np.zeros(mask.shape, bool)
    for result in results:
        found |= decode_mask(result["value"]["rle"], *mask.shape)
    target, known = mask == class_id, mask != 255
    return float((found & target).sum() / ((found | target) & known).sum())


def table() -> str:
    """Mean IoU by class and number of annotated images."""
    text = ["| class | nothing annotated | 1 image | 4 images |", "|---|---|---|---|"]
    for found in json.loads(FOUND.read_text())["classes"]:
        cells = [f"{100 * row['iou']:.1f}" for row in found["after"][1:]]
        text.append(f"| {found['class']} | no predictions | {' | '.join(cells)} |")
    return "\n".join(text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", default="VOC2012")
    given = parser.parse_args()
    found = {
        "command": "python results/label_studio.py --root VOC2012",
        "seed": SEED,
        "classes": [measure(given.root, name) for name in CLASSES],
    }
    FOUND.write_text(json.dumps(found, indent=1) + "\n")
    print(table())
