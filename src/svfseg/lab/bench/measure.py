"""Clocks, memory and the rates of the machine, for all benchmarks."""

import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

Row = dict[str, Any]
T = TypeVar("T")


def alternate(
    arms: Mapping[str, Callable[[], object]], repeats: int, device: str = "cpu", warm: int = 2
) -> dict[str, list[float]]:
    """Time every arm, all in turn in each round, so that a slow moment meets all of them.

    Args:
        arms: name -> what to time.
        repeats: rounds that count.
        device: waited for before the clock is read.
        warm: rounds before, that do not count.
    """
    times: dict[str, list[float]] = {name: [] for name in arms}
    for number in range(warm + repeats):
        for name, run in arms.items():
            _wait(device)
            start = time.perf_counter()
            run()
            _wait(device)
            if number >= warm:
                times[name].append(time.perf_counter() - start)
    return times


def spread(times: Iterable[float]) -> Row:
    """Compute median, minimum and maximum of some seconds."""
    values = list(times)
    return {"seconds": statistics.median(values), "min": min(values), "max": max(values)}


def paired(ours: list[float], other: list[float]) -> float:
    """Compute the median over rounds of ours / other, so that slow rounds cancel."""
    return statistics.median(a / b for a, b in zip(ours, other, strict=True))


def saved_bytes(model: nn.Module, forward: Callable[[], T]) -> tuple[int, T]:
    """Count the bytes kept for the backward pass; also give the outputs."""
    own = {_storage(t) for t in (*model.parameters(), *model.buffers())}
    sizes: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        if _storage(tensor) not in own:
            sizes[_storage(tensor)] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        outputs = forward()
    return sum(sizes.values()), outputs


def resident_bytes(model: nn.Module) -> int:
    """Count the bytes of parameters and buffers."""
    return sum(t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers()))


def machine_rates(device: str = "cpu", dtype: torch.dtype = torch.float32) -> Row:
    """Measure the rates that bound everything here: a large convolution, and a large copy.

    A convolution and not a matrix product: on CPUs they come from different libraries, and the
    convolution's is often the faster.
    """
    x = torch.randn(1, 512, 64, 64, device=device, dtype=dtype)
    x = x.contiguous(memory_format=torch.channels_last)
    w = torch.randn(512, 512, 3, 3, device=device, dtype=dtype)
    w = w.contiguous(memory_format=torch.channels_last)
    big = torch.randn(2**25, device=device)
    out = torch.empty_like(big)
    with torch.no_grad():
        times = alternate(
            {
                "conv": lambda: nn.functional.conv2d(x, w, padding=1),
                "copy": lambda: out.copy_(big),
            },
            7,
            device,
        )
    return {
        "operations_per_second": 2 * 64 * 64 * 512 * 512 * 9 / min(times["conv"]),
        "bytes_per_second": 2 * 4 * big.numel() / min(times["copy"]),
    }


def bounds(operations: int, bytes_: int, rates: Row) -> Row:
    """Compute the seconds that no program on this machine can go below, by either rate.

    Args:
        operations: operations of the whole computation.
        bytes_: that must move at least: weights for each pass, and what is kept, there and back.
        rates: rates of `machine_rates`.
    """
    return {
        "operations bound": operations / rates["operations_per_second"],
        "bytes bound": bytes_ / rates["bytes_per_second"],
    }


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()
