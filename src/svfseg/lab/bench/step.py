"""Measure a training step of a backbone: frozen, full, as in the paper, and with svfseg."""

import copy
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from svfseg.config import BackboneConfig
from svfseg.lab.bench.measure import (
    Row,
    alternate,
    bounds,
    machine_rates,
    paired,
    resident_bytes,
    saved_bytes,
    spread,
)
from svfseg.models import Backbone, build_backbone
from svfseg.svf import apply_svf, fuse, merge_svf
from svfseg.svf.layers import FactoredLayer
from svfseg.tuning.modules import stages_pattern

STAGES = (2, 3, 4)
# network -> (output stride, side, batch) of the figures that have bars, then of the others
SETTINGS = {
    "resnet50": (8, 256, 1),
    "resnet50_deep": (8, 257, 2),
    "vgg16_bn": (16, 256, 1),
    "tf_efficientnet_lite0": (16, 256, 2),
    "vit_small_patch16_224": (16, 224, 4),
}
# (figure, arm it is compared with) -> at most; for the two ResNets
BARS = {
    ("seconds", "floor"): 1.20,
    ("seconds", "full"): 0.80,
    ("seconds", "three-op"): 0.85,
    ("saved bytes", "three-op"): 0.20,
    ("saved bytes", "full"): 0.30,
    ("operations", "three-op"): 1.00,
    ("resident bytes", "floor"): 1.23,
}


class ThreeOperations(nn.Module):
    """The paper's layer in plain PyTorch: V, scale, U, each with its own saved input."""

    def __init__(self, layer: FactoredLayer) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        """Compute what the layer computes."""
        layer: Any = self.layer
        groups, rank = layer.s.shape
        if layer.svf_base is nn.Linear:
            z = F.linear(x, layer.Vh[0]) * layer.s[0]
            return F.linear(z, layer.U[0], layer.bias)
        V = layer.Vh.reshape(groups * rank, *layer.svf_shape[1:])
        z = layer._conv_forward(x, V, None) * layer.s.reshape(-1, 1, 1)
        return F.conv2d(z, layer.U.reshape(-1, rank, 1, 1), layer.bias, groups=groups)


def build_arms(network: str, seed: int = 0) -> dict[str, nn.Module]:
    """Build the four arms of a network with the same random weights, and the merged one."""
    torch.manual_seed(seed)
    base = _network(network)
    for module in base.modules():
        if isinstance(module, nn.BatchNorm2d):  # as after a training, not an identity
            statistics = dict(module.named_buffers())
            nn.init.normal_(statistics["running_mean"], 0, 0.1)
            nn.init.uniform_(statistics["running_var"], 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.0)
    base.requires_grad_(False)
    pattern = _pattern(base)
    full, ours = copy.deepcopy(base), copy.deepcopy(base)
    names = [layer.name for layer in apply_svf(ours, pattern)]
    for name in names:
        full.get_submodule(name).requires_grad_(True)
    three = copy.deepcopy(ours)
    for name in names:
        layer = three.get_submodule(name)
        if isinstance(layer, FactoredLayer) and not layer.svf_own_forward:
            parent, _, last = name.rpartition(".")
            setattr(three.get_submodule(parent), last, ThreeOperations(layer))
    merged = merge_svf(copy.deepcopy(ours))
    fuse(ours)
    return {"floor": base, "full": full, "three-op": three, "ours": ours, "merged": merged}


def step_of(model: nn.Module, image: Tensor, floor: bool) -> Callable[[], list[Tensor]]:
    """Make a function of the forward pass to what a head sees, with a gradient if nothing trains.

    Stages 0 and 1 need no gradient in any arm, and run without a graph.
    """

    def run() -> list[Tensor]:
        if not isinstance(model, Backbone):
            output: Tensor = model(image.clone().requires_grad_(floor))
            return [output]
        x = model.stage(1)(model.stage(0)(model.normalize(image)))
        if floor:
            x = x.detach().requires_grad_(True)
        outputs = []
        for i in STAGES:
            x = model.stage(i)(x)
            outputs.append(x)
        return outputs

    return run


def count(model: nn.Module, forward: Callable[[], list[Tensor]]) -> Row:
    """Count the deterministic figures of one forward and backward pass."""
    with FlopCounterMode(display=False) as counter:
        saved, outputs = saved_bytes(model, forward)
        torch.autograd.backward(outputs, [torch.ones_like(y) for y in outputs])
    model.zero_grad()
    return {
        "saved bytes": saved,
        "operations": counter.get_total_flops(),
        "resident bytes": resident_bytes(model),
    }


