"""Kill every request of a backend of Label Studio at every operation: it is as before, or as after.

python -m tests.torture.labelstudio FOLDER STEP [CHANGE ...]
"""

import functools
import hashlib
import json
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from svfseg import FewShotSegmenter
from svfseg.segmenter.task_file import read_task
from svfseg.web.labelstudio.images import ImageSource
from svfseg.web.labelstudio.rle import encode_mask
from svfseg.web.labelstudio.session import LabelStudioSession
from tests.torture.page import picture
from tests.torture.stops import (
    KILLED,
    REFUSED,
    count_operations,
    die_in,
    fill_disk,
    kill,
    stopped_at,
)

CONFIG = """<View><Image name="image" value="$photo"/><BrushLabels name="tag" toName="image">
<Label value="ant"/><Label value="bee"/><Label value="cat"/></BrushLabels></View>"""
SIDE = 64
LATER = 3600.0  # seconds: no fit begins by itself


def brushed(label: str, number: int = 0) -> dict[str, Any]:
    """A region of Label Studio: a stripe, of another width for each number."""
    mask = np.zeros((SIDE, SIDE), bool)
    mask[:, 8 : 24 + number] = True
    return {
        "from_name": "tag", "to_name": "image", "type": "brushlabels", "original_width": SIDE,
        "original_height": SIDE, "value": {"rle": encode_mask(mask), "brushlabels": [label]},
    }  # fmt: skip


def event(action: str, task: int, results: list[Any], **more: Any) -> dict[str, Any]:
    """What Label Studio sends of one annotation."""
    return {
        "action": action, "project": {"id": 1},
        "annotation": {"id": 100 + task, "task": task, "result": results, **more},
        "task": {"id": task, "data": {"photo": f"p{task}.png"}},
    }  # fmt: skip


def several(*events: dict[str, Any]) -> dict[str, Any]:
    """What Label Studio sends of several annotations."""
    return {
        "action": "ANNOTATIONS_CREATED", "project": {"id": 1},
        "annotation": [each["annotation"] for each in events],
        "task": [each["task"] for each in events],
    }  # fmt: skip


@functools.cache
def blank() -> FewShotSegmenter:
    """Loaded once: a backend fits a copy of it."""
    segmenter: FewShotSegmenter = FewShotSegmenter.from_pretrained(
        seconds=0, size=64, reject_absent=False, device="cpu"
    )
    return segmenter


def opened(folder: Path) -> LabelStudioSession:
    images = ImageSource(folder / "images")
    return LabelStudioSession(folder / "backend", images, blank(), wait=LATER)


def send(session: LabelStudioSession, sent: dict[str, Any]) -> None:
    session.receive(sent["action"], sent)


def build(folder: Path) -> None:
    """A backend with two classes fitted, an image without any, and a third class not fitted yet."""
    (folder / "images").mkdir(parents=True)
    for number in range(1, 7):
        (folder / "images" / f"p{number}.png").write_bytes(picture(number, SIDE))
    session = opened(folder)
    session.configure(CONFIG)
    for task, results in ((1, [brushed("ant")]), (2, [brushed("bee")]), (3, [])):
        send(session, event("ANNOTATION_CREATED", task, results))
    session.fit()
    send(session, event("ANNOTATION_CREATED", 4, [brushed("cat")]))
    session.close()


def build_before(folder: Path, base: Path) -> None:
    """The same as a backend wrote it before there was a database."""
    shutil.copytree(base / "images", folder / "images")
    backend = folder / "backend"
    (backend / "supports").mkdir(parents=True)
    shutil.copy(base / "backend/task.svf", backend)
    for edit, (task, results) in enumerate(
        ((1, [brushed("ant")]), (2, [brushed("bee")]), (3, []), (4, [brushed("cat")])), start=1
    ):
        record = {"task": task, "edit": edit, "annotation": 100 + task, "image": f"p{task}.png",
                  "result": results}  # fmt: skip
        (backend / "supports" / f"{task}.json").write_text(json.dumps(record))
    state = {"project": 1, "label_config": CONFIG, "fits": 1, "edits": 3, "fitted": 3}
    (backend / "project.json").write_text(json.dumps(state))


def outcome(folder: Path) -> dict[str, object]:
    """What Label Studio finds in a backend that was started again."""
    session = opened(folder)
    state = session.store.state
    records = {}
    for task in session.store.tasks():
        record = session.store.support(task)
        assert record is not None
        content = json.dumps([record["image"], record["result"]])
        records[task] = [record["annotation"], hashlib.sha256(content.encode()).hexdigest()]
    found = {
        "records": records, "config": state.label_config, "project": state.number,
        "waits": session._timer is not None,
        "version": session.version, "classes": classes(folder),
    }  # fmt: skip
    session.close()
    found["files"] = sorted(
        path.relative_to(folder).as_posix()
        for path in (folder / "backend").rglob("*")
        if path.is_file()
    )
    return found


