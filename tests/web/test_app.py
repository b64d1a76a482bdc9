"""The page in a real browser: mark, learn, look through, correct, save; and what may go wrong."""

import io
import json
import time
import zipfile
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from svfseg import FewShotSegmenter
from svfseg.errors import InputError
from svfseg.segmenter.negatives import photographs
from svfseg.segmenter.task_file import read_task
from tests.web.browser import (
    browser,
    click_outline,
    drag,
    needs_chromium,
    open_image,
    page_of,
    place,
    served,
    started,
    wait_done,
    wait_saved,
)

COW = 10
COWS = ("2007_000491", "2007_002903", "2007_001299", "2007_003841", "2007_008973", "2007_003201")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A few photographs, small."""
    folder = tmp_path_factory.mktemp("scenes")
    paths = []
    for number, photograph in enumerate(photographs()[:4]):
        image = Image.fromarray(photograph)
        image.thumbnail((200, 200))
        paths.append(folder / f"scene{number}.jpg")
        image.save(paths[-1])
    return paths


def stored_mask(project: Path, stem: str) -> np.ndarray:
    """The ids that a project holds of an image."""
    (path,) = (project / "marks").glob(f"{stem}-*.png")
    return np.asarray(Image.open(path))


def iou(found: np.ndarray, truth: np.ndarray) -> float:
    counted = truth != 255
    wanted = truth == COW
    return float((found & wanted).sum() / ((found | wanted) & counted).sum())


@needs_chromium
@pytest.mark.shared
def test_from_images_to_masks(voc: Path, tmp_path: Path) -> None:
    """On photographs of cows: mark two, outline the rest, correct one, learn again, save."""
    truth = {
        name: np.asarray(Image.open(voc / f"SegmentationClassAug/{name}.png")) for name in COWS
    }
    pictures = [voc / f"JPEGImages/{name}.jpg" for name in COWS]
    with served(tmp_path / "cows") as address, browser() as chromium:
        with page_of(chromium, address, accept_downloads=True) as page:
            page.set_input_files("#files", pictures)
            page.wait_for_selector(f"#images li:nth-child({len(COWS)})")
            page.fill('#classes input[type="text"]', "cow")
            page.keyboard.press("Enter")
            for name in COWS[:2]:
                open_image(page, f"{name}.jpg")
                click_outline(page, truth[name] == COW)
                wait_saved(page)
                kept = stored_mask(tmp_path / "cows", name)
                assert kept.shape == truth[name].shape
                assert iou(kept == 1, truth[name]) > 0.9
            page.click("#learn")
            wait_done(page)
            expect(page.locator("#messages")).to_contain_text("% on left-out supports")
            expect(page.locator("#images small", has_text="% sure")).to_have_count(4)

            def score() -> float:
                with page.expect_download() as download:
                    page.click("#export")
                with zipfile.ZipFile(download.value.path()) as file:
                    assert sorted(file.namelist()) == [f"{name}.png" for name in sorted(COWS)]
                    masks = {n: np.asarray(Image.open(io.BytesIO(file.read(f"{n}.png"))))
                             for n in COWS[3:]}  # fmt: skip
                return float(np.mean([iou(mask > 0, truth[n]) for n, mask in masks.items()]))

            before = score()
            assert before > 0.3
            # a class that was not learned comes and goes, and all that was found stays
            page.on("dialog", lambda dialog: dialog.accept())
            page.click("#more")
            page.click("#classes li:nth-child(2) button")
            expect(page.locator("#classes li")).to_have_count(1)
            expect(page.locator("#images small", has_text="% sure")).to_have_count(4)
            # correct one: painting on what was found makes it an example
            open_image(page, f"{COWS[2]}.jpg")
            page.click('[data-tool="erase"]')
            page.locator("#radius").fill("40")
            drag(page, (0.05, 0.05), (0.95, 0.05), (0.95, 0.1), (0.05, 0.1))
            wait_saved(page)
            click_outline(page, truth[COWS[2]] == COW)
            page.click("#learn")
            wait_done(page)
            expect(page.locator("#examples")).to_have_text("Examples: cow: 3")
            assert score() > 0.3

            # the threshold moves what is shown, and what is saved
            open_image(page, f"{COWS[4]}.jpg")
            page.locator("#threshold").fill("0.9")
            page.locator("#threshold").dispatch_event("change")
            expect(page.locator("#level")).to_have_text("0.90")
            with page.expect_download() as download:
                page.click("#export")
            with zipfile.ZipFile(download.value.path()) as file:
                strict = np.asarray(Image.open(io.BytesIO(file.read(f"{COWS[4]}.png"))))
            page.locator("#threshold").fill("0.1")
            page.locator("#threshold").dispatch_event("change")
            page.select_option("#format", "coco")
            with page.expect_download() as download:
                page.click("#export")
            with zipfile.ZipFile(download.value.path()) as file:
                content = json.loads(file.read("coco.json"))
            numbers = {i["id"] for i in content["images"] if i["file_name"] == f"{COWS[4]}.jpg"}
            lax = sum(a["area"] for a in content["annotations"] if a["image_id"] in numbers)
            assert lax > 1.2 * (strict > 0).sum()
            learned = httpx.get(f"{address}/api/state").json()["as_learned"]
            page.click(f"text=Back to {learned[0]:.2f}, as learned")
            expect(page.locator("#learned")).to_be_hidden()
            expect(page.locator("#level")).to_have_text(f"{learned[0]:.2f}")
            assert httpx.get(f"{address}/api/state").json()["thresholds"] == learned

            with page.expect_download() as download:
                page.click("#task")
            download.value.save_as(tmp_path / "cows.svf")
        segmenter = FewShotSegmenter.load(tmp_path / "cows.svf")
        assert segmenter.classes_ == ("cow",)
        assert len(segmenter.features_[1]) == 3


@pytest.mark.slow
@needs_chromium
def test_what_was_done_is_there_after_a_reload_and_on_another_machine(
    scenes: list[Path], tmp_path: Path
) -> None:
    with browser() as chromium:
        with served(tmp_path / "a") as address, page_of(chromium, address) as page:
            page.set_input_files("#files", scenes)
            page.wait_for_selector("#images li:nth-child(4)")
            open_image(page, "scene0.jpg")
            drag(page, (0.3, 0.5), (0.7, 0.5), (0.5, 0.7))
            wait_saved(page)
            open_image(page, "scene1.jpg")
            page.keyboard.press("n")
            page.locator("#status", has_text="not in this one").wait_for()
            page.click("#learn")
            wait_done(page)
            before = httpx.get(f"{address}/api/state").json()
            page.reload()
            page.wait_for_selector("#images li:nth-child(4)")
            expect(page.locator("#examples")).to_have_text("Examples: thing: 1; without: 1")
            # a class that is renamed keeps what was learned and found, in the task's file too
            page.fill('#classes input[type="text"]', "part")
            page.keyboard.press("Enter")
            expect(page.locator("#which")).to_have_text("part")
            expect(page.locator("#threshold")).to_be_enabled()
            (tmp_path / "task.svf").write_bytes(httpx.get(f"{address}/api/task").content)
            assert read_task(tmp_path / "task.svf").metadata["classes"] == ["part"]
            before["classes"] = ["part"]
            mask = httpx.get(f"{address}/api/images/scene0.jpg/mask").content
        (tmp_path / "a").rename(tmp_path / "b")  # as copied to another machine
        with started(tmp_path / "b") as address, page_of(chromium, address) as page:
            after = httpx.get(f"{address}/api/state").json()
            for part in ("images", "classes", "learned", "thresholds"):
                assert after[part] == before[part]
            assert httpx.get(f"{address}/api/images/scene0.jpg/mask").content == mask
            # what was learned needs no learning again
            more = tmp_path / "more.png"
            Image.fromarray(photographs()[5][:150, :200]).save(more)
            page.set_input_files("#files", more)
            page.wait_for_selector('#images li[data-name="more.png"]')
            page.click("#rest")
            page.locator('#images li[data-name="more.png"] small', has_text="% sure").wait_for()


@pytest.mark.slow
@needs_chromium
def test_two_hundred_images_stream_and_can_be_stopped(tmp_path: Path) -> None:
    source = Image.fromarray(photographs()[0]).resize((96, 96))
    (tmp_path / "many").mkdir()
    for number in range(200):
        source.rotate(number).save(tmp_path / f"many/{number:03}.png")
    with served(tmp_path / "p", *sorted((tmp_path / "many").iterdir())) as address:
        url = f"{address}/api"
        mask = np.zeros((96, 96), np.uint8)
        mask[30:60, 30:60] = 1
        content = io.BytesIO()
        Image.fromarray(mask).save(content, "PNG")
        sent = httpx.put(f"{url}/images/000.png/mask", content=content.getvalue())
        assert sent.status_code == 200
        with browser() as chromium, page_of(chromium, address) as page:
            page.wait_for_selector("#images li:nth-child(200)")
            page.click("#learn")
            page.locator("#left", has_text="of 199 images").wait_for()
            page.locator("#images small", has_text="% sure").nth(4).wait_for()  # as they come
            page.locator("#left", has_text="s left").wait_for()
            page.click("#stop")
            page.locator("#stop", has_text="Stopping after this image").wait_for()
            wait_done(page)
            state = httpx.get(f"{url}/state").json()
            done = sum(image["found"] is not None for image in state["images"])
            assert state["job"]["stopped"]
            assert 5 <= done < 199
            # the rest later, without those that are done
            page.click("#rest")
            page.locator("#left", has_text=f"of {199 - done} images").wait_for()
            page.click("#stop")
            wait_done(page)


@pytest.mark.slow
@needs_chromium
def test_tools_and_keys(scenes: list[Path], tmp_path: Path) -> None:
    with (
        served(tmp_path / "p", *scenes) as address,
        browser() as chromium,
        page_of(chromium, address) as page,
    ):

        def marked() -> np.ndarray:
            expect(page.locator("#status")).not_to_contain_text("saving")
            data = httpx.get(f"{address}/api/images/scene0.jpg/mask").content
            return np.asarray(Image.open(io.BytesIO(data)))

        open_image(page, "scene0.jpg")
        drag(page, (0.2, 0.2), (0.4, 0.2))
        stroke = marked()
        assert stroke.any()
        page.keyboard.press("z")
        assert not marked().any()
        expect(page.locator("#status")).to_contain_text("to do")  # undone it is no example
        page.keyboard.press("y")
        assert np.array_equal(marked(), stroke)
        page.keyboard.press("e")
        drag(page, (0.3, 0.2), (0.5, 0.2))
        assert 0 < (marked() > 0).sum() < (stroke > 0).sum()
        # with the keyboard alone: a second class, painted by a cursor that arrows move
        page.click("#more")
        expect(page.locator("#classes li:nth-child(2) input[type=text]")).to_be_focused()
        page.keyboard.type("rim")
        page.keyboard.press("Enter")
        page.locator("#examples", has_text="rim").wait_for()
        page.mouse.move(5, 5)
        page.focus("#stage")
        page.keyboard.press("2")
        page.keyboard.press("b")
        page.keyboard.press("]")
        for _ in range(3):
            page.keyboard.press("Shift+ArrowDown")
        page.keyboard.down(" ")
        page.keyboard.press("Shift+ArrowRight")
        page.keyboard.up(" ")
        found = marked()
        assert (found == 2).sum() > 100
        assert np.argwhere(found == 2)[:, 0].mean() > found.shape[0] / 2
        # a click grows the region inside it
        page.keyboard.press("1")
        page.keyboard.press("c")
        with page.expect_response("**/grow"):
            page.mouse.click(*place(page, 0.75, 0.75))
        page.locator("#status", has_text=": example").wait_for()
        region = marked()
        assert region[150, 150] == 1
        # what is not it is taken out of the region again
        spots = np.argwhere((region == 1) & (found == 0))
        row, column = spots[np.abs(spots - 150).sum(axis=1).argmax()]
        far = ((column + 0.5) / region.shape[1], (row + 0.5) / region.shape[0])
        page.keyboard.press("v")
        with page.expect_response("**/grow"):
            page.mouse.click(*place(page, *far))
        expect(page.locator("#status")).not_to_contain_text("finding the region")
        less = marked()
        assert less[150, 150] == 1
        assert less[row, column] == 0
        page.keyboard.press("z")
        assert np.array_equal(marked(), region)
        # where no click grew it takes away what is alike at its place
        with page.expect_response("**/grow"):
            page.mouse.click(*place(page, 0.75, 0.75))
        expect(page.locator("#status")).not_to_contain_text("finding the region")
        assert marked()[150, 150] != 1
        page.keyboard.press("z")
        assert np.array_equal(marked(), region)
        # zoom keeps marks where they are
        page.keyboard.press("b")
        page.keyboard.press("+")
        page.keyboard.press("+")
        now = marked()
        drag(page, (0.5, 0.5), (0.52, 0.52))
        changed = np.argwhere(marked() != now) / now.shape
        assert len(changed) == 0 or np.abs(changed.mean(axis=0) - 0.51).max() < 0.05
        # what is marked counts again when "not in this one" is taken back
        now = marked()
        page.click("#hide")
        expect(page.locator("#paint")).to_be_hidden()
        page.keyboard.press("h")
        expect(page.locator("#paint")).to_be_visible()
        expect(page.locator("#previous")).to_be_disabled()  # it is the first
        page.keyboard.press("n")
        expect(page.locator("#status")).to_contain_text("not in this one")
        assert not marked().any()
        page.keyboard.press("n")
        expect(page.locator("#status")).to_contain_text(": example")
        assert np.array_equal(marked(), now)
        # a polygon that is open when one goes on is closed
        page.keyboard.press("p")
        for spot in ((0.1, 0.8), (0.3, 0.8), (0.2, 0.95)):
            page.mouse.click(*place(page, *spot))
        page.keyboard.press(".")
        page.wait_for_selector('#photo[alt="scene1.jpg"]')
        ids = httpx.get(f"{address}/api/images/scene0.jpg/mask").content
        assert (
            np.asarray(Image.open(io.BytesIO(ids)))[int(0.85 * now.shape[0]), now.shape[1] // 5]
            == 1
        )


@needs_chromium
def test_bad_uploads_are_named_and_the_rest_goes_on(scenes: list[Path], tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(scenes[0].read_bytes()[:900])
    (tmp_path / "notes.txt").write_text("no image")
    Image.new("1", (30000, 30000)).save(tmp_path / "bomb.png")
    (tmp_path / "large.bmp").write_bytes(b"BM" + bytes(3_000_000))
    with (
        served(tmp_path / "p") as address,
        browser() as chromium,
        page_of(chromium, address) as page,
    ):
        files = ["broken.jpg", "notes.txt", "bomb.png"]
        page.set_input_files("#files", [*(tmp_path / f for f in files), scenes[1]])
        page.wait_for_selector('#images li[data-name="scene1.jpg"]')
        text = page.locator("#messages").inner_text()
        for part in (
            "broken.jpg is a damaged image",
            "notes.txt is not an image",
            "bomb.png is too large",
        ):
            assert part in text
        page.set_input_files("#files", scenes[1])
        page.locator("#messages", has_text="scene1.jpg is there already").wait_for()
        page.set_input_files("#files", tmp_path / "large.bmp")
        page.locator("#messages", has_text="at most 2,000,000 bytes").wait_for()
        page.set_input_files("#files", scenes[2])
        page.wait_for_selector('#images li[data-name="scene2.jpg"]')
        page.click("#learn")
        page.locator("#messages", has_text="mark thing in at least one image first").wait_for()
        # messages go by themselves, but not while one reads them
        page.clock.install()
        for button in page.locator("#messages button").all()[::-1]:
            button.click()
        page.click("#learn")
        message = page.locator("#messages p")
        message.hover()
        page.clock.run_for(60_000)
        expect(message).to_have_count(1)
        page.mouse.move(5, 400)
        page.clock.run_for(60_000)
        expect(message).to_have_count(0)


@needs_chromium
def test_it_is_quick_fits_a_phone_and_asks_no_other_host(tmp_path: Path) -> None:
    """`page_of` fails on requests to others; a picture of 12 megapixels is painted on."""
    large = Image.fromarray(photographs()[0]).resize((4000, 3000))
    large.save(tmp_path / "large.jpg")
    with (
        served(tmp_path / "p", tmp_path / "large.jpg") as address,
        browser() as chromium,
    ):
        with page_of(chromium, address) as page:
            paint = page.evaluate(
                "performance.getEntriesByType('paint').map(e => e.startTime).sort()[0]"
            )
            assert paint < 2000
            open_image(page, "large.jpg")
            page.evaluate("""() => {
                window.waits = [];
                const stage = document.querySelector('#stage');
                stage.addEventListener('pointermove', () => {
                    const began = performance.now();
                    requestAnimationFrame(() => window.waits.push(performance.now() - began));
                });
            }""")
            drag(page, (0.1, 0.1), (0.9, 0.1), (0.9, 0.9), steps=40)
            waits = page.evaluate("window.waits")
            assert len(waits) > 20
            assert np.median(waits) < 50
            wait_saved(page)
            kept = stored_mask(tmp_path / "p", "large")
            assert kept.shape == (3000, 4000)
            assert kept.any()
        phone = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
        with page_of(chromium, address, color_scheme="dark", **phone) as page:
            assert page.evaluate("document.documentElement.scrollWidth") <= 390
            assert page.evaluate("getComputedStyle(document.body).backgroundColor") == (
                "rgb(20, 23, 28)"
            )
            # learning is within reach wherever one has scrolled to
            page.locator("#task").scroll_into_view_if_needed()
            expect(page.locator("#learn")).to_be_in_viewport()


@needs_chromium
def test_fingers_paint_and_two_of_them_move_the_picture(scenes: list[Path], tmp_path: Path) -> None:
    phone = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
    with (
        served(tmp_path / "p", scenes[0]) as address,
        browser() as chromium,
        page_of(chromium, address, **phone) as page,
    ):
        hand = page.context.new_cdp_session(page)

        def touch(*frames: list[tuple[float, float]]) -> None:
            """Fingers at points of the picture, frame after frame; then lifted."""
            for i, frame in enumerate(frames):
                fingers = [dict(zip("xy", place(page, *p), strict=True)) for p in frame]
                kind = "touchMove" if i else "touchStart"
                hand.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": fingers})
            hand.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})

        open_image(page, "scene0.jpg")
        touch([(0.3, 0.3)], [(0.5, 0.3)], [(0.6, 0.3)])
        wait_saved(page)
        stroke = stored_mask(tmp_path / "p", "scene0")
        rows, columns = np.nonzero(stroke)
        assert abs(rows.mean() / stroke.shape[0] - 0.3) < 0.05
        assert np.ptp(columns) > 0.25 * stroke.shape[1]
        before = page.locator("#sheet").bounding_box()
        x, y = place(page, 0.5, 0.5)
        hand.send("Input.dispatchTouchEvent",
                  {"type": "touchStart", "touchPoints": [{"x": x - 30, "y": y}]})  # fmt: skip
        for apart in (30, 60, 90):
            fingers = [{"x": x - apart, "y": y}, {"x": x + apart, "y": y}]
            kind = "touchStart" if apart == 30 else "touchMove"
            hand.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": fingers})
        hand.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        after = page.locator("#sheet").bounding_box()
        assert before
        assert after
        assert after["width"] > 2 * before["width"]
        assert abs(after["x"] + after["width"] / 2 - x) < 0.2 * after["width"]  # about the middle
        expect(page.locator("#status")).to_contain_text(": example")
        # and nothing was painted
        assert np.array_equal(stored_mask(tmp_path / "p", "scene0"), stroke)


def test_the_page_keeps_to_its_limits(scenes: list[Path], tmp_path: Path) -> None:
    words = ("--token", "secret", "--images", str(scenes[0]))
    with started(tmp_path / "p", *words) as entrance:
        address = entrance.removesuffix("/open/secret")
        assert address != entrance
        assert httpx.get(f"{address}/api/state").status_code == 401
        with httpx.Client(base_url=address, follow_redirects=True) as client:
            assert "svfseg" in client.get("/open/secret").text
            assert client.get("/api/state").status_code == 200
            elsewhere = {"Origin": "http://elsewhere.example"}
            assert client.post("/api/stop", headers=elsewhere).status_code == 403
            for path, status in (
                ("/api/images/gone.jpg", 404),
                ("/api/images/scene0.jpg/found/1", 404),
                ("/api/images/..%2Fproject.json", 404),
                ("/api/export", 422),
                ("/api/export?format=tiff", 422),
                ("/api/task", 404),
            ):
                answer = client.get(path)
                assert answer.status_code == status, path
                assert "\n" not in answer.json()["error"]
            for content in (b"", b"no image", scenes[0].read_bytes()):
                answer = client.put("/api/images/scene0.jpg/mask", content=content)
                assert answer.status_code == 422
            assert client.put("/api/classes", json=["a", "a"]).status_code == 422
            assert client.post("/api/outline").status_code == 422
            started_at = time.time()
            assert client.get("/api/state").json()["images"][0]["name"] == "scene0.jpg"
            assert time.time() - started_at < 2


def test_a_bug_is_told_apart_from_what_a_person_can_mend(
    scenes: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    raised: list[Exception] = []

    def broken(*_: object, **__: object) -> None:
        raise raised[-1]

    def failed(address: str) -> str:
        mask = io.BytesIO()
        with Image.open(scenes[0]) as scene:
            Image.new("L", scene.size, 1).save(mask, "PNG")
        assert httpx.put(
            f"{address}/api/images/scene0.jpg/mask", content=mask.getvalue()
        ).is_success
        assert httpx.post(f"{address}/api/learn", json={}).is_success
        while (job := httpx.get(f"{address}/api/state").json()["job"])["running"]:
            pass
        return str(job["error"])

    with served(tmp_path / "p", scenes[0]) as address:
        files = [("images", ("scene1.jpg", scenes[1].read_bytes(), "image/jpeg"))]
        with monkeypatch.context() as patch:
            patch.setattr("svfseg.web.project.project.decode_image", broken)
            raised.append(InputError("no picture"))
            answer = httpx.post(f"{address}/api/images", files=files)
            assert answer.json() == {"added": [], "problems": ["no picture"]}
            raised.append(ValueError("secret"))
            answer = httpx.post(f"{address}/api/images", files=files)
            assert answer.status_code == 500
            assert "a bug of the server" in answer.json()["error"]
        with monkeypatch.context() as patch:
            patch.setattr(FewShotSegmenter, "fit", broken)
            assert "a bug of the server" in failed(address)
            assert "ValueError: secret" in caplog.text
            caplog.clear()
            raised.append(InputError("too small"))
            assert failed(address) == "too small"
            assert not caplog.records
        with monkeypatch.context() as patch:
            raised.append(KeyError("secret"))
            patch.setattr("svfseg.web.project.PageProject.set_without", broken)
            url = f"{address}/api/images/scene0.jpg/without"
            assert httpx.put(url, json=True).status_code == 500
        for marks in (
            {"clicks": [{"points": "abc", "class": 1}]},
            {"clicks": [{"class": 1}]},
            {"clicks": [{"points": [1, 2], "class": "x"}]},
            {"scribbles": [{"points": [[1, 2], [3]], "class": 1}]},
            {"boxes": 3},
        ):
            answer = httpx.post(f"{address}/api/images/scene0.jpg/grow", json=marks)
            assert answer.status_code == 422, marks


def test_a_folder_of_something_else_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.cli.test_commands import fails

    (tmp_path / "thesis.txt").write_text("mine")
    assert "is not a project" in fails(capsys, "app", tmp_path, "--port", 0)
    (tmp_path / "q").mkdir()
    (tmp_path / "q/project.sqlite").write_text("no database")
    assert "is damaged" in fails(capsys, "app", tmp_path / "q", "--port", 0)
    (tmp_path / "p").mkdir()
    (tmp_path / "p/project.json").write_text("{")
    assert "is damaged" in fails(capsys, "app", tmp_path / "p", "--port", 0)
    (tmp_path / "p/project.json").write_text("[]")
    assert "is not an object" in fails(capsys, "app", tmp_path / "p", "--port", 0)
    with served(tmp_path / "open"):
        assert "is open in another program" in fails(capsys, "app", tmp_path / "open", "--port", 0)
    assert "there is no token" in fails(capsys, "app", tmp_path / "q", "--host", "0.0.0.0")
