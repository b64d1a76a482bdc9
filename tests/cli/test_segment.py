"""Your own images on the command line: fit, predict in every format, go on, watch, report."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from svfseg.cli import main
from svfseg.data import stickers
from tests.cli.test_commands import fails


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as a user might have it: supports/ with images and masks, others/ without."""
    home = tmp_path_factory.mktemp("own")
    for name in ("supports/images", "supports/masks", "others"):
        (home / name).mkdir(parents=True)
    index = stickers(0, 8, "test")
    for position in range(2):
        sample = index.load(position)
        marked = sample.mask == max(index.pixels[position], key=index.pixels[position].get)
        Image.fromarray(sample.image).save(home / f"supports/images/{position}.jpg")
        Image.fromarray(marked.astype(np.uint8) * 255).save(home / f"supports/masks/{position}.png")
    for position in range(2, 6):
        Image.fromarray(index.load(position).image).save(home / f"others/{position}.jpg")
    words = ["fit", "--support", str(home / "supports"), "--classes", "thing", "--size", "96"]
    assert main([*words, "--never-empty", "--out", str(home / "thing.svf")]) == 0
    return home


def test_fit_takes_a_folder_images_or_a_list(own: Path, tmp_path: Path) -> None:
    images = [str(own / f"supports/images/{i}.jpg") for i in range(2)]
    masks = [str(own / f"supports/masks/{i}.png") for i in range(2)]
    (tmp_path / "list.csv").write_text(
        "image,mask\n" + "".join(f"{i},{m}\n" for i, m in zip(images, masks, strict=True))
    )
    common = ["--size", "96", "--never-empty", "--classes", "thing"]
    assert main(["fit", "--support", *images, "--mask", *masks, *common,
                 "--out", str(tmp_path / "a.svf")]) == 0  # fmt: skip
    assert main(["fit", "--support", str(tmp_path / "list.csv"), *common,
                 "--out", str(tmp_path / "b.svf")]) == 0  # fmt: skip
    # a folder of images and one of masks, which a painting program saved in three channels
    (tmp_path / "grey").mkdir()
    for i in range(2):
        with Image.open(masks[i]) as mask:
            mask.convert("RGB").save(tmp_path / f"grey/{i}.png")
    folders = ["--support", str(own / "supports/images"), "--mask", str(tmp_path / "grey")]
    assert main(["fit", *folders, *common, "--out", str(tmp_path / "c.svf")]) == 0
    from svfseg.segmenter.task_file import read_task

    paths = (own / "thing.svf", *(tmp_path / f"{name}.svf" for name in "abc"))
    tasks = [read_task(path).metadata for path in paths]
    assert tasks[0] == tasks[1] == tasks[2] == tasks[3]


