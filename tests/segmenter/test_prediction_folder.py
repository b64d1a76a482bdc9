"""A folder of predictions keeps what is not its own, and knows what is done."""

import json
import logging
import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from svfseg.errors import InputError
from svfseg.segmenter.prediction_folder import LOCK, PredictionFolder, digest_of, state_of
from svfseg.segmenter.report import LOG, read_log, write_report
from svfseg.segmenter.watching import Watch

FORMATS = ("png", "coco", "yolo", "labelme", "geojson", "probability")


def photo(path: Path, color: str = "red") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (20, 16), color).save(path)
    return path


def opened(out: Path, formats: tuple[str, ...] = ("png",), **options: bool) -> PredictionFolder:
    return PredictionFolder(out, "task", formats, 1, **options)


def finish(folder: PredictionFolder, image: Path) -> None:
    """Write what `predict_folder` would."""
    stem = folder.stem_of(image)
    folder.begin()
    folder.begin_image(stem)
    for name in folder.files_of(stem):
        path = folder.out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (20, 16)).save(path, "JPEG" if path.suffix == ".jpg" else "PNG")
    folder.add(stem, {
        "image": os.path.abspath(image), "digest": digest_of(image), "state": state_of(image),
        "mask": f"{stem}.png", "files": folder.files_of(stem), "share": {"thing": 0.5},
        "confidence": {"thing": 0.9}, "support": False,
    })  # fmt: skip


def test_an_image_is_never_replaced_by_its_mask(tmp_path: Path) -> None:
    image = photo(tmp_path / "q/a.png")
    for overwrite in (False, True):
        with (
            opened(tmp_path / "q", overwrite=overwrite) as folder,
            pytest.raises(InputError, match=r"a.png is one of the images that are read"),
        ):
            folder.check([image])  # fmt: skip
    (tmp_path / "link").symlink_to(tmp_path / "q")
    with opened(tmp_path / "link") as folder, pytest.raises(InputError, match="one of the images"):
        folder.check([image])
    assert sorted(os.listdir(tmp_path / "q")) == ["a.png"]


@pytest.mark.parametrize("name", ["a.png", "a_overlay.jpg", "a.json", "a.geojson", "coco.json",
                                  "coco/a.json", "labels/a.txt", "labels/classes.txt",
                                  "probability/a.png"])  # fmt: skip
def test_what_somebody_else_wrote_stays(tmp_path: Path, name: str) -> None:
    image, theirs = photo(tmp_path / "in/a.jpg"), tmp_path / "out" / name
    theirs.parent.mkdir(parents=True, exist_ok=True)
    theirs.write_text("by hand")
    with opened(tmp_path / "out", FORMATS) as folder:
        with pytest.raises(InputError, match=f"{name} is there already"):
            folder.check([image])
        assert theirs.read_text() == "by hand"
    with opened(tmp_path / "out", FORMATS, overwrite=True) as folder:
        folder.check([image])


def test_what_it_wrote_itself_is_replaced(tmp_path: Path) -> None:
    image = photo(tmp_path / "in/a.jpg")
    with opened(tmp_path / "out", FORMATS) as folder:
        finish(folder, image)
    photo(image, "blue")
    with opened(tmp_path / "out", FORMATS) as folder:
        assert not folder.is_done(image)
        folder.check([image])


def test_after_a_kill_its_files_are_still_its_own(tmp_path: Path) -> None:
    """Written, and not yet in the log; or in the log, and removed by hand to be made again."""
    image = photo(tmp_path / "in/a.jpg")
    with opened(tmp_path / "out") as folder:
        folder.begin()
        folder.begin_image("a")
        (folder.out / "a.png").touch()
    with opened(tmp_path / "out") as folder:
        folder.check([image])
        finish(folder, image)
        finish(folder, photo(tmp_path / "in/b.jpg"))
    (tmp_path / "out/a.png").unlink()
    for _ in range(2):
        with opened(tmp_path / "out") as folder:
            assert not folder.is_done(image)
            folder.check([image])


