"""Ask a server for one path five times a second, from a process of its own, until it is told to end.

python -m tests.torture.probe URL
"""

import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import httpx


@contextlib.contextmanager
def probed(url: str) -> Iterator[list[float]]:
    """Ask meanwhile; gives a list that holds the seconds of each answer in the end."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.torture.probe", url],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    process.stdout.readline()  # it has begun
    seconds: list[float] = []
    try:
        yield seconds
    finally:
        seconds += json.loads(process.communicate()[0].splitlines()[-1])


def p99(seconds: list[float]) -> float:
    """Give the time that 99 of 100 do not exceed; without any, no time is long enough."""
    return sorted(seconds)[max(0, int(0.99 * len(seconds)) - 1)] if seconds else float("inf")


def main(url: str) -> None:
    """Ask, and print the seconds; infinity stands for no answer."""
    over = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
    seconds: list[float] = []
    print("begun", flush=True)
    while not over.wait(0.2):
        start = time.perf_counter()
        try:
            httpx.get(url, timeout=30).raise_for_status()
            seconds.append(time.perf_counter() - start)
        except httpx.HTTPError:
            seconds.append(float("inf"))
    print(json.dumps(seconds))


if __name__ == "__main__":
    main(sys.argv[1])
