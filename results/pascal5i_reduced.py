"""Make pascal5i_reduced.csv: frozen against svf on the reduced training set, one row a run.

    python results/pascal5i_reduced.py search --root VOC2012   # base-class episodes only
    python results/pascal5i_reduced.py final --root VOC2012    # and score the novel classes
    python results/pascal5i_reduced.py table                   # the table of docs/study.md

The search gives both strategies three runs of 150 steps, scored on the same 200 held-out
base-class episodes: the head's learning rate with a frozen backbone, then that of s with the
head's best. Its rows are in pascal5i_reduced_search.csv.
"""

import argparse
import csv
import time
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev

from svfseg.config import EvalConfig, TrainConfig, from_dict, read_config
from svfseg.data.pascal import CLASSES
from svfseg.lab.evaluation import evaluate
from svfseg.lab.training import train
from svfseg.tuning.checkpoint import read_metadata

HERE = Path(__file__).parent
CONFIGS = HERE.parent / "configs" / "pascal5i_reduced"
FINAL, SEARCH = HERE / "pascal5i_reduced.csv", HERE / "pascal5i_reduced_search.csv"
HEAD_RATES = (0.01, 0.03, 0.1)
TUNING_RATES = (0.0015, 0.015, 0.05)
SEEDS = (321, 510)
EPISODES = 1000


def config_of(strategy: str, root: str, out: Path) -> tuple[TrainConfig, str]:
    """A config of configs/pascal5i_reduced, and the words of its command."""
    path = CONFIGS / f"{strategy}.yaml"
    config = from_dict(TrainConfig, read_config(path))
    config = replace(config, out=str(out), data=replace(config.data, root=root))
    return config, f"svfseg train configs/pascal5i_reduced/{strategy}.yaml"


def search(root: str, runs: Path) -> None:
    scores: dict[float, float] = {}
    for rate in HEAD_RATES:
        scores[rate] = search_run("frozen", root, runs, rate, None)
    best = max(scores, key=lambda r: scores[r])
    for rate in TUNING_RATES:
        search_run("svf", root, runs, best, rate)


def search_run(strategy: str, root: str, runs: Path, head: float, tuned: float | None) -> float:
    out = runs / f"search_{strategy}_{head}_{tuned}"
    config, command = config_of(strategy, root, out)
    config = replace(
        config,
        optim=replace(config.optim, steps=150, lr=head),
        tuning=replace(config.tuning, lr=config.tuning.lr if tuned is None else tuned),
        selection=replace(config.selection, every=150, episodes=200),
    )
    command += (
        f" --optim.steps 150 --selection.every 150 --selection.episodes 200 --optim.lr {head}"
    )
    command += "" if tuned is None else f" --tuning.lr {tuned}"
    start = time.perf_counter()
    train(config)
    about = read_metadata(out / "last")
    row = {
        "strategy": strategy,
        "head_lr": head,
        "s_lr": tuned,
        "base_miou": f"{100 * about['miou']:.2f}",
        "seconds": round(time.perf_counter() - start),
        "command": command,
    }
    append(SEARCH, row)
    return float(about["miou"])


def final(root: str, runs: Path) -> None:
    for seed in SEEDS:
        for strategy in ("frozen", "svf"):
            out = runs / f"{strategy}_{seed}"
            config, command = config_of(strategy, root, out)
            if not (out / "last").exists():
                train(replace(config, seed=seed))
            begun, done = (out / name for name in ("config.yaml", "last/checkpoint.json"))
            trained = done.stat().st_mtime - begun.stat().st_mtime
            result = evaluate(out, EvalConfig(episodes=EPISODES, seeds=(seed,)))
            (scores,) = result.seeds
            row = {
                "strategy": strategy,
                "fold": result.fold,
                "shot": result.shot,
                "seed": seed,
                "episodes": scores.episodes,
                "miou": f"{100 * scores.miou:.2f}",
                "fb_iou": f"{100 * scores.fb_iou:.2f}",
                **{name: f"{100 * score:.2f}" for name, score in scores.classes.items()},
                "train_seconds": round(trained),
                "seconds": round(trained + scores.seconds),
                "command": f"{command} --seed {seed} --out runs/{out.name} && "
                f"svfseg eval runs/{out.name} --seeds {seed} --episodes {EPISODES}",
            }
            append(FINAL, row)


def append(path: Path, row: dict[str, object]) -> None:
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, row)
        if new:
            writer.writeheader()
        writer.writerow(row)
    print(row, flush=True)


def table() -> str:
    """The table of docs/study.md."""
    rows = list(csv.DictReader(FINAL.read_text().splitlines()))
    classes = [name for name in CLASSES if name in rows[0]]
    columns = ["miou", "fb_iou", *classes]
    lines = [
        f"| strategy | mIoU | FB-IoU | {' | '.join(classes)} |",
        f"|---|{'---|' * len(columns)}",
    ]
    for strategy in dict.fromkeys(row["strategy"] for row in rows):
        found = [row for row in rows if row["strategy"] == strategy]
        cells = []
        for name in columns:
            values = [float(row[name]) for row in found]
            spread = f" ± {stdev(values):.1f}" if name in ("miou", "fb_iou") else ""
            cells.append(f"{mean(values):.1f}{spread}")
        lines.append(f"| {strategy} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["search", "final", "table"])
    parser.add_argument("--root", default="VOC2012")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    arguments = parser.parse_args()
    if arguments.what == "table":
        print(table())
    else:
        {"search": search, "final": final}[arguments.what](arguments.root, arguments.runs)
