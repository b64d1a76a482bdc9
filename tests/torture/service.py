"""Strangers at the service and the page: odd requests, crowds, silent connections, large uploads.

python -m tests.torture.service FOLDER EXAMPLES SECONDS CONNECTIONS
"""

import contextlib
import io
import json
import os
import random
import re
import resource
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
from PIL import Image

from svfseg import FewShotSegmenter
from tests.segmenter.scenes import scene
from tests.torture.probe import p99, probed

CLIENTS = 64
# Answers of a server that has a bug.
BUGS = {500, 501, 502}


class Server:
    """A command that serves, in a process of its own.

    Args:
        words: the command.
        log: where its lines go.
    """

    def __init__(self, words: list[str], log: Path) -> None:
        self._log = log.open("wb")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "svfseg", *words],
            stdout=subprocess.PIPE, stderr=self._log, env={**os.environ, "OMP_NUM_THREADS": "1"},
            # as many files as systems usually let a process open
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024)),
        )  # fmt: skip
        assert self.process.stdout is not None
        found = None
        while found is None:
            line = self.process.stdout.readline().decode()
            assert line, log.read_text()
            found = re.search(r"http://[^/]+:(\d+)", line)
        self.port = int(found[1])
        self.base = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._empty, daemon=True).start()
        for _ in range(600):
            with contextlib.suppress(httpx.HTTPError):
                httpx.get(self.base, timeout=1)
                return
            time.sleep(0.1)
        raise TimeoutError(log.read_text())

    def memory(self) -> int:
        """Bytes that the process holds."""
        return int(psutil.Process(self.process.pid).memory_info().rss)

    def peak(self, reset: bool = False) -> int:
        """The most bytes that it has held, since the last reset."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        if reset:
            Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024

    def stop(self) -> int:
        """End it as a system does, and give its status."""
        self.process.terminate()
        try:
            return self.process.wait(60)
        finally:
            self._log.close()

    def _empty(self) -> None:
        assert self.process.stdout is not None
        for _ in self.process.stdout:
            pass


def encoded(array: np.ndarray, kind: str = "PNG") -> bytes:
    """An image as a file."""
    content = io.BytesIO()
    Image.fromarray(array).save(content, kind)
    return content.getvalue()


def build(folder: Path) -> None:
    """A folder of one task, and pictures."""
    (folder / "tasks").mkdir(parents=True)
    one = scene(0)
    segmenter = FewShotSegmenter(seconds=0, size=96).fit([one.image], [one.mask], ["disc"])
    segmenter.save(folder / "tasks/disc.svf")


def odd_requests(
    base: str, schema: dict[str, Any], examples: int, known: dict[str, Any]
) -> dict[str, Any]:
    """Requests that a description of an API allows, and those that it does not.

    Args:
        base: address of the server.
        schema: the description (OpenAPI).
        examples: of each operation, of those that are allowed, and as many of the others.
        known: what is there, by parameters of paths; every second request is for it.
    """
    import schemathesis
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis.errors import Unsatisfiable
    from schemathesis import GenerationMode

    counts: Counter[str] = Counter()
    asked: dict[str, int] = {}
    wrong: list[Any] = []
    quiet = settings(
        max_examples=examples, database=None, derandomize=True, deadline=None,
        suppress_health_check=list(HealthCheck), phases=[Phase.explicit, Phase.generate],
    )  # fmt: skip
    for result in schemathesis.openapi.from_dict(schema).get_all_operations():
        operation = result.ok()
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):

            @quiet
            @given(case=operation.as_strategy(generation_mode=mode))
            def ask(case: Any) -> None:
                if counts.total() % 2 and case.method != "DELETE":
                    case.path_parameters.update(
                        (key, value) for key, value in known.items() if key in case.path_parameters
                    )
                try:
                    answer = case.call(base_url=base, timeout=150)
                except Exception as error:  # the client's own checks
                    counts["not sent"] += 1
                    if "timed out" in str(error).lower():
                        wrong.append([case.method, case.formatted_path, "no answer"])
                    return
                counts[str(answer.status_code)] += 1
                problem = _problem(answer.status_code, answer.content)
                if problem:
                    wrong.append([case.method, case.formatted_path, problem])

            before = counts.total()
            with contextlib.suppress(Unsatisfiable):  # of what asks for nothing, all are right
                ask()
            asked[f"{operation.label} {mode.value}"] = counts.total() - before
    return {"answers": dict(counts), "asked": asked, "wrong": wrong[:50]}


def _problem(status: int, content: bytes) -> str | None:
    if status in BUGS:
        return f"status {status}: {content[:200]!r}"
    if status < 400:
        return None
    try:
        line = json.loads(content)["error"]
    except (ValueError, KeyError, TypeError):
        return None if not content else f"status {status} without a line: {content[:200]!r}"
    return None if line and "\n" not in line else f"status {status} with {line!r}"


def crowd(server: Server, seconds: float, clients: int = CLIENTS) -> dict[str, Any]:
    """Clients that predict, send what is no picture, fit, list and break off, all at once."""
    counts: Counter[str] = Counter()
    wrong: list[str] = []
    one = scene(1)
    picture, mask = encoded(one.image, "JPEG"), encoded(one.mask * 255)
    end = time.monotonic() + seconds

    def work(number: int) -> None:
        rng = random.Random(number)
        with httpx.Client(base_url=server.base, timeout=150) as client:
            while time.monotonic() < end:
                way = rng.random()
                try:
                    if way < 0.6:
                        data = picture if rng.random() < 0.8 else rng.randbytes(5000)
                        answer = client.post("/tasks/disc/predict", files={"image": data})
                    elif way < 0.7:
                        answer = client.get("/tasks")
                    elif way < 0.75:
                        answer = client.put("/tasks/x/file", content=rng.randbytes(20_000))
                    elif way < 0.78:
                        answer = client.post(
                            f"/tasks/t{number % 4}/fit", data={"classes": "disc", "seconds": "0"},
                            files=[("images", picture), ("masks", mask)],
                        )  # fmt: skip
                    elif way < 0.85:
                        with socket.create_connection(("127.0.0.1", server.port), 5) as broken:
                            broken.sendall(b"POST /tasks/disc/predict HTTP/1.1\r\nHost: localhost\r\n"
                                           b"Content-Length: 100000\r\n\r\nabc")  # fmt: skip
                        counts["broken off"] += 1
                        continue
                    else:
                        answer = client.get(f"/tasks/{'x' * rng.randrange(1, 50)}")
                except (httpx.HTTPError, OSError) as error:
                    counts[type(error).__name__] += 1
                    continue
                counts[str(answer.status_code)] += 1
                problem = _problem(answer.status_code, answer.content)
                if problem:
                    wrong.append(problem)

    httpx.post(f"{server.base}/tasks/disc/predict", files={"image": picture}, timeout=60)
    before = server.memory()
    with probed(f"{server.base}/health") as health:
        threads = [threading.Thread(target=work, args=(number,)) for number in range(clients)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
    time.sleep(2)
    return {
        "clients": clients, "seconds": seconds, "answers": dict(counts), "wrong": wrong[:50],
        "memory before": before, "memory after": server.memory(),
        "health p99 (s)": round(p99(health), 3), "health asked": len(health),
    }  # fmt: skip


def silent(server: Server, number: int, seconds: float) -> dict[str, Any]:
    """Connections that say nothing, and come again as soon as they are closed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, number + 500), hard))
    opened: list[socket.socket] = []
    made, end = 0, time.monotonic() + seconds
    try:
        with probed(f"{server.base}/health") as health:
            while time.monotonic() < end:
                while len(opened) < number and time.monotonic() < end:
                    try:
                        each = socket.create_connection(("127.0.0.1", server.port), timeout=2)
                    except OSError:
                        break
                    each.setblocking(False)
                    opened.append(each)
                    made += 1
                for each in list(opened):
                    with contextlib.suppress(BlockingIOError):
                        try:
                            closed = each.recv(1) == b""
                        except ConnectionError:
                            closed = True
                        if closed:
                            each.close()
                            opened.remove(each)
                time.sleep(0.05)
    finally:
        for each in opened:
            each.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    late = [f"{s:.1f} s" for s in health if s > 1]
    return {
        "at once": number, "opened": made, "health asked": len(health),
        "health p99 (s)": round(p99(health), 3), "late": late[:20],
        "wrong": late[:20] if p99(health) > 1 else [],
    }  # fmt: skip