def bench_step(
    network: str,
    repeats: int = 9,
    device: str = "cpu",
    precision: str = "float32",
    channels_last: bool = True,
    mode: str = "eager",
) -> list[Row]:
    """Measure one network: a row per arm, then ours against each of them.

    Args:
        network: a key of `SETTINGS`.
        repeats: rounds.
        device: cpu or cuda.
        precision: float32 or bf16 (autocast).
        channels_last: layout of the features, and of the weights that have one.
        mode: eager, compile, or graphs (torch.compile with CUDA graphs).
    """
    stride, side, batch = SETTINGS[network]
    arms = build_arms(network)
    image = 255 * torch.rand(batch, 3, side, side, device=device)
    half = precision == "bf16"
    rates = machine_rates(device, torch.bfloat16 if half else torch.float32)
    setting = {
        "network": network, "output stride": stride, "side": side, "batch": batch,
        "precision": precision, "layout": "channels_last" if channels_last else "contiguous",
        "device": device, "mode": mode,
    }  # fmt: skip
    rows: list[Row] = []
    runs: dict[str, Callable[[], object]] = {}
    for name, model in arms.items():
        model.to(device).train(name != "merged")
        if isinstance(model, Backbone) and not channels_last:
            setattr(model, "normalize", _contiguous(model))  # noqa: B010 (a method of its own)
        if channels_last and name in ("floor", "full", "merged"):
            anything: Any = model
            anything.to(memory_format=torch.channels_last)
        if name == "merged":
            continue
        forward = step_of(model, image, name == "floor")
        with torch.autocast(device, torch.bfloat16) if half else nullcontext():
            figures = count(model, forward)
        rows.append({**setting, "arm": name, **figures})
        if mode != "eager":
            forward = torch.compile(
                forward, mode="reduce-overhead" if mode == "graphs" else "default"
            )
        runs[name] = _training_step(model, forward, device, half)
    times = alternate(runs, repeats, device)
    for row in rows:
        row |= spread(times[row["arm"]])
        row |= bounds(row["operations"], 2 * row["saved bytes"] + 2 * row["resident bytes"], rates)
        row["bound / seconds"] = row["operations bound"] / row["seconds"]
        if device.startswith("cuda"):
            torch.cuda.reset_peak_memory_stats()
            runs[row["arm"]]()
            row["peak bytes"] = torch.cuda.max_memory_allocated()
    ours = rows[-1]
    for other in rows[:-1]:
        row = {**setting, "arm": f"ours / {other['arm']}"}
        row["seconds"] = paired(times["ours"], times[other["arm"]])
        for figure in ("saved bytes", "operations", "resident bytes"):
            row[figure] = ours[figure] / other[figure]
        row["bars"] = {
            figure: bar
            for (figure, arm), bar in BARS.items()
            if arm == other["arm"] and network.startswith("resnet")
        }
        rows.append(row)
    return [*rows, _merged(arms, image, repeats, device, setting)]


def _merged(
    arms: dict[str, nn.Module], image: Tensor, repeats: int, device: str, setting: Row
) -> Row:
    """Merged inference against the untouched network."""
    pair = {name: arms[name].eval() for name in ("merged", "floor")}
    with torch.inference_mode():
        times = alternate(
            {name: partial(model, image) for name, model in pair.items()}, repeats, device
        )
    return {
        **setting, "arm": "merged / floor, inference",
        "seconds": paired(times["merged"], times["floor"]),
        "resident bytes": resident_bytes(pair["merged"]) / resident_bytes(pair["floor"]),
    }  # fmt: skip


def _training_step(
    model: nn.Module, forward: Callable[[], list[Tensor]], device: str, half: bool
) -> Callable[[], object]:
    """A step with given gradients of the outputs: no loss that would cost something itself."""
    gradients: list[Tensor] = []

    def run() -> None:
        with torch.autocast(device, torch.bfloat16) if half else nullcontext():
            outputs = forward()
        if not gradients:
            gradients.extend(torch.randn_like(y) for y in outputs)
        torch.autograd.backward(outputs, gradients)
        model.zero_grad()

    return run


def _network(name: str) -> nn.Module:
    if name.startswith("vit"):
        return timm.create_model(name, pretrained=False, num_classes=0)
    return build_backbone(BackboneConfig(name, "none", SETTINGS[name][0])).train()


def _pattern(model: nn.Module) -> str:
    return stages_pattern(STAGES) if isinstance(model, Backbone) else r"blocks\..*"


def _contiguous(model: Backbone) -> Callable[[Tensor], Tensor]:
    mean, std = model.mean, model.std
    return lambda image: (image - mean) / std
