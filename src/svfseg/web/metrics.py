"""The metrics of the service, for Prometheus."""

import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# The route of a request that none matched, or that was refused before.
NO_ROUTE = "none"
# A made-up method would make a metric of its own, and each stays in memory for good.
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
OTHER_METHOD = "other"


class Metrics:
    """The metrics of one application, in a registry of their own.

    Args:
        count_loaded: gives the number of tasks in memory.
        count_jobs: gives the number of fits and predictions that run or wait.
    """

    def __init__(self, count_loaded: Callable[[], int], count_jobs: Callable[[], int]) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter(
            "svfseg_requests", "Requests answered", ["method", "route", "status"], registry=registry
        )
        self.seconds = Histogram(
            "svfseg_request_seconds", "From the request's head to the answer's end", ["route"],
            buckets=(0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100), registry=registry,
        )  # fmt: skip
        self.images = Counter("svfseg_images", "Images predicted", registry=registry)
        Gauge("svfseg_tasks_loaded", "Tasks in memory", registry=registry).set_function(
            count_loaded
        )
        Gauge("svfseg_busy", "Fits and predictions running or waiting", registry=registry
              ).set_function(count_jobs)  # fmt: skip


class Meter:
    """ASGI middleware that counts every request, also the refused ones, so it is the outermost.

    Args:
        app: the application.
        metrics: where they are counted.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and count it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status, start = 500, time.perf_counter()

        async def answer(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self.app(scope, receive, answer)
        finally:
            # the route's template: each name of a task would make a metric of its own
            matched = scope.get("route")
            route = matched.path if isinstance(matched, Route) else NO_ROUTE
            method = scope["method"] if scope["method"] in METHODS else OTHER_METHOD
            self.metrics.requests.labels(method, route, status).inc()
            self.metrics.seconds.labels(route).observe(time.perf_counter() - start)
