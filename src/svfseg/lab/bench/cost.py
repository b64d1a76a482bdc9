"""What a strategy costs: trained values, bytes of its task, operations and memory of a step."""

import tempfile
from pathlib import Path
from typing import cast

import torch
from safetensors.torch import save as save_tensors
from torch.utils.flop_counter import FlopCounterMode

from svfseg.config import TrainConfig
from svfseg.lab.bench.measure import Row, resident_bytes, saved_bytes
from svfseg.lab.training import Objective
from svfseg.models import Backbone
from svfseg.svf.adapter import save_adapter
from svfseg.svf.layers import factored_layers
from svfseg.tuning.checkpoint import ADAPTER, _has_adapter, start_model
from svfseg.tuning.strategies import tune


def strategy_cost(config: TrainConfig) -> Row:
    """Costs of one training step with one episode; deterministic.

    Returns:
        "trained" backbone values, "task bytes" they take on disk, "step operations" (forward
        and backward, torch's counter), "kept bytes" for the backward pass, "resident bytes".
    """
    torch.manual_seed(0)
    model = start_model(config.model)
    _, tuned = tune(model, config.tuning)
    model.train()
    size = config.data.size
    mask = torch.zeros(1, config.shot, size, size, dtype=torch.uint8)
    mask[..., size // 4 : size // 2, size // 4 : size // 2] = 1
    given = {
        "query": 255 * torch.rand(1, 3, size, size),
        "support": 255 * torch.rand(1, config.shot, 3, size, size),
        "support_mask": mask,
        "target": mask[:, 0],
        "base_target": mask[:, 0],
        "class_number": torch.ones(1, dtype=torch.int64),
    }
    objective = Objective(model, config.optim.aux_weight)
    tensors = [given[name] for name in objective.inputs]
    with FlopCounterMode(display=False) as counter:
        kept, loss = saved_bytes(model, lambda: objective(*tensors))
        loss.backward()
    return {
        "trained": sum(p.numel() for p in tuned),
        "task bytes": task_bytes(cast(Backbone, model.backbone), config),
        "step operations": counter.get_total_flops(),
        "kept bytes": kept,
        "resident bytes": resident_bytes(model),
    }


def task_bytes(backbone: Backbone, config: TrainConfig) -> int:
    """Bytes on disk of what a strategy trained of a backbone, without the head."""
    if _has_adapter(config):
        with tempfile.TemporaryDirectory() as folder:
            save_adapter(backbone, Path(folder) / ADAPTER)
            saved = sum(f.stat().st_size for f in (Path(folder) / ADAPTER).iterdir())
    else:
        saved = 0
    factored = {f"{name}." for name, _ in factored_layers(backbone)}
    rest = {
        name: parameter.detach().contiguous()
        for name, parameter in backbone.named_parameters()
        if parameter.requires_grad
        and not (saved and any(name.startswith(prefix) for prefix in factored))
    }
    return saved + (len(save_tensors(rest)) if rest else 0)
