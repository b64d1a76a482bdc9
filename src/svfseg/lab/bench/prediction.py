"""Time a further query with the supports encoded once, and with the supports encoded again."""

from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from svfseg.config import BackboneConfig, ModelConfig
from svfseg.lab.bench.measure import (
    Row,
    alternate,
    bounds,
    machine_rates,
    paired,
    resident_bytes,
    spread,
)
from svfseg.models import build_model


def bench_predict(
    backbones: tuple[str, ...] = ("tf_efficientnet_lite0", "resnet50"),
    size: int = 473,
    stride: int = 8,
    repeats: int = 7,
    device: str = "cpu",
) -> list[Row]:
    """Time both paths of each backbone with the baseline head, and give their ratio."""
    rows: list[Row] = []
    rates = machine_rates(device)
    for name in backbones:
        torch.manual_seed(0)
        config = ModelConfig(backbone=BackboneConfig(name, "none", stride))
        model: Any = build_model(config).eval().to(device)
        image = 255 * torch.rand(1, 3, size, size, device=device)
        mask = torch.zeros(size, size, device=device)
        mask[size // 4 : 3 * size // 4, size // 4 : 3 * size // 4] = 1
        with torch.inference_mode():
            support_features = model.encode(image, [mask], query=False)[1]

            def query(
                model: Any = model, image: Any = image, support_features: Any = support_features
            ) -> torch.Tensor:
                query_features, _ = model.encode(image, [])
                logits: torch.Tensor = model.decode(
                    [query_features], [support_features], (size, size)
                )
                return logits

            def both(model: Any = model, image: Any = image, mask: Any = mask) -> torch.Tensor:
                logits: torch.Tensor = model(image, image[None], mask[None, None])
                return logits

            times = alternate({"two images": both, "after set_support": query}, repeats, device)
            for arm, run in (("two images", both), ("after set_support", query)):
                with FlopCounterMode(display=False) as counter:
                    run()
                timing = spread(times[arm])
                done = counter.get_total_flops()
                rows.append(
                    {
                        "backbone": name, "output stride": stride, "side": size, "arm": arm,
                        "operations": done, **timing,
                        **bounds(done, resident_bytes(model), rates),
                    }
                )  # fmt: skip
        rows.append(
            {
                "backbone": name, "output stride": stride, "side": size,
                "arm": "after set_support / two images",
                "seconds": paired(times["after set_support"], times["two images"]),
                "operations": rows[-1]["operations"] / rows[-2]["operations"],
                "bars": {"seconds": 0.6},
            }
        )  # fmt: skip
    return rows
