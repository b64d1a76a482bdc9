"""``svfseg data``: verify a benchmark's files, write lists of test episodes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from svfseg.cli.parse import parse
from svfseg.config import did_you_mean
from svfseg.errors import InputError, MissingFileError
from svfseg.files import check_output_file


@dataclass(frozen=True)
class VerifyArguments:
    """Count a benchmark's images by list, class and fold, and decode every file."""

    name: Positional[Literal["pascal5i", "coco20i"]]
    root: Path
    """The VOC2012 folder, or COCO's with annotations/."""
    lists: tuple[str, ...] = ()
    """Lists by name or file; by default all of ImageSets/Segmentation, or of annotations."""
    convention: Literal["interleaved", "contiguous"] = "interleaved"
    """coco20i: how classes make folds."""


@dataclass(frozen=True)
class EpisodesArguments:
    """Write a list of test episodes as JSON, to score exactly these elsewhere."""

    name: Positional[Literal["pascal5i", "coco20i", "stickers", "folder"]]
    out: Path
    root: str = ""
    convention: Literal["interleaved", "contiguous"] = "interleaved"
    fold: int = 0
    shot: int = 1
    seed: int = 321
    count: int = 1000
    test_list: str = "val"


def run_data(arguments: Sequence[str]) -> None:
    """Run ``svfseg data verify NAME | svfseg data episodes NAME``."""
    actions = {"verify": _verify, "episodes": _episodes}
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: svfseg data verify NAME ... | svfseg data episodes NAME ...")
        return
    if arguments[0] not in actions:
        raise InputError(
            f"unknown command data {arguments[0]}{did_you_mean(arguments[0], actions)}"
        )
    actions[arguments[0]](arguments[1:])


def _verify(arguments: Sequence[str]) -> None:
    parsed = parse(VerifyArguments, "data verify", arguments)
    from svfseg.cli.tables import verify_table
    from svfseg.data import coco, pascal

    is_coco = parsed.name == "coco20i"
    folder = parsed.root / ("annotations" if is_coco else "ImageSets/Segmentation")
    found = folder.glob("instances_*.json" if is_coco else "*.txt")
    names = parsed.lists or tuple(sorted(p.stem.removeprefix("instances_") for p in found))
    if not names:
        wanted = "COCO's folder" if is_coco else "the VOC2012 folder"
        raise MissingFileError(f"no lists in {folder}: give {wanted} as --root")
    if is_coco:
        reports = [coco.verify(parsed.root, name, parsed.convention) for name in names]
    else:
        reports = [pascal.verify(parsed.root, name) for name in names]
    print(verify_table(reports))
    problems = [problem for report in reports for problem in report.problems]
    for problem in problems[:50]:
        print(f"  {problem}")
    if problems:
        raise InputError(f"{len(problems)} files are missing, unreadable or mismatched (see above)")
    print("every file is there and fits its mask")


def _episodes(arguments: Sequence[str]) -> None:
    parsed = parse(EpisodesArguments, "data episodes", arguments)
    from svfseg.config import DataConfig
    from svfseg.data import draw_test_list, novel_split, test_index, write_episodes

    check_output_file(parsed.out)

    index = test_index(
        DataConfig(
            name=parsed.name,
            root=parsed.root,
            convention=parsed.convention,
            test_list=parsed.test_list,
        )
    )
    episodes = draw_test_list(
        novel_split(index, parsed.fold), parsed.shot, parsed.seed, parsed.count
    )
    write_episodes(parsed.out, index, episodes)
    print(f"wrote {len(episodes)} episodes to {parsed.out}")
