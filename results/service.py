"""What the service answers under load: a task with three supports at 320 pixels, photographs.

    python results/service.py run         writes service.json; wants an idle machine
    python results/service.py table       prints the table of docs/service.md

The clients run on the same machine, in a process of their own, each asking again as soon as it has
its answer. Beside them one client asks for /health twenty times a second.
"""

import argparse
import io
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import torch
from PIL import Image
from skimage import data

from svfseg import FewShotSegmenter
from svfseg.lab.runtime import environment

RESULT = Path(__file__).with_suffix(".json")
CLIENTS = (1, 4, 16)
SIZE, SIDES = 320, (500, 375)
SERVER = "from svfseg.cli.web import run_serve; import sys; run_serve(sys.argv[1:])"


def photographs() -> list[Image.Image]:
    made = (data.chelsea, data.coffee, data.astronaut, data.rocket, data.immunohistochemistry)
    return [Image.fromarray(each()).resize(SIDES) for each in made]


def fit(folder: Path) -> FewShotSegmenter:
    image = np.asarray(photographs()[0])
    mask = np.zeros(image.shape[:2], np.uint8)
    mask[25:360, 90:365] = 1
    shown = [image, image[:, ::-1], image[:300, 40:440]]
    marked = [mask, mask[:, ::-1], mask[:300, 40:440]]
    segmenter = FewShotSegmenter(size=SIZE, device="cpu").fit(shown, marked, ["cat"])
    segmenter.save(folder / "cat.svf")
    return segmenter


def encoded(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=90)
    return file.getvalue()


def measured(times: list[float]) -> dict[str, float]:
    return {f"p{p}_ms": round(1000 * float(np.percentile(times, p)), 1) for p in (50, 99)}


def clock(call, *given) -> float:
    start = time.perf_counter()
    call(*given)
    return time.perf_counter() - start


def load(address: str, files: list[bytes], clients: int, requests: int) -> dict[str, object]:
    """Seconds of each request, and of /health meanwhile."""
    over, healthy = threading.Event(), []

    with httpx.Client(base_url=address, timeout=300) as session:

        def ask(number: int) -> None:
            sent = {"image": ("photo.jpg", files[number % len(files)])}
            session.post("/tasks/cat/predict", files=sent).raise_for_status()

        def watch() -> None:
            while not over.wait(0.05):
                healthy.append(clock(lambda: session.get("/health").raise_for_status()))

        for number in range(5):
            ask(number)
        watching = threading.Thread(target=watch)
        watching.start()
        start = time.perf_counter()
        with ThreadPoolExecutor(clients) as pool:
            times = list(pool.map(lambda number: clock(ask, number), range(requests)))
        seconds = time.perf_counter() - start
        over.set()
        watching.join()
    return {
        "clients": clients,
        "requests": requests,
        "per_second": round(requests / seconds, 2),
        **measured(times),
        "health_p99_ms": measured(healthy)["p99_ms"],
    }


def run(requests: int, threads: int) -> None:
    torch.set_num_threads(threads)
    before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        segmenter = fit(Path(folder))
        files = [encoded(image) for image in photographs()]
        arrays = [np.asarray(image) for image in photographs()]
        for array in arrays:
            segmenter.predict(array)
        direct = [clock(segmenter.predict, arrays[i % 5]) for i in range(requests)]
        server = subprocess.Popen(
            [sys.executable, "-c", SERVER, "--tasks", folder, "--port", "0", "--device", "cpu"],
            stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        )  # fmt: skip
        try:
            address = server.stdout.readline().split(" on ")[1].split()[0]
            rows = [load(address, files, clients, requests) for clients in CLIENTS]
        finally:
            server.terminate()
            server.wait()
    machine = {
        **environment(),
        "platform": f"{platform.system()} {platform.machine()}",
        "command": f"python results/service.py run --requests {requests} --threads {threads}",
        "cores": os.cpu_count(),
        "load_average_before": round(before, 1),
    }
    result = {"environment": machine, "direct": measured(direct), "rows": rows}
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(table())


def table() -> str:
    result = json.loads(RESULT.read_text())
    lines = [
        "| clients | requests a second | p50, ms | p99, ms | /health meanwhile: p99, ms |",
        "|---|---|---|---|---|",
        f"| no service: `predict` in Python | {1000 / result['direct']['p50_ms']:.1f} "
        f"| {result['direct']['p50_ms']:.0f} | {result['direct']['p99_ms']:.0f} | |",
    ]
    lines += [
        f"| {row['clients']} | {row['per_second']:.1f} | {row['p50_ms']:.0f} "
        f"| {row['p99_ms']:.0f} | {row['health_p99_ms']:.0f} |"
        for row in result["rows"]
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("run", "table"))
    parser.add_argument("--requests", type=int, default=200, help="of each number of clients")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of torch")
    given = parser.parse_args()
    if given.what == "run":
        run(given.requests, given.threads)
    else:
        print(table())