def large(server: Server) -> dict[str, Any]:
    """The largest uploads that the limits allow; how much memory each takes."""
    side = 6320  # just below 40 million pixels
    noise = np.random.default_rng(0).integers(0, 255, (600, 600, 3), np.uint8)
    flat = np.zeros((side, side, 3), np.uint8)
    deep = encoded(np.tile(noise, (10, 10, 1)), "JPEG")
    uploads = {
        "40 megapixels, PNG": encoded(flat),
        "36 megapixels, JPEG": deep,
        "1 bit, 40 megapixels": encoded(np.zeros((side, side), bool)),
        "20000x1": encoded(np.zeros((1, 20000, 3), np.uint8)),
        "60000x600": encoded(np.zeros((600, 60000), np.uint8)),
        "1x60000": encoded(np.zeros((60000, 1, 3), np.uint8)),
        "noise of 60 MB": np.random.default_rng(0).bytes(60_000_000),
    }
    answers: dict[str, Any] = {}
    wrong = []
    for name, data in uploads.items():
        server.peak(reset=True)
        before = server.memory()
        answer = httpx.post(f"{server.base}/tasks/disc/predict", files={"image": data}, timeout=150)
        taken = server.peak() - before
        answers[name] = {"status": answer.status_code, "megabytes": round(taken / 1e6)}
        problem = _problem(answer.status_code, answer.content)
        if problem or taken > 1_000_000_000:
            wrong.append([name, problem, taken])
    return {"uploads": answers, "wrong": wrong}


