"""Time the factoring of a ResNet-50, against the bare LAPACK calls, and from the cache."""

import os
import tempfile
import time

import torch

from svfseg.config import BackboneConfig
from svfseg.lab.bench.measure import Row
from svfseg.models import build_backbone
from svfseg.svf import apply_svf, merge_svf
from svfseg.svf.apply import select_layers
from svfseg.svf.factorize import fold


def bench_factor(repeats: int = 3) -> list[Row]:
    """Time LAPACK alone, `apply_svf` at first, and `apply_svf` the second time."""
    torch.manual_seed(0)
    network = build_backbone(BackboneConfig("resnet50", "none", 8))
    weights = [layer.weight.detach() for _, layer in select_layers(network)]  # type: ignore[operator]
    times: dict[str, list[float]] = {"LAPACK alone": [], "first time": [], "second time": []}
    before = os.environ.get("SVFSEG_CACHE")
    try:
        for _ in range(repeats):
            with tempfile.TemporaryDirectory() as folder:
                os.environ["SVFSEG_CACHE"] = folder
                start = time.perf_counter()
                for weight in weights:
                    torch.linalg.svd(fold(weight).double(), full_matrices=False)
                times["LAPACK alone"].append(time.perf_counter() - start)
                for name in ("first time", "second time"):
                    start = time.perf_counter()
                    apply_svf(network)
                    times[name].append(time.perf_counter() - start)
                    merge_svf(network)
                    with torch.no_grad():  # merging rounds: the same bytes for the second time
                        for (_, layer), weight in zip(select_layers(network), weights, strict=True):
                            layer.weight.copy_(weight)  # type: ignore[operator]
    finally:
        if before is None:
            os.environ.pop("SVFSEG_CACHE", None)
        else:
            os.environ["SVFSEG_CACHE"] = before
    rows: list[Row] = [
        {
            "arm": name,
            "seconds": sorted(rounds)[len(rounds) // 2],
            "min": min(rounds),
            "max": max(rounds),
        }
        for name, rounds in times.items()
    ]
    ratio = sorted(a / b for a, b in zip(times["first time"], times["LAPACK alone"], strict=True))
    rows.append(
        {"arm": "first time / LAPACK", "seconds": ratio[len(ratio) // 2], "bars": {"seconds": 1.3}}
    )
    rows[2]["bars"] = {"seconds": 0.5}
    return rows
