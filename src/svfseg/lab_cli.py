"""``svfseg study`` and ``svfseg analyze``: the laboratory on the command line."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from svfseg.arguments import parse


@dataclass(frozen=True)
class StudyArguments:
    """Run a study: arms x grid, each run trained, scored and written down once."""

    study: Positional[Path]
    """A YAML file with train, eval, arms, grid, reference and search (docs/study.md)."""
    out: Path
    """Folder for the runs and the tables; give it again to go on after a stop."""
    root: str | None = None
    """Folder of the data, in place of the study's train.data.root."""
    dry_run: bool = False
    """List the runs and do nothing."""


@dataclass(frozen=True)
class AnalyzeArguments:
    """Show what a run changed in its backbone: spectrum, attention, curves, as a page and JSON."""

    run: Positional[Path]
    """A folder that train wrote."""
    out: Path = Path("analysis")
    """Folder for analysis.html and analysis.json."""
    episodes: int = 200
    """Test episodes whose queries are looked at."""
    seed: int = 321
    checkpoint: Literal["best", "last"] = "best"
    root: str | None = None
    """Folder of the data, where it moved."""
    device: str = "auto"
    """auto (a GPU if there is one), cpu, cuda, mps."""


def run_study(arguments: Sequence[str]) -> None:
    """Run ``svfseg study STUDY.yaml --out DIR``."""
    parsed = parse(StudyArguments, "study", arguments)
    from svfseg import study as studies
    from svfseg.progress import StudyProgress

    study = studies.read_study(parsed.study, parsed.root)
    if parsed.dry_run:
        for job in (*studies.search_jobs(study), *studies.final_jobs(study, {})):
            print(job.name)
        return
    with StudyProgress() as progress:
        out = studies.run_study(study, parsed.out, progress)
    table = out / "summary.md"
    print(table.read_text() if table.is_file() else f"wrote {out}")


def run_analyze(arguments: Sequence[str]) -> None:
    """Run ``svfseg analyze RUN --out DIR``."""
    parsed = parse(AnalyzeArguments, "analyze", arguments)
    from svfseg.analyze import analyze

    page = analyze(
        parsed.run,
        parsed.out,
        parsed.episodes,
        parsed.seed,
        parsed.checkpoint,
        parsed.device,
        parsed.root,
    )
    print(f"wrote {page} and analysis.json beside it")
