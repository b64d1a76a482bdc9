"""The pictures of docs/app.md: the page at 1280 and 390 pixels, light and dark.

    python results/screenshots.py --root VOC2012

Eight photographs of cows of Pascal VOC's val list, two marked along their true outlines.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from tests.web.browser import (  # noqa: E402
    browser,
    click_outline,
    open_image,
    page_of,
    served,
    wait_done,
    wait_saved,
)  # fmt: skip

COW = 10
COWS = ("2007_000491", "2007_002903", "2007_001299", "2007_003201", "2007_003841", "2007_005547",
        "2007_006841", "2007_008973")  # fmt: skip
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}


def main(root: Path) -> None:
    images = HERE.parent / "docs" / "images"
    pictures = [root / f"JPEGImages/{name}.jpg" for name in COWS]
    with (
        tempfile.TemporaryDirectory() as folder,
        served(Path(folder) / "cows", *pictures) as address,
        browser() as chromium,
    ):
        with page_of(chromium, address) as page:
            page.fill('#classes input[type="text"]', "cow")
            page.keyboard.press("Enter")
            for name in COWS[:2]:
                open_image(page, f"{name}.jpg")
                click_outline(
                    page, np.asarray(Image.open(root / f"SegmentationClassAug/{name}.png")) == COW
                )
                wait_saved(page)
            page.click("#learn")
            wait_done(page)
            page.select_option("#sort", "doubt")
            open_image(page, f"{COWS[2]}.jpg")
            page.click('[data-tool="brush"]')
            page.wait_for_timeout(1500)
            page.screenshot(path=images / "page.png")
        with page_of(chromium, address, color_scheme="dark", **PHONE) as page:
            open_image(page, f"{COWS[4]}.jpg")
            page.wait_for_timeout(1500)
            page.screenshot(path=images / "page_phone.png")
    for name in ("page.png", "page_phone.png"):  # a third of the size
        picture = Image.open(images / name).convert("RGB")
        picture.quantize(200, dither=Image.Dither.NONE).save(images / name, optimize=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, required=True)
    main(parser.parse_args().root)