def test_a_name_belongs_to_one_image(tmp_path: Path) -> None:
    """Of two folders, of two ends; and the same file elsewhere is the same image."""
    first, other = photo(tmp_path / "day1/a.jpg"), photo(tmp_path / "day2/a.jpg", "blue")
    with opened(tmp_path / "out") as folder:
        finish(folder, first)
    with opened(tmp_path / "out") as folder:
        for image in (other, photo(tmp_path / "day1/a.png", "green")):
            with pytest.raises(InputError, match=r"out/a.png is of .*day1/a.jpg"):
                folder.check([image])
            assert not folder.is_done(image)
        moved = tmp_path / "moved/a.jpg"
        moved.parent.mkdir()
        first.rename(moved)
        folder.check([moved])
        assert folder.is_done(moved)
    with opened(tmp_path / "new") as folder, pytest.raises(InputError, match="have one name"):
        folder.check([other, tmp_path / "day1/a.png"])


def test_equal_size_and_time_are_not_the_same_image(tmp_path: Path) -> None:
    images = [photo(tmp_path / day / "frame.bmp", color) for day, color in
              (("day1", "red"), ("day2", "blue"))]  # fmt: skip
    for image in images:
        os.utime(image, (1, 1))
    with opened(tmp_path / "out") as folder:
        finish(folder, images[0])
        assert folder.is_done(images[0])
        assert not folder.is_done(images[1])
    images[1].replace(images[0])
    os.utime(images[0], (1, 1))
    with opened(tmp_path / "out") as folder:
        assert not folder.is_done(images[0])


def test_two_writers_of_one_folder_are_refused(tmp_path: Path) -> None:
    with opened(tmp_path / "out") as folder:
        folder.begin()
        with pytest.raises(InputError, match="another svfseg predict writes to"):
            opened(tmp_path / "out").__enter__()
    with opened(tmp_path / "out"):
        pass
    assert (tmp_path / "out" / LOCK).exists()
    with opened(tmp_path / "none"):
        pass
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("name", ["..png", "...png", f"{'n' * 250}.jpg", f"{'ö' * 124}.jpg",
                                  "classes.jpg", "Classes.png", "coco.jpg"])  # fmt: skip
