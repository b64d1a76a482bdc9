"""Count what a strategy costs: trained values, bytes of its task, operations and memory."""

import tempfile
from pathlib import Path

import torch
from safetensors.torch import save as save_tensors
from torch.utils.flop_counter import FlopCounterMode

from svfseg.config import TrainConfig
from svfseg.lab.bench.measure import Row, resident_bytes, saved_bytes
from svfseg.lab.run import Objective
from svfseg.models import Backbone
from svfseg.svf.adapter import save_adapter
from svfseg.tuning.checkpoint import ADAPTER, start_model
from svfseg.tuning.state import has_factored, tuned_tensors
from svfseg.tuning.strategies import tune


def strategy_cost(config: TrainConfig) -> Row:
    """Count the costs of one training step with one episode; they are deterministic.

    Returns:
        "trained" backbone values, "task bytes" they take on disk, "step operations" (forward
        and backward, torch's counter), "kept bytes" for the backward pass, "resident bytes".
    """
    torch.manual_seed(0)
    head = start_model(config.model)
    _, tuned = tune(head, config.tuning)
    head.train()
    size = config.data.size
    mask = torch.zeros(1, config.shot, size, size, dtype=torch.uint8)
    mask[..., size // 4 : size // 2, size // 4 : size // 2] = 1
    batch = {
        "query": 255 * torch.rand(1, 3, size, size),
        "support": 255 * torch.rand(1, config.shot, 3, size, size),
        "support_mask": mask,
        "target": mask[:, 0],
        "base_target": mask[:, 0],
        "class_number": torch.ones(1, dtype=torch.int64),
    }
    objective = Objective(head, config.optim.aux_weight)
    tensors = [batch[name] for name in head.inputs]
    with FlopCounterMode(display=False) as counter:
        stored_bytes, loss = saved_bytes(objective, lambda: objective(*tensors))
        loss.backward()
    return {
        "trained": sum(p.numel() for p in tuned),
        "task bytes": task_bytes(head.backbone),
        "step operations": counter.get_total_flops(),
        "kept bytes": stored_bytes,
        "resident bytes": resident_bytes(objective),
    }


def task_bytes(backbone: Backbone) -> int:
    """Count the bytes on disk of what a strategy trained of a backbone, without the head."""
    saved = 0
    if has_factored(backbone):
        with tempfile.TemporaryDirectory() as folder:
            files = save_adapter(backbone, Path(folder) / ADAPTER).iterdir()
            saved = sum(file.stat().st_size for file in files)
    tensors = tuned_tensors(backbone)
    return saved + (len(save_tensors(tensors)) if tensors else 0)
