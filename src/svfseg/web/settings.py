"""Settings of the page and of the service."""

from dataclasses import dataclass, field

from svfseg.web.limits import Limits


@dataclass(frozen=True)
class PageSettings:
    """How the page runs.

    Attributes:
        limits: what a request may be.
        max_pixels: largest number of pixels of an image.
        model: see `svfseg.FewShotSegmenter`.
        device: auto, cpu, cuda, mps.
    """

    limits: Limits = field(default_factory=Limits)
    max_pixels: int = 60_000_000
    model: str = "default"
    device: str = "auto"


@dataclass(frozen=True)
class ServiceSettings:
    """How a service runs.

    Attributes:
        limits: what a request may be.
        max_pixels: largest number of pixels of one image; the images of a fit may have eight times
            as many together.
        model: base model of all tasks.
        device: auto, cpu, cuda, mps.
        workers: number of fits and predictions that are computed at once; from two on, one thread
            is for fits alone, and predictions do not wait for a fit.
        keep: largest number of tasks in memory.
    """

    limits: Limits = field(default_factory=Limits)
    max_pixels: int = 40_000_000
    model: str = "default"
    device: str = "auto"
    workers: int = 1
    keep: int = 4