def test_odd_names_get_names_that_can_be_written(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    with opened(tmp_path / "out", FORMATS) as folder, caplog.at_level(logging.WARNING):
        stems = {folder.stem_of(Path(name)) for _ in range(3)}
        assert len(stems) == 1
        assert len(caplog.records) == 1
        for file in folder.files_of(stems.pop()):
            path = folder.out / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            assert path.name.lower() not in ("classes.txt", "coco.json")


def test_bytes_that_are_not_text_are_named_in_the_report(tmp_path: Path) -> None:
    image = photo(tmp_path / "in" / os.fsdecode(b"bl\xe9.jpg"))
    with opened(tmp_path / "out") as folder:
        finish(folder, image)
    assert "bl\ufffd.jpg" in write_report(tmp_path / "out").read_text(encoding="utf-8")


DAMAGED = [
    "[]",
    '"x"',
    '{"image": 1}',
    '{"image": "a.jpg", "mask": "../a.png", "share": {"a": 1}, "confidence": {"a": 1}}',
    '{"image": "a.jpg", "mask": "a.png", "share": {}, "confidence": {}}',
    '{"image": "a.jpg", "mask": "a.png", "share": {"a": "x"}, "confidence": {"a": 1}}',
    '{"image": "a.jpg", "left_out": 3}',
    '{"image": "a.jpg", "mask": "a.png"}',
]


@pytest.mark.parametrize("line", DAMAGED)
def test_a_damaged_log_is_named_with_its_line(tmp_path: Path, line: str) -> None:
    head = json.dumps({"task": "task", "formats": ["png"]})
    good = '{"image": "b.jpg", "left_out": "it is cut off"}'
    (tmp_path / LOG).write_text(f"{head}\n{line}\n{good}\n")
    with pytest.raises(InputError, match=f"{LOG} is damaged in its line 2"):
        opened(tmp_path).__enter__()
    with pytest.raises(InputError, match="damaged"):
        write_report(tmp_path)
    (tmp_path / LOG).write_text(f"{head}\n{good}\n{line[:-2]}")  # cut off by a stop
    assert len(read_log(tmp_path)[1]) == 1


def test_what_was_corrected_by_hand_is_not_replaced(tmp_path: Path) -> None:
    image, out = photo(tmp_path / "a.jpg"), tmp_path / "out"

    def again(formats: tuple[str, ...] = ("labelme",), **options: bool) -> None:
        with opened(out, formats, **options) as folder:
            folder.check([image])
            if not folder.is_done(image):
                finish(folder, image)

    again()
    (out / "a.json").write_text("corrected")
    again()  # it is done
    (out / "a_overlay.jpg").unlink()
    (out / ".svfseg.begun").unlink()  # another image was begun since
    with pytest.raises(InputError, match=r"a.json was changed since it was written"):
        again()
    assert (out / "a.json").read_text() == "corrected"
    again(overwrite=True)
    assert (out / "a.json").read_bytes() != b"corrected"
    photo(image, "blue")
    again()  # what it wrote itself is its own


def test_notes_of_somebody_else_are_no_log(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/predictions.jsonl").write_text("my own notes")
    with pytest.raises(InputError, match="is not a log of this command"), opened(tmp_path / "out"):
        pass
    assert (tmp_path / "out/predictions.jsonl").read_text() == "my own notes"


@pytest.mark.posix
def test_pipes_and_devices_among_pictures_are_left_out(tmp_path: Path) -> None:
    """Reading one would never end."""
    pipe, link = tmp_path / "pipe.jpg", tmp_path / "link.jpg"
    os.mkfifo(pipe)
    link.symlink_to("/dev/zero")
    for path in (pipe, link):
        with pytest.raises(InputError, match="is not a regular file"):
            digest_of(path)


def test_a_pipe_as_log_does_not_wait_for_ever(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / LOG)
    with pytest.raises(InputError, match="is not a regular file"):
        opened(tmp_path).__enter__()


class Ready:
    """A watch in a thread; gives the names that were ready, in order."""

    def __init__(self, places: list[Path], folder: PredictionFolder) -> None:
        self.names: list[str] = []
        self._end = threading.Event()
        self._watch = Watch(places, folder)
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        for images in self._watch:
            self.names += [image.name for image in images]
            if self._end.is_set():
                return

    def __enter__(self) -> "Ready":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join(10)
        assert not self._thread.is_alive()

    def wait_for(self, name: str) -> None:
        deadline = time.monotonic() + 15
        while name not in self.names and time.monotonic() < deadline:
            time.sleep(0.05)
        assert name in self.names


def test_a_watch_goes_on_whatever_happens_in_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A dangling link, a second image of a name, the folder away for a moment, a slow copy."""
    monkeypatch.setattr("svfseg.segmenter.watching.WATCH_SECONDS", 0.2)
    inbox = tmp_path / "in"
    photo(inbox / "1.jpg")
    with opened(tmp_path / "out") as folder, caplog.at_level(logging.WARNING), \
            Ready([inbox], folder) as ready:  # fmt: skip
        ready.wait_for("1.jpg")
        finish(folder, inbox / "1.jpg")
        (inbox / "dangling.jpg").symlink_to("nowhere.jpg")
        photo(inbox / "1.png", "blue")  # has the name of another
        photo(inbox / "2.jpg")
        ready.wait_for("2.jpg")
        inbox.rename(tmp_path / "away")
        time.sleep(0.6)
        (tmp_path / "away").rename(inbox)
        photo(inbox / "3.jpg")
        ready.wait_for("3.jpg")
        whole = photo(tmp_path / "slow.png", "green").read_bytes()
        for end in (20, len(whole)):  # with an old time, as cp -p leaves it
            (inbox / "slow.png").write_bytes(whole[:end])
            os.utime(inbox / "slow.png", (1, 1))
            ready.wait_for("slow.png")
            ready.names.remove("slow.png")
    assert "1.png" not in ready.names
    assert ready.names.count("2.jpg") == 1
    assert caplog.text.count("waiting for it") == 1


def test_a_watch_passes_over_what_it_wrote_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("svfseg.segmenter.watching.WATCH_SECONDS", 0.2)
    photo(tmp_path / "1.jpg")
    with opened(tmp_path) as folder, Ready([tmp_path], folder) as ready:
        ready.wait_for("1.jpg")
        finish(folder, tmp_path / "1.jpg")
        photo(tmp_path / "2.jpg")
        ready.wait_for("2.jpg")
    assert set(ready.names) == {"1.jpg", "2.jpg"}
    assert np.asarray(Image.open(tmp_path / "1.png")).shape == (16, 20)


@pytest.mark.parametrize("name", ["coco.json", "labels/classes.txt"])
def test_files_of_all_images_are_checked_before_a_watch(tmp_path: Path, name: str) -> None:
    theirs = tmp_path / name
    theirs.parent.mkdir(exist_ok=True)
    theirs.write_text("by hand")
    with opened(tmp_path, FORMATS) as folder, pytest.raises(InputError, match="is there already"):
        folder.check([])
