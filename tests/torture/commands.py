"""Kill fit, predict, train and study at every operation on files, and fill the disk at every one.

python -m tests.torture.commands FOLDER STEP [NAME ...]
"""

import contextlib
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import yaml
from PIL import Image

from svfseg import FewShotSegmenter
from svfseg.cli import main
from tests.data.test_files import folder_of
from tests.segmenter.scenes import scene
from tests.torture.stops import KILLED, REFUSED, count_operations, fill_disk, kill, stopped_at

FORMATS = ("png", "coco", "yolo", "labelme", "geojson", "probability")


@dataclass(frozen=True)
class Command:
    """A command that is stopped.

    Attributes:
        words: what is typed, in a folder.
        again: what is typed to go on after a stop.
        outcome: what it leaves in the folder, to be compared; None of what cannot be used.
        keeps_old: what was there before may be there after a stop.
    """

    words: Callable[[Path], list[str]]
    again: Callable[[Path], list[str]]
    outcome: Callable[[Path], object]
    keeps_old: bool = False


def build(folder: Path) -> None:
    """Pictures, masks, a task, and a folder to train on."""
    for part in ("images", "masks", "query"):
        (folder / part).mkdir(parents=True)
    for number in range(5):
        one = scene(number)
        part = "images" if number < 2 else "query"
        Image.fromarray(one.image).save(folder / part / f"{number}.jpg", quality=95)
        if number < 2:
            Image.fromarray(one.mask * 255).save(folder / f"masks/{number}.png")
    segmenter = FewShotSegmenter(seconds=0, size=64, reject_absent=False)
    paths = sorted((folder / "images").iterdir())
    segmenter.fit(paths[:1], [folder / "masks/0.png"], ["disc"])
    segmenter.save(folder / "old.svf")
    shutil.copy(folder / "old.svf", folder / "t.svf")
    (folder / "data").mkdir()
    folder_of(folder / "data", classes=8, each=5)
    small = {
        "data": {"name": "folder", "root": "data", "size": 64, "resize_longest": True,
                 "validation_fraction": 0.4},
        "model": {"hidden": 8, "backbone": {"name": "test_resnet", "weights": "none"}},
        "optim": {"steps": 2, "batch": 2, "lr": 0.05},
        "selection": {"every": 1, "episodes": 2},
        "workers": 0, "device": "cpu",
    }  # fmt: skip
    tuned = {**small, "tuning": {"strategy": "svf", "lr": 0.01}}
    (folder / "train.yaml").write_text(yaml.safe_dump(tuned))
    study = {
        "train": small,
        "eval": {"episodes": 3, "workers": 0, "device": "cpu"},
        "arms": {"frozen": {"tuning.strategy": "frozen"}, "svf": {"tuning.strategy": "svf"}},
        "grid": {"seed": [1]},
        "reference": "frozen",
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(study))


