"""Seeds, a description of the machine, and the log of a run."""

import atexit
import json
import platform
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torchvision
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState

from svfseg._version import __version__
from svfseg.device import resolve
from svfseg.errors import InputError
from svfseg.files import read_json_lines, write_text

# Marks the states of accelerate that this module made: those of a host program are left alone.
_MADE_HERE = "_made_by_svfseg"


def make_accelerator(device: str = "auto", precision: str = "no") -> Accelerator:
    """Set device, precision and processes; a launcher (torchrun) sets the number of processes.

    Where a host program has set up accelerate, its state stays as it is.

    Raises:
        InputError: the device is unknown or not there, or a host program has set up accelerate
            with another device or precision.
    """
    if ":" in device:
        raise InputError(
            f"device is {device}: a training takes the first GPU that it sees; set "
            "CUDA_VISIBLE_DEVICES to the number, and device to cuda"
        )
    # processes of a launch form a group on the CPU too, but only if accelerate is told so
    on_cpu = resolve(device).type == "cpu"
    state, processes = AcceleratorState._shared_state, PartialState._shared_state
    # one process may train in bf16 and then evaluate in float32, or on another device; accelerate
    # keeps the first setting for good unless it is told to forget it
    if state.get(_MADE_HERE):
        own_processes = bool(processes.get(_MADE_HERE)) and not _among_others()
        AcceleratorState._reset_state(reset_partial_state=own_processes)
    new_state, new_processes = not state, not processes
    accelerator = Accelerator(cpu=on_cpu, mixed_precision=precision)
    if new_state:
        state[_MADE_HERE] = True
    if new_processes:
        processes[_MADE_HERE] = True
    return accelerator


def _among_others() -> bool:
    """Whether processes of one launch have met: they stay together over all they do."""
    return dist.is_available() and dist.is_initialized()


@atexit.register
def _leave() -> None:
    if _among_others():
        dist.destroy_process_group()


def seed_everything(seed: int) -> None:
    """Seed what is not a pure function of (seed, index): initial weights and dropout."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def random_state() -> dict[str, Any]:
    """Read the state of the generators that dropout draws from."""
    state: dict[str, Any] = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def set_random_state(state: dict[str, Any]) -> None:
    """Go on from `random_state`."""
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])


def environment() -> dict[str, Any]:
    """Describe versions, machine, command and git commit, to write beside results."""
    return {
        "svfseg": __version__,
        "commit": _commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "platform": platform.platform(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "command": " ".join(["svfseg", *sys.argv[1:]]),
    }


class MetricsLog:
    """metrics.jsonl of a run, and TensorBoard events where tensorboard is installed."""

    def __init__(self, folder: Path, from_step: int = 0) -> None:
        self.path = folder / "metrics.jsonl"
        if self.path.exists():  # a resumed run forgets what came after its checkpoint
            lines = read_json_lines(self.path)
            if not all(isinstance(line, dict) and type(line.get("step")) is int for line in lines):
                raise InputError(f"{self.path} is damaged: a line has no step; copy the run again")
            earlier = [line for line in lines if line["step"] <= from_step]
            write_text(self.path, "".join(json.dumps(line) + "\n" for line in earlier))
        self._board: Any = None
        try:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(folder / "tensorboard"))
        except ImportError:
            pass

    def has_score(self, step: int) -> bool:
        """Whether a step has a line of scores."""
        lines = read_json_lines(self.path) if self.path.exists() else []
        return any(line["step"] == step and "selected_on" in line for line in lines)

    def write(self, step: int, **values: Any) -> None:
        """Append one line."""
        with self.path.open("a", encoding="utf-8", newline="\n") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
        if self._board is not None:
            for name, value in values.items():
                if isinstance(value, (int, float)):
                    self._board.add_scalar(name, value, step)
            self._board.flush()


def _commit() -> str | None:
    try:
        process = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            capture_output=True,
            text=True,
            timeout=10,
            cwd=Path(__file__).parent,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return process.stdout.strip() or None
