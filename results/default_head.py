"""Put a trained run where `FewShotSegmenter("default")` finds it, without its optimizer and paths.

svfseg train configs/default/frozen.yaml --out runs/default
python results/default_head.py runs/default
"""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

from svfseg.config import write_config
from svfseg.segmenter.hub import DEFAULT
from svfseg.tuning.checkpoint import load_head, run_config


def keep(run: Path) -> None:
    load_head(run)  # a damaged one is refused
    shutil.rmtree(DEFAULT, ignore_errors=True)
    (DEFAULT / "best").mkdir(parents=True)
    for name in ("model.safetensors", "checkpoint.json"):
        shutil.copyfile(run / "best" / name, DEFAULT / "best" / name)
    write_config(DEFAULT / "config.yaml", replace(run_config(run), out="runs/default"))
    size = sum(path.stat().st_size for path in DEFAULT.rglob("*") if path.is_file())
    print(json.dumps({"bytes": size, **json.loads((DEFAULT / "best/checkpoint.json").read_text())}))


if __name__ == "__main__":
    keep(Path(sys.argv[1]))