def settled(folder: Path) -> dict[str, object]:
    """The same once it has fitted what it waited for."""
    session = opened(folder)
    waited = session._timer is not None
    version = session.version
    if waited:
        session.fit()
    assert not waited or session.version != version or session.version is None
    session.close()
    return {**outcome(folder), "version": ""}


def classes(folder: Path) -> list[str]:
    path = folder / "backend/task.svf"
    return list(read_task(path).metadata["classes"]) if path.is_file() else []


def _empty(session: LabelStudioSession) -> None:
    gone = {"action": "ANNOTATIONS_DELETED", "annotations": [{"id": n} for n in (101, 102, 104)]}
    send(session, {**gone, "project": {"id": 1}})
    session.fit()


CHANGES: dict[str, Callable[[LabelStudioSession], object]] = {
    "set up": lambda s: s.configure(CONFIG.replace("cat", "dog")),
    "submit": lambda s: send(s, event("ANNOTATION_CREATED", 5, [brushed("ant")])),
    "submit again": lambda s: send(s, event("ANNOTATION_UPDATED", 1, [brushed("bee", 9)])),
    "submit several": lambda s: send(s, several(
        event("", 1, [brushed("cat", 3)]), event("", 5, [brushed("ant")]), event("", 6, []),
    )),
    "skip": lambda s: send(s, event("ANNOTATION_UPDATED", 2, [], was_cancelled=True)),
    "delete": lambda s: send(s, {
        "action": "ANNOTATIONS_DELETED", "project": {"id": 1}, "annotations": [{"id": 102}],
    }),
    "fit": lambda s: s.fit(),
    "delete all marks and fit": _empty,
    "start after an update": lambda s: None,
}  # fmt: skip


def changed(folder: Path, name: str, statement: int | None = None) -> Callable[[], None]:
    """Make one change of a backend; die at a statement of its transactions."""

    def work() -> None:
        session = opened(folder)
        if statement is not None:
            die_in(session.store.database._sql, statement)
        CHANGES[name](session)
        session.close()

    return work


class Sweep:
    """One change, and what a backend may be after a stop in it."""

    def __init__(self, base: Path, copy: Path, name: str) -> None:
        self.base, self.copy, self.name = base, copy, name
        self.fresh()
        self.before = outcome(copy)
        ends = [settled(copy)]
        self.fresh()
        assert stopped_at(None, changed(copy, name)) == 0
        self.after = outcome(copy)
        assert self.after != self.before or base.name == "before", name
        ends.append(settled(copy))
        # a fit changes no annotation, so that its two ends are one
        self.ends = ends

    def fresh(self) -> None:
        shutil.rmtree(self.copy, ignore_errors=True)
        shutil.copytree(self.base, self.copy)

    def is_right(self, status: int) -> bool:
        """Whether what a stop left is the state before or after, and leads to the end of it."""
        try:
            found = outcome(self.copy)
            end = settled(self.copy)
        except Exception as error:  # whatever it is, the backend is not what it was
            print(f"{self.name}: {error}", file=sys.stderr)
            return False
        if status == 0:
            return found == self.after and end == self.ends[1]
        stored = [{k: side[k] for k in ("records", "config", "project")}
                  for side in (self.before, self.after)]  # fmt: skip
        middle = {k: found[k] for k in stored[0]}
        known = found["classes"] in (self.before["classes"], self.after["classes"])
        return known and any(
            middle == each and end == final for each, final in zip(stored, self.ends, strict=True)
        )


def sweep(folder: Path, step: int, names: Sequence[str]) -> dict[str, object]:
    """Stop changes at every STEPth operation, at every STEPth statement, and on a full disk."""
    base, before = folder / "base", folder / "before"
    build(base)
    build_before(before, base)
    counts = {"kills": 0, "full disks": 0}
    wrong = []
    for name in names:
        one = Sweep(before if name.startswith("start") else base, folder / "copy", name)
        one.fresh()
        operations = count_operations(changed(one.copy, name))
        for way in ("operations", "statements", "full disks"):
            for number in range(0, operations if way == "full disks" else 400, step):
                one.fresh()
                if way == "statements":
                    status = stopped_at(None, changed(one.copy, name, number))
                else:
                    stop = kill if way == "operations" else fill_disk
                    status = stopped_at(number, changed(one.copy, name), stop)
                counts["full disks" if way == "full disks" else "kills"] += status != 0
                if status not in (0, KILLED, REFUSED) or not one.is_right(status):
                    wrong.append([name, way, number, status])
                if status == 0 and way != "full disks":  # what is short may still fit
                    break
    return {**counts, "wrong": wrong}


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(sweep(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:] or list(CHANGES))))
