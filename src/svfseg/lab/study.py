"""Run a study: arms (settings to compare) x grid, each trained, scored and written once."""

import csv
import itertools
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean
from typing import Any

from filelock import FileLock, Timeout

from svfseg.config import EvalConfig, TrainConfig, did_you_mean, from_dict, read_config, to_dict
from svfseg.errors import InputError
from svfseg.files import read_json, read_json_lines, replace_file, write_json, write_text
from svfseg.lab.bench.cost import strategy_cost
from svfseg.lab.bootstrap import Records
from svfseg.lab.evaluation import evaluate
from svfseg.lab.events import Report, RunStarted, ignore
from svfseg.lab.settings import check_settings
from svfseg.lab.study_tables import summary
from svfseg.lab.training import train
from svfseg.models import learns_base_classes
from svfseg.tuning.checkpoint import read_metadata, run_config

Settings = dict[str, Any]
FIELDS = ("train", "eval", "arms", "grid", "reference", "search")
SEARCH_FIELDS = ("train", "values", "inherit")


@dataclass(frozen=True)
class Study:
    """What to compare.

    Attributes:
        train: settings of every run.
        eval: settings of every evaluation; none if empty.
        arms: name -> settings that the arm changes.
        grid: setting -> its values; every combination is a run of every arm.
        reference: the arm that differences are taken to.
        search: settings chosen on base-class episodes before the runs, see `docs/study.md`:
            "train" (changes for the search's runs), "values" (arm -> setting -> candidates) and
            "inherit" (setting -> arm whose choice the others take).
    """

    train: Settings
    eval: Settings
    arms: dict[str, Settings]
    grid: dict[str, list[Any]] = field(default_factory=dict)
    reference: str = ""
    search: Settings = field(default_factory=dict)


@dataclass(frozen=True)
class Job:
    """One run of a study: its folder's name, arm, place in the grid, and settings."""

    name: str
    arm: str
    point: Settings
    settings: Settings
    searched: Settings = field(default_factory=dict)


def read_study(path: str | Path, root: str | None = None) -> Study:
    """Read a study from its YAML file, and check all its runs before the first begins.

    Args:
        path: path of the file.
        root: folder of the data, in place of the file's.

    Raises:
        MissingFileError: no such file.
        InputError: an unknown field, arm or setting; candidates in unequal number.
    """
    content = read_config(path)
    unknown = [key for key in content if key not in FIELDS]
    if unknown:
        raise InputError(f"{path}: unknown field {unknown[0]}{did_you_mean(unknown[0], FIELDS)}")
    parts = {key: _by_name(content.get(key), f"{path}: {key}") for key in FIELDS[:4]}
    arms = {
        name: nested(_by_name(settings, f"{path}: arms.{name}"))
        for name, settings in parts["arms"].items()
    }
    if not arms:
        raise InputError(f"{path} names no arms: expected 'arms:' with settings for each")
    grid = {k: v if isinstance(v, list) else [v] for k, v in parts["grid"].items()}
    search = _search(content.get("search"), f"{path}: search")
    moved = {} if root is None else {"data": {"root": root}}
    study = Study(
        merged(nested(parts["train"]), moved),
        nested(parts["eval"]),
        arms,
        grid,
        str(content.get("reference", next(iter(arms)))),
        search,
    )
    values, inherit = search["values"], search["inherit"]
    for name in (study.reference, *values, *inherit.values()):
        if name not in arms:
            raise InputError(f"{path}: unknown arm {name}{did_you_mean(str(name), arms)}")
    sizes = {arm: len(list(_points(candidates))) for arm, candidates in values.items()}
    if len(set(sizes.values())) > 1:
        raise InputError(
            f"{path}: every arm needs the same number of candidates to search: found {sizes}"
        )
    from_dict(EvalConfig, study.eval)
    searches = search_jobs(study)
    for job in (*searches, *final_jobs(study, {})):
        config = train_config(job, Path("out"))
        check_settings(config)
        if job in searches and config.selection.monitor != "base-validation":
            raise InputError(
                f"{path}: {job.name} has selection.monitor {config.selection.monitor}, but a "
                "search chooses on held-out base classes: set it to base-validation in search.train"
            )
        if study.eval and learns_base_classes(config.model.head):
            raise InputError(
                f"{path}: {job.name} is a base learner, which has its score from its "
                "training: leave out eval"
            )
    return study