def test_what_was_predicted_and_mended_in_labelme_becomes_the_support(
    own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its files beside the images, names of the classes from its labels."""
    (tmp_path / "mended").mkdir()
    words = ["predict", str(own / "thing.svf"), "--query", str(own / "supports/images")]
    assert main([*words, "--format", "labelme", "--out", str(tmp_path / "found")]) == 0
    for i in range(2):
        for path in (own / f"supports/images/{i}.jpg", tmp_path / f"found/{i}.json"):
            (tmp_path / "mended" / path.name).write_bytes(path.read_bytes())
    words = ["fit", "--support", str(tmp_path / "mended"), "--size", "96", "--never-empty"]
    assert main([*words, "--out", str(tmp_path / "again.svf")]) == 0
    assert "\nthing: IoU " in capsys.readouterr().out
    (tmp_path / "mended/1.json").unlink()
    line = fails(capsys, *words, "--out", tmp_path / "no.svf")
    assert "1 of 2 images" in line
    assert "first 1.jpg" in line


def test_predict_in_every_format_then_a_report(
    own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    formats = ["png", "coco", "yolo", "labelme", "geojson"]
    words = ["predict", str(own / "thing.svf"), "--query", str(own / "others"), "--out",
             str(tmp_path / "found"), "--format", *formats]  # fmt: skip
    assert main(words) == 0
    printed = capsys.readouterr()
    assert "2.png: thing" in printed.out
    assert "4 image(s)" in printed.err
    names = {path.name for path in (tmp_path / "found").iterdir()}
    assert {"2.png", "2_overlay.jpg", "2.json", "2.geojson", "labels", "coco.json"} <= names
    coco = json.loads((tmp_path / "found" / "coco.json").read_text())
    assert [image["file_name"] for image in coco["images"]] == [f"{i}.jpg" for i in range(2, 6)]
    assert main(["report", str(tmp_path / "found")]) == 0
    page = (tmp_path / "found" / "report.html").read_text()
    assert 'href="2_overlay.jpg"' in page
    assert "4 images, the doubtful first" in page
    assert page.count("data:image/jpeg") == 4
    assert "http://" not in page
    assert "https://" not in page
    sure = [float(part.split("<")[0]) for part in page.split('class="sure">')[1:]]
    doubt = [float(part.split("<")[0]) for part in page.split('class="doubt">')[1:]]
    assert doubt == sorted(doubt)
    assert sure == sorted(sure)
    assert len(doubt + sure) == 4
    assert "support" not in page
    assert "supports: judge" not in printed.err


def test_supports_among_the_images_are_told_apart(
    own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "all"
    folder.mkdir()
    (folder / "shown.jpg").write_bytes((own / "supports/images/0.jpg").read_bytes())
    (folder / "2.jpg").write_bytes((own / "others/2.jpg").read_bytes())
    out = tmp_path / "found"
    assert main(["predict", str(own / "thing.svf"), "--query", str(folder), "--out", str(out)]) == 0
    assert "1 of them was a support: judge by the others" in capsys.readouterr().err
    assert main(["report", str(out)]) == 0
    page = (out / "report.html").read_text()
    assert "1 of them is a support" in page
    assert page.count("(support)") == 1
    assert "<b>shown.jpg</b> (support)" in page


def test_done_images_are_skipped_and_a_cut_line_is_done_again(
    own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "found"
    words = ["predict", str(own / "thing.svf"), "--query", str(own / "others"), "--out", str(out)]
    assert main(words) == 0
    before = {p.name: p.stat().st_mtime_ns for p in out.glob("*.png")}
    log = out / "predictions.jsonl"
    log.write_text(log.read_text()[:-20])  # the last image's line was cut off by a stop
    capsys.readouterr()
    assert main(words) == 0
    done = [line.split(":")[0] for line in capsys.readouterr().out.splitlines()]
    assert done == ["5.png"]
    after = {p.name: p.stat().st_mtime_ns for p in out.glob("*.png")}
    assert {n for n in before if before[n] != after[n]} == {"5.png"}
    assert len(log.read_text().splitlines()) == 5
    assert "made with the formats png" in fails(capsys, *words, "--format", "yolo")


def test_an_image_that_changed_is_done_again(
    own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    for name in ("2", "3"):
        (tmp_path / f"in/{name}.jpg").write_bytes((own / f"others/{name}.jpg").read_bytes())
    words = ["predict", str(own / "thing.svf"), "--query", str(tmp_path / "in")]
    words += ["--out", str(tmp_path / "found")]
    assert main(words) == 0
    (tmp_path / "in/3.jpg").write_bytes((own / "others/4.jpg").read_bytes())
    capsys.readouterr()
    assert main(words) == 0
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()] == ["3.png"]


@pytest.mark.slow
def test_watch_takes_new_images_until_stopped(own: Path, tmp_path: Path) -> None:
    inbox, out = tmp_path / "inbox", tmp_path / "found"
    inbox.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "svfseg", "predict", str(own / "thing.svf"), "--watch", "--query",
         str(inbox), "--out", str(out), "--format", "coco"],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        # a shell's background jobs ignore the interrupt, and hand that on to what they start
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 120
        while not (out / "predictions.jsonl").exists() and time.monotonic() < deadline:
            time.sleep(0.2)
        whole = (own / "others/2.jpg").read_bytes()
        (inbox / "cut.jpg").write_bytes(whole[: len(whole) // 2])
        (inbox / "new.jpg").write_bytes(whole)
        while not (out / "new_overlay.jpg").exists() and time.monotonic() < deadline:
            time.sleep(0.2)
        while not (out / "coco.json").exists() and time.monotonic() < deadline:
            time.sleep(0.2)
        assert (out / "new.png").exists()
        coco = json.loads((out / "coco.json").read_text())
        assert [image["file_name"] for image in coco["images"]] == ["new.jpg"]
    finally:
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"Traceback" not in errors
    assert errors.count(b"left out: ") == 1


def test_a_broken_image_stops_nothing_else(
    own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "queries"
    folder.mkdir()
    for name in ("2.jpg", "3.jpg"):
        (folder / name).write_bytes((own / "others" / name).read_bytes())
    whole = (folder / "2.jpg").read_bytes()
    (folder / "2.jpg").write_bytes(whole[: len(whole) // 2])  # opens, and ends early
    words = ["predict", own / "thing.svf", "--query", folder, "--out", tmp_path / "found"]
    assert "1 of 2 images were left out" in fails(capsys, *words)
    assert (tmp_path / "found/3.png").exists()
    assert not (tmp_path / "found/2.png").exists()
    assert main(["report", str(tmp_path / "found")]) == 0
    page = (tmp_path / "found/report.html").read_text()
    assert "1 image, the doubtful first" in page
    assert "<summary>1 left out</summary>" in page
    assert "<b>2.jpg</b>" in page
    (folder / "text.png").write_text("no image")
    assert "2 of 3 images were left out" in fails(capsys, *words[:-1], tmp_path / "again")
    assert (tmp_path / "again/3.png").exists()
    (folder / "3.jpg").unlink()
    (folder / "2.jpg").unlink()
    assert "text.png is not an image" in fails(capsys, *words[:-1], tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_bad_words(own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image, mask = own / "supports/images/0.jpg", own / "supports/masks/0.png"
    out = ["--out", tmp_path / "x.svf"]
    black, white = tmp_path / "black.png", tmp_path / "white.png"
    with Image.open(mask) as marked:
        Image.new("L", marked.size, 0).save(black)
        Image.new("L", marked.size, 255).save(white)
    for words, message in (
        (["--support", image], "1 --support and 0 --mask"),
        (["--support", own / "others"], "4 of 4 images"),
        (["--support", own], "no images in"),
        (["--support", image, "--mask", mask, "--model", "no/such"], "is not a run"),
        (["--support", image, "--mask", mask, "--size", "3"], "at least 32 pixels"),
        (
            ["--support", image, "--mask", black, "--classes", "a", "b"],
            "black.png is empty",
        ),
        (["--support", image, "--mask", tmp_path / "gone.png"], "no file or folder at"),
        (["--support", image, "--mask", image], "it has colours and its compression is lossy"),
        (["--support", image, "--mask", white, "--classes", "a", "b"], "holds 255 alone"),
        (["--support", image, "--mask", mask, "--out", tmp_path], "is a folder: give a file"),
    ):
        assert message in fails(capsys, "fit", *out, *words), words
    (tmp_path / "empty.csv").write_text("# nothing\n")
    assert "lists no images" in fails(capsys, "fit", "--support", tmp_path / "empty.csv", *out)
    assert not (tmp_path / "x.svf").exists()
    task = own / "thing.svf"
    assert "has supports of its own" in fails(
        capsys, "predict", task, "--support", image, "--mask", mask, "--query", image
    )
    assert "no predictions in" in fails(capsys, "report", tmp_path)
    nested, moving = tmp_path / "nested/deep", tmp_path / "moving"
    nested.mkdir(parents=True)
    moving.mkdir()
    (nested / "a.jpg").write_bytes(image.read_bytes())
    for folder, said in (
        (nested.parent, f"its folders have some; give {nested}"),
        (moving, ".gif"),
    ):
        (folder / "b.gif").write_bytes(b"GIF89a")
        assert said in fails(capsys, "predict", task, "--query", folder)


def test_no_command_replaces_what_is_not_its_own(
    own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Photographs, masks, labels and pages of others, whatever is given as --out."""
    mine = tmp_path / "mine"
    for part in ("images", "masks"):
        (mine / part).mkdir(parents=True)
        for i in range(2):
            name = f"{part}/{i}.{'jpg' if part == 'images' else 'png'}"
            (mine / name).write_bytes((own / "supports" / name).read_bytes())
    (mine / "notes.txt").write_text("mine")
    (mine / "example.py").write_text("mine")
    Image.open(own / "others/2.jpg").save(mine / "photo.png")
    task = own / "thing.svf"
    before = {p: p.read_bytes() for p in mine.rglob("*") if p.is_file()}
    for words, message in (
        (["predict", task, "--query", mine / "images", "--out", mine / "masks"], "0.png is there"),
        (["predict", task, "--query", mine / "photo.png", "--out", mine], "is one of the images"),
        (["fit", "--support", mine, "--out", mine / "images/0.jpg"], "is read by this command"),
        (["fit", "--support", mine, "--out", mine / "images/0.jpg", "--overwrite"], "is read by"),
        (["fit", "--support", own / "supports", "--out", mine / "notes.txt"], "is there already"),
        (["export", task, "--out", mine], "example.py is there already"),
    ):
        assert message in fails(capsys, *words), words
        assert {p: p.read_bytes() for p in mine.rglob("*") if p.is_file()} == before
    found = tmp_path / "found"
    assert main(["predict", str(task), "--query", str(own / "others/2.jpg"), "--out",
                 str(found)]) == 0  # fmt: skip
    for name in ("2.png", "predictions.jsonl"):
        kept = (found / name).read_bytes()
        assert "is read by this command" in fails(capsys, "report", found, "--out", found / name)
        assert (found / name).read_bytes() == kept
    for _ in range(2):  # its own page is replaced
        assert main(["report", str(found)]) == 0
    (found / "report.html").write_text("<p>mine</p>")
    assert "--overwrite" in fails(capsys, "report", found)
    assert main(["report", str(found), "--overwrite"]) == 0


def test_predictions_may_lie_among_the_images(own: Path, tmp_path: Path) -> None:
    """Its own masks are no images of the next call."""
    (tmp_path / "2.jpg").write_bytes((own / "others/2.jpg").read_bytes())
    words = ["predict", str(own / "thing.svf"), "--query", str(tmp_path), "--out", str(tmp_path)]
    for _ in range(2):
        assert main(words) == 0
    assert len((tmp_path / "predictions.jsonl").read_text().splitlines()) == 2
    assert sorted(p.name for p in tmp_path.glob("[!.]*.*")) == [
        "2.jpg", "2.png", "2_overlay.jpg", "predictions.jsonl",
    ]  # fmt: skip
