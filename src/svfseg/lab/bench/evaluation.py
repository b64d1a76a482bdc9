"""Time evaluation with shared features against every episode anew, and the ceiling of sharing."""

import time
from collections import Counter
from collections.abc import Callable, Sequence

import torch
from torch.utils.flop_counter import FlopCounterMode

from svfseg.config import BackboneConfig, DataConfig, ModelConfig
from svfseg.data import Episode, draw_test_list, novel_split, test_index
from svfseg.lab.bench.measure import Row
from svfseg.lab.evaluation import score
from svfseg.lab.runtime import make_accelerator
from svfseg.models import build_model
from svfseg.models.head import Head

BARS = {1: 2.5, 5: 6.0}


def bench_eval(
    root: str,
    backbone: str = "resnet50",
    size: int = 225,
    shots: Sequence[int] = (1, 5),
    episodes: int = 1000,
    uncached: int = 100,
    cache: int = 4096,
    small: int = 0,
    device: str = "cpu",
    report: Callable[[str], None] = lambda _: None,
) -> list[Row]:
    """Time, for each number of shots: uncached, shared, and shared within a small memory.

    Args:
        root: folder of VOC2012; fold 0 of its val list is evaluated.
        backbone: random weights serve.
        size: side of the square.
        shots: supports of an episode.
        episodes: number of episodes of the list.
        uncached: episodes of the list, evenly spaced, that the uncached path runs (and the small
            bound, both without anything shared between them but what the bound allows): its
            time an episode does not depend on the others.
        cache: MiB of the shared path.
        small: MiB of the small bound, small enough that views are computed again.
        device: where.
        report: called with a line before each arm.
    """
    torch.manual_seed(0)
    config = ModelConfig(backbone=BackboneConfig(backbone, "none", 8))
    accelerator = make_accelerator(device)
    model = build_model(config).eval().to(accelerator.device)
    source = novel_split(test_index(DataConfig(root=root, size=size)), 0)
    rows: list[Row] = []
    for shot in shots:
        test_list = draw_test_list(source, shot, 321, episodes)
        some = test_list[:: max(1, episodes // uncached)][:uncached]
        speeds = {}
        meters = {}
        for arm, chosen, bound in (
            ("uncached", some, None),
            ("shared", test_list, cache),
            (f"shared, {small} MiB", some, small),
            ("shared, some", some, cache),
        ):
            report(f"{shot}-shot, {arm}: {len(chosen)} episodes")
            passes: Counter[str] = Counter()
            start = time.perf_counter()
            (meters[arm],) = score(
                model, source, [chosen], size, accelerator, cache=bound, passes=passes
            )
            seconds = time.perf_counter() - start
            speeds[arm] = len(chosen) / seconds
            rows.append(
                {
                    "backbone": backbone, "side": size, "shot": shot, "arm": arm,
                    "episodes": len(chosen), "seconds": seconds,
                    "episodes per second": speeds[arm], "passes": dict(passes),
                }
            )  # fmt: skip
            if arm == "shared":
                ceiling = _ceiling(model, size, shot, test_list, passes)
        bounded, free = (meters[arm] for arm in (f"shared, {small} MiB", "shared, some"))
        same = torch.equal(bounded.intersection, free.intersection)
        same = same and torch.equal(bounded.union, free.union)
        # one image a pass against a batch of supports: other roundings, so a pixel may flip
        flipped = (meters["uncached"].intersection - free.intersection).abs().sum()
        rows.append(
            {
                "backbone": backbone, "side": size, "shot": shot, "arm": "shared / uncached",
                "speed": speeds["shared"] / speeds["uncached"], "ceiling": ceiling,
                "metrics identical at both bounds": same,
                "pixels of difference to forward": int(flipped),
                "pixels": int(free.union.sum()),
                "bars": {"speed": BARS.get(shot)},
            }
        )  # fmt: skip
        rows.append(
            {
                "backbone": backbone, "side": size, "shot": shot, "arm": "small bound / uncached",
                "speed": speeds[f"shared, {small} MiB"] / speeds["uncached"],
                "bars": {"speed": 0.9},
            }
        )  # fmt: skip
    return rows


def _ceiling(
    model: Head, size: int, shot: int, episodes: Sequence[Episode], passes: Counter[str]
) -> float:
    """Operations of the uncached path over those of the shared one, head included."""
    device = next(model.parameters()).device
    image = 255 * torch.rand(1, 3, size, size, device=device)
    mask = torch.zeros(size, size, device=device)
    mask[size // 4 : 3 * size // 4, size // 4 : 3 * size // 4] = 1  # a quarter of the image
    with torch.inference_mode():
        encode = model.encode
        query = _operations(lambda: encode(image, []))
        support = _operations(lambda: encode(image, [mask], query=False))
        both = _operations(lambda: encode(image, [mask]))
        query_features, (support_features,) = encode(image, [mask])
        head = _operations(
            lambda: model.decode([query_features], [[support_features] * shot], (size, size))
        )
    shallow = query + support - both
    count = len(episodes)
    shared = (
        passes["shallow"] * shallow
        + passes["query"] * (query - shallow)
        + passes["support"] * (support - shallow)
        + count * head
    )
    return count * (query + shot * support + head) / shared


def _operations(run: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter:
        run()
    return int(counter.get_total_flops())
