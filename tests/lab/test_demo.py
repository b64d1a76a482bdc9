"""The demo in small: both trainings, the comparison, and a page that needs no network."""

import re
from pathlib import Path

import pytest

from svfseg.cli import main


@pytest.mark.timeout(280)
def test_demo_writes_one_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "demo"
    words = ["demo", "--out", str(out), "--steps", "2", "--episodes", "5"]
    assert main(words) == 0
    text = capsys.readouterr().out
    verdict = next(line for line in text.splitlines() if "mIoU on the novel classes" in line)
    assert "SVF scored" in verdict or "came out equal" in verdict
    page = (out / "demo.html").read_text()
    assert verdict.strip() in page
    assert not re.search(r"(src|href)=\"(?!data:)", page)
    assert page.count("<img") == 10 * 5
    assert "layer4" in page
    assert (out / "svf" / "best" / "adapter").is_dir()


def test_demo_keeps_its_hands_off_other_folders(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    assert main(["demo", "--out", str(tmp_path)]) == 2
    assert "is not a demo: choose another folder (--out)" in capsys.readouterr().err
    assert (tmp_path / "thesis.txt").read_text() == "mine"
