"""Kill a training before each rename of a file or folder, go on, and print what came of it.

python -m tests.lab.kill_training DATA OUT FIRST STEP
"""

import json
import os
import sys
import warnings
from dataclasses import replace
from pathlib import Path

from safetensors.torch import load_file

from svfseg.config import OptimConfig, SelectionConfig, TrainConfig
from svfseg.errors import InputError
from svfseg.lab.training import train
from tests.lab.test_training import config_of

warnings.simplefilter("ignore")


def child(config: TrainConfig, resume: bool, die_at: int | None = None) -> int:
    """Train in a process of its own, and give its status; 9 if it was killed."""
    process = os.fork()
    if process:
        return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    seen = 0

    def count(event: str, _: object) -> None:
        nonlocal seen
        if event == "os.rename":
            seen += 1
            if seen - 1 == die_at:
                os._exit(9)

    sys.addaudithook(count)
    try:
        train(config, resume=resume)
    except InputError as error:
        print(error, file=sys.stderr)
        os._exit(2)
    os._exit(0)


def outcome(run: Path) -> dict[str, object]:
    """Weights of both checkpoints as bytes, steps with scores, and what lies there beside them."""
    scored = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {
        "weights": [
            {k: v.numpy().tobytes() for k, v in load_file(run / n / "model.safetensors").items()}
            for n in ("best", "last")
        ],
        "scores": [(row["step"], row["miou"]) for row in scored if "miou" in row],
        "left": sorted(p.name for p in run.iterdir() if p.name.startswith(".")),
    }


def main(data: str, out: str, first: str, step: str) -> None:
    """Try every STEPth rename from the FIRST on."""
    small = SelectionConfig(every=1, episodes=2)
    optim = OptimConfig(lr=0.05, steps=3, batch=2)

    def config(name: str) -> TrainConfig:
        return config_of(Path(data), Path(out) / name, "svf", selection=small, optim=optim)

    assert child(config("whole"), False) == 0
    whole, at, results = outcome(Path(out) / "whole"), int(first), []
    while True:
        name = f"killed{at}"
        if child(config(name), False, at) == 0:
            break
        resumed = child(replace(config(name)), True)
        status = resumed if resumed == 0 else child(config(name), False)
        same = status == 0 and outcome(Path(out) / name) == whole
        results.append({"at": at, "status": status, "resumed": resumed == 0, "same": same})
        at += int(step)
    print(json.dumps({"left": whole["left"], "kills": results}))


if __name__ == "__main__":
    main(*sys.argv[1:])