def sweep(folder: Path, examples: int, seconds: float, connections: int) -> dict[str, Any]:
    """All of it, on the service; odd requests on the page too."""
    from fastapi.openapi.utils import get_openapi

    from svfseg.web.app import create_page
    from svfseg.web.project import PageProject

    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "tasks").is_dir():
        build(folder)
    found: dict[str, Any] = {}
    server = Server(
        ["serve", "--tasks", str(folder / "tasks"), "--port", "0"], folder / "service.log"
    )
    try:
        found["silent connections"] = silent(server, connections, seconds / 4)
        found["large uploads"] = large(server)
        found["a crowd"] = crowd(server, seconds)
        schema = httpx.get(f"{server.base}/openapi.json").json()
        found["odd requests to the service"] = odd_requests(
            server.base, schema, examples, {"name": "disc"}
        )
    finally:
        status = server.stop()
    found["the service ends with"] = status
    log = (folder / "service.log").read_text(errors="replace")
    found["tracebacks of the service"] = log.count("Traceback")
    with contextlib.closing(PageProject(folder / "empty")) as project:
        schema = get_openapi(title="page", version="1", routes=create_page(project).routes)
    words = ["app", str(folder / "project"), "--no-browser", "--port", "0"]
    page = Server(words, folder / "page.log")
    try:
        with httpx.Client(base_url=page.base, timeout=60) as client:
            client.put("/api/classes", json=["disc"])
            client.post("/api/images", files={"images": ("a.png", encoded(scene(0).image))})
        found["odd requests to the page"] = odd_requests(
            page.base, schema, examples, {"name": "a.png", "class_id": 1}
        )
    finally:
        found["the page ends with"] = page.stop()
    log = (folder / "page.log").read_text(errors="replace")
    found["tracebacks of the page"] = log.count("Traceback")
    return found


if __name__ == "__main__":
    place, count, duration, most = sys.argv[1:]
    print(
        json.dumps(sweep(Path(place).resolve(), int(count), float(duration), int(most)), indent=1)
    )