def _by_name(value: Any, where: str) -> dict[str, Any]:
    """Give settings by name; nothing is none of them."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InputError(f"{where} is {value!r:.60}: expected settings by name")
    return {str(key): each for key, each in value.items()}


def _search(value: Any, where: str) -> Settings:
    search = {**dict.fromkeys(SEARCH_FIELDS), **_by_name(value, where)}
    unknown = [key for key in search if key not in SEARCH_FIELDS]
    if unknown:
        nearest = did_you_mean(unknown[0], SEARCH_FIELDS)
        raise InputError(f"{where}: unknown field {unknown[0]}{nearest}")
    search = {key: _by_name(part, f"{where}.{key}") for key, part in search.items()}
    for arm, candidates in search["values"].items():
        search["values"][arm] = _by_name(candidates, f"{where}.values.{arm}")
        for name, choices in search["values"][arm].items():
            if not isinstance(choices, list):
                raise InputError(
                    f"{where}.values.{arm}.{name} is {choices!r:.60}: expected a list of candidates"
                )
    search["inherit"] = {key: str(arm) for key, arm in search["inherit"].items()}
    return search


def run_study(study: Study, out: str | Path, report: Report = ignore) -> Path:
    """Do what is not done yet of a study, and write its tables.

    Several processes may work on one folder; each run is claimed by a lock that ends with its
    process. A run that was stopped goes on from its last checkpoint.

    Args:
        study: what to compare.
        out: folder for runs/, search.csv, results.csv, curves.csv and summary.md.
        report: called with `svfseg.lab.events.RunStarted` before each run, and with the events of
            `svfseg.lab.training.train`.

    Returns:
        The folder.

    Raises:
        InputError: a run in the folder has other settings than the study.
    """
    out = Path(out)
    searches = search_jobs(study)
    _work(searches, study, out, report, final=False)
    chosen = choices(study, out)
    jobs = final_jobs(study, chosen)
    _work(jobs, study, out, report, final=True)
    write_tables(study, out)
    return out


def search_jobs(study: Study) -> list[Job]:
    """List the runs of the search, arms that others inherit from first."""
    values, inherit = study.search.get("values", {}), study.search.get("inherit", {})
    changes = nested(study.search.get("train", {}))
    jobs = []
    for arm in sorted(values, key=lambda arm: arm not in inherit.values()):
        for point in _points(values[arm]):
            settings = merged(study.train, study.arms[arm], changes, nested(point))
            jobs.append(Job(f"search/{_name(arm, point)}", arm, point, settings))
    return jobs


def choices(study: Study, out: Path) -> dict[str, Settings]:
    """Choose for each arm the searched settings with the best score on base classes."""
    best: dict[str, tuple[float, Settings]] = {}
    for job in search_jobs(study):
        row = _row(out, job)
        if row is not None and row["base_miou"] > best.get(job.arm, (-1.0, {}))[0]:
            best[job.arm] = (row["base_miou"], job.point)
    return {arm: point for arm, (_, point) in best.items()}


def inherited(study: Study, arm: str, chosen: Mapping[str, Settings]) -> Settings:
    """Collect the settings that an arm takes from the search of others."""
    settings_of_others: Settings = {}
    for setting, source in study.search.get("inherit", {}).items():
        if source != arm and setting in chosen.get(source, {}):
            settings_of_others[setting] = chosen[source][setting]
    return settings_of_others


def final_jobs(study: Study, chosen: Mapping[str, Settings]) -> list[Job]:
    """List every arm at every point of the grid, the grid outermost: arms end side by side."""
    jobs = []
    for point in _points(study.grid):
        for arm, settings in study.arms.items():
            searched = {**inherited(study, arm, chosen), **chosen.get(arm, {})}
            all_settings = filled(
                merged(study.train, nested(searched), settings, nested(point)), point
            )
            jobs.append(Job(_name(arm, point), arm, point, all_settings, searched))
    return jobs


def train_config(job: Job, out: Path) -> TrainConfig:
    """Give all settings of the run."""
    config = from_dict(TrainConfig, job.settings)
    return replace(config, out=str(out / "runs" / job.name))


def _work(jobs: list[Job], study: Study, out: Path, report: Report, final: bool) -> None:
    """Do jobs that nobody has done or claimed; wait for those that others have claimed."""
    while True:
        pending = [job for job in jobs if _row(out, job) is None]
        if not pending:
            return
        worked = False
        for job in pending:
            if not final:
                chosen = choices(study, out)
                job = replace(
                    job, settings=merged(job.settings, nested(inherited(study, job.arm, chosen)))
                )
                waits = [a for a in study.search.get("inherit", {}).values() if a != job.arm]
                if any(p.arm in waits for p in pending):
                    continue
            with _claimed(out / "runs" / job.name) as mine:
                if not mine or _row(out, job) is not None:
                    continue
                done = len(jobs) - sum(_row(out, j) is None for j in jobs)
                report(RunStarted(job.name, done, len(jobs)))
                _run(job, study, out, report, final)
                worked = True
                write_tables(study, out)
        if not worked:
            time.sleep(2)


def _run(job: Job, study: Study, out: Path, report: Report, final: bool) -> None:
    config = train_config(job, out)
    run = Path(config.out)
    start = time.perf_counter()
    known = run_config(run) if (run / "config.yaml").is_file() else None
    if known is not None and to_dict(known) != to_dict(config):
        raise InputError(
            f"{run} was made with other settings: choose another folder, or remove that one",
            settings=("out",),
        )
    finished = (run / "last").is_dir() and read_metadata(run / "last")["step"] == config.optim.steps
    if not finished:
        train(config, resume=(run / "last").is_dir(), report=report)
    trained = time.perf_counter() - start
    metadata = read_metadata(run / ("last" if config.selection.monitor == "last" else "best"))
    row: Settings = {
        "arm": job.arm,
        **job.point,
        **{k: v for k, v in job.searched.items() if k not in job.point},
        **_selected(config.selection.monitor, metadata),
        "best_step": metadata["step"],
        "train_seconds": round(trained, 1),
    }
    if final and study.eval:
        result = evaluate(run, from_dict(EvalConfig, study.eval))
        records = [record for scores in result.seeds for record in scores.records]
        row |= {
            "miou": result.miou,
            "fb_iou": result.fb_iou,
            **{
                f"iou {name}": mean(scores.classes[name] for scores in result.seeds)
                for name in result.seeds[0].classes
            },
            "eval_seconds": round(sum(scores.seconds for scores in result.seeds), 1),
        }
        write_json(run / "episodes.json", records, None)
        row |= strategy_cost(config)
    # a run's optimizer state is most of its bytes, and a finished one needs it no more
    (run / "last" / "training.pt").unlink(missing_ok=True)
    write_json(run / "row.json", row)


def _selected(monitor: str, scores: Mapping[str, Any]) -> Settings:
    """Name the score that a checkpoint was selected by for what it is of."""
    test = monitor == "test"
    row = {"selected_on": "test"} if test else {}
    return {**row, "test_miou" if test else "base_miou": scores.get("miou")}


def write_tables(study: Study, out: Path) -> None:
    """Write search.csv, results.csv, curves.csv and summary.md from the rows that are there."""
    searches = [row for job in search_jobs(study) if (row := _row(out, job))]
    jobs = final_jobs(study, choices(study, out))
    done = [(job, row) for job in jobs if (row := _row(out, job))]
    _write_csv(out / "search.csv", searches)
    _write_csv(out / "results.csv", [row for _, row in done])
    curves = []
    for job, _ in done:
        for line in read_json_lines(out / "runs" / job.name / "metrics.jsonl"):
            if "miou" in line or "novel_miou" in line:
                test = line.get("selected_on") == "test"
                curves.append(
                    {
                        "arm": job.arm,
                        **job.point,
                        "step": line["step"],
                        "base_miou": None if test else line.get("miou"),
                        "novel_miou": line.get("miou" if test else "novel_miou"),
                    }
                )
    _write_csv(out / "curves.csv", curves)
    records = {
        (job.arm, json.dumps(job.point)): Records.of(read_json(path))
        for job, _ in done
        if (path := out / "runs" / job.name / "episodes.json").is_file()
    }
    if records:
        text = summary([(job.arm, job.point, row) for job, row in done], records, study.reference)
        write_text(out / "summary.md", text)


def nested(settings: Mapping[str, Any]) -> Settings:
    """Nest settings whose names may be dotted ("optim.lr")."""
    tree: Settings = {}
    for key, value in settings.items():
        head, _, tail = str(key).partition(".")
        inner = nested({tail: value}) if tail else value
        inner = nested(inner) if isinstance(inner, Mapping) else inner
        both = isinstance(inner, Mapping) and isinstance(tree.get(head), Mapping)
        tree[head] = merged(tree[head], inner) if both else inner
    return tree


def merged(*parts: Mapping[str, Any]) -> Settings:
    """Merge nested settings, later ones over earlier ones."""
    result: Settings = {}
    for part in parts:
        for key, value in part.items():
            both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
            result[key] = merged(result[key], value) if both else value
    return result


def filled(settings: Settings, point: Settings) -> Settings:
    """Fill in texts that name a setting of the grid ("runs/base_fold={data.fold}")."""
    result: Settings = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            value = filled(dict(value), point)
        elif isinstance(value, str):
            for name, replacement in point.items():
                value = value.replace("{" + name + "}", str(replacement))
        result[key] = value
    return result


def _points(grid: Mapping[str, list[Any]]) -> Iterator[Settings]:
    for values in itertools.product(*grid.values()):
        yield dict(zip(grid, values, strict=True))


def _name(arm: str, point: Settings) -> str:
    words = [arm, *(f"{k.rpartition('.')[2]}={_word(v)}" for k, v in point.items())]
    return "_".join(words).replace("/", "-").replace(" ", "-")


def _word(value: Any) -> str:
    return "".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _row(out: Path, job: Job) -> Settings | None:
    path = out / "runs" / job.name / "row.json"
    return read_json(path) if path.is_file() else None


def _write_csv(path: Path, rows: list[Settings]) -> None:
    if not rows:
        return
    names = list(dict.fromkeys(name for row in rows for name in row))
    with replace_file(path) as fresh, fresh.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)


@contextmanager
def _claimed(run: Path) -> Iterator[bool]:
    """Claim a run for this process alone; the lock ends with the process."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:  # processes of one launch work in step
        yield True
        return
    run.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(run.parent / f".{run.name}.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()