def digests(folder: Path, *left_out: str) -> dict[str, str]:
    """Digest of each file below a folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in left_out
    }


def task_of(folder: Path) -> object:
    """What the task file answers on a picture."""
    result = FewShotSegmenter.load(folder / "t.svf").predict(folder / "query/2.jpg")
    return hashlib.sha256(result.mask.tobytes()).hexdigest()


def predictions_of(folder: Path) -> object:
    """All files but the log, and of the log which masks it names."""
    log = (folder / "found/predictions.jsonl").read_text().splitlines()
    masks = sorted(json.loads(line)["mask"] for line in log[1:])
    left = digests(folder / "found", "predictions.jsonl", ".svfseg.begun", ".svfseg.lock")
    return [left, masks]


def run_of(folder: Path) -> object:
    """Weights and scores of a run, and what lies beside them."""
    run = folder / "run"
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    scores = [(row["step"], row["miou"]) for row in rows if "miou" in row]
    weights = [digests(run / name)["model.safetensors"] for name in ("best", "last")]
    return [weights, scores, sorted(p.name for p in run.iterdir() if p.name.startswith("."))]


def study_of(folder: Path) -> object:
    """The table of a study, without what differs between equal runs."""
    rows = (folder / "out/results.csv").read_text().splitlines()
    head = rows[0].split(",")
    kept = [i for i, name in enumerate(head) if name in ("arm", "seed", "miou", "trained")]
    return [[row.split(",")[i] for i in kept] for row in rows]


def _same(words: Callable[[Path], list[str]], outcome: Callable[[Path], object],
          keeps_old: bool = False) -> Command:  # fmt: skip
    return Command(words, words, outcome, keeps_old)


COMMANDS = {
    "fit": _same(
        lambda f: ["fit", "--support", str(f / "images"), "--mask", str(f / "masks"), "--classes",
                   "disc", "--seconds", "0", "--size", "96", "--never-empty", "--overwrite",
                   "--out", str(f / "t.svf")],
        task_of, True,
    ),
    "predict": _same(
        lambda f: ["predict", str(f / "old.svf"), "--query", str(f / "query"), "--out",
                   str(f / "found"), "--format", *FORMATS],
        predictions_of,
    ),
    "train": Command(
        lambda f: ["train", str(f / "train.yaml"), "--out", str(f / "run")],
        lambda f: ["train", str(f / "train.yaml"), "--out", str(f / "run"), "--resume"],
        run_of,
    ),
    "study": _same(
        lambda f: ["study", str(f / "study.yaml"), "--out", str(f / "out")], study_of
    ),
}  # fmt: skip


def typed(folder: Path, words: list[str]) -> Callable[[], None]:
    """A command as it is typed in a folder, in silence."""

    def work() -> None:
        os.chdir(folder)
        torch.set_num_threads(1)
        with open(os.devnull, "w") as nowhere:  # noqa: SIM117
            with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
                status = main(words)
        raise SystemExit(status)

    return work


def outcome_of(command: Command, folder: Path) -> object:
    """What a command left; an error in words where it cannot be used."""
    try:
        return command.outcome(folder)
    except Exception as error:  # whatever it is, it cannot be used
        return f"{type(error).__name__}: {error}"


def sweep(folder: Path, step: int, names: list[str]) -> Iterator[tuple[str, dict[str, object]]]:
    """Stop commands at every STEPth operation; give counts, and what went wrong."""
    base, copy = folder / "base", folder / "copy"
    if not base.is_dir():
        build(base)

    def fresh() -> None:
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(base, copy)

    for name in names:
        command, wrong = COMMANDS[name], []
        counts = {"kills": 0, "full disks": 0}
        fresh()
        old = outcome_of(command, copy)
        assert stopped_at(None, typed(copy, command.words(copy))) == 0, name
        whole = outcome_of(command, copy)
        assert whole != old, (name, old)
        fresh()
        operations = count_operations(typed(copy, command.words(copy)))
        for way, stop in (("kills", kill), ("full disks", fill_disk)):
            for number in range(0, operations, step):
                fresh()
                status = stopped_at(number, typed(copy, command.words(copy)), stop)
                counts[way] += 1
                # what is short enough still fits on a disk that is nearly full
                if status == 0 and outcome_of(command, copy) != whole:
                    wrong.append([way, number, "another result without a word"])
                if status not in (0, KILLED, REFUSED):
                    wrong.append([way, number, f"status {status}"])
                if command.keeps_old and outcome_of(command, copy) not in (old, whole):
                    wrong.append([way, number, "neither the old nor the new"])
                again = stopped_at(None, typed(copy, command.again(copy)))
                if again == REFUSED:  # a run that had not begun has nothing to resume
                    again = stopped_at(None, typed(copy, command.words(copy)))
                if again != 0:
                    wrong.append([way, number, f"status {again} when it was given again"])
                elif outcome_of(command, copy) != whole:
                    wrong.append([way, number, "another result when it was given again"])
        yield name, {**counts, "wrong": wrong}


if __name__ == "__main__":
    torch.set_num_threads(1)  # a process that is forked has none of its parent's threads
    chosen = sys.argv[3:] or list(COMMANDS)
    print(json.dumps(dict(sweep(Path(sys.argv[1]).resolve(), int(sys.argv[2]), chosen))))
