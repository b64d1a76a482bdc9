"""The threads in which the service fits and predicts."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")


class Work:
    """Threads in which torch computes, so that the event loop is free to answer.

    Args:
        workers: number of threads; from two on, one of them is for fits.
    """

    def __init__(self, workers: int) -> None:
        self.predicting = ThreadPoolExecutor(max(1, workers - 1), "predict")
        self.fitting = self.predicting if workers == 1 else ThreadPoolExecutor(1, "fit")
        self._jobs: set[Future[Any]] = set()

    def __len__(self) -> int:
        """Give the number of jobs that run or wait."""
        return len(self._jobs)

    async def run(self, threads: Executor, job: Callable[[], T]) -> T:
        """Await a job; one that is cancelled before its turn never runs."""
        future = threads.submit(job)
        self._jobs.add(future)
        future.add_done_callback(self._jobs.discard)
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """Start no further job; the running ones go on."""
        for threads in (self.predicting, self.fitting):
            threads.shutdown(wait=False, cancel_futures=True)
