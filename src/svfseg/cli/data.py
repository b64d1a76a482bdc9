"""``svfseg data``: verify the files of a benchmark, and write lists of test episodes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tyro.conf import Positional

from svfseg.cli.parse import group_help, parse
from svfseg.config import did_you_mean
from svfseg.errors import InputError, MissingFileError
from svfseg.files import check_output_file


@dataclass(frozen=True)
class VerifyArguments:
    """Count the images of a benchmark by list, class and fold, and decode every file."""

    name: Positional[Literal["pascal5i", "coco20i"]]
    """Name of the benchmark."""
    root: Path
    """Folder of the data: VOC2012, or the folder of COCO with annotations/."""
    lists: tuple[str, ...] = ()
    """Lists of images, by name or as files. By default they are all of ImageSets/Segmentation, or
    of annotations."""
    convention: Literal["interleaved", "contiguous"] = "interleaved"
    """For coco20i, the classes of fold 0: interleaved, 1, 5, 9 and so on, or contiguous, 1 to
    20."""


@dataclass(frozen=True)
class EpisodesArguments:
    """Write a list of test episodes as JSON, so that other programs score the same ones."""

    name: Positional[Literal["pascal5i", "coco20i", "stickers", "folder"]]
    """Name of the data."""
    out: Path
    """File to write."""
    root: str = ""
    """Folder of the data. By default there is none, as stickers needs no folder."""
    convention: Literal["interleaved", "contiguous"] = "interleaved"
    """For coco20i, the classes of fold 0: interleaved, 1, 5, 9 and so on, or contiguous, 1 to
    20."""
    fold: int = 0
    """Number of the fold, from 0, whose classes are tested."""
    shot: int = 1
    """Number of support images per episode."""
    seed: int = 321
    """Seed that draws the episodes."""
    count: int = 1000
    """Number of episodes."""
    test_list: str = "val"
    """List of test images, by name or as a file; for coco20i, val2014."""


def run_data(arguments: Sequence[str]) -> None:
    """Run ``svfseg data verify NAME | svfseg data episodes NAME``."""
    if not arguments or arguments[0] in ("-h", "--help"):
        kinds = {name: kind for name, (kind, _) in ACTIONS.items()}
        print(group_help("data", "Check the data of a benchmark before a training.", kinds))
        return
    if arguments[0] not in ACTIONS:
        raise InputError(
            f"unknown command data {arguments[0]}{did_you_mean(arguments[0], ACTIONS)}"
        )
    ACTIONS[arguments[0]][1](arguments[1:])


def _verify(arguments: Sequence[str]) -> None:
    parsed = parse(VerifyArguments, "data verify", arguments)
    from svfseg.cli.tables import verify_table
    from svfseg.data import coco, pascal

    is_coco = parsed.name == "coco20i"
    folder = parsed.root / ("annotations" if is_coco else "ImageSets/Segmentation")
    files = folder.glob("instances_*.json" if is_coco else "*.txt")
    names = parsed.lists or tuple(sorted(p.stem.removeprefix("instances_") for p in files))
    if not names:
        wanted = "COCO's folder" if is_coco else "the VOC2012 folder"
        raise MissingFileError(f"no lists in {folder}: expected {wanted} as --root")
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

    if parsed.count < 1:
        raise InputError(f"--count is {parsed.count}: expected at least 1 episode")
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


ACTIONS: dict[str, tuple[type[Any], Callable[[Sequence[str]], None]]] = {
    "verify": (VerifyArguments, _verify),
    "episodes": (EpisodesArguments, _episodes),
}
