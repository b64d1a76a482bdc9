"""The demo in small: both trainings, the comparison, and a page that needs no network."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest

import svfseg.lab.demo as demo_module
from svfseg.cli import main


@pytest.mark.slow
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


@pytest.mark.parametrize(("frozen", "svf", "word"), [(0.3, 0.4, "higher"), (0.4, 0.3, "lower")])
def test_the_verdict_names_the_better_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, frozen: float, svf: float, word: str
) -> None:
    """With scores that are known, from the arms as the demo trains them."""
    scores = {"frozen": frozen, "svf": svf}

    def run(folder: Path, strategy: str, *_: object) -> demo_module.Arm:
        result = SimpleNamespace(miou=scores[folder.name])
        return demo_module.Arm(strategy, folder, result, [], 0.0)  # type: ignore[arg-type]

    monkeypatch.setattr(demo_module, "_run", run)
    monkeypatch.setattr(demo_module, "_render", lambda arms, verdict, *_: verdict)
    result = demo_module.demo(tmp_path / "demo")
    assert result.verdict.startswith(f"SVF scored 10.0 points {word} than the frozen backbone")
    assert f"{100 * svf:.1f} against {100 * frozen:.1f} mIoU" in result.verdict
    assert [arm.strategy for arm in result.arms] == ["frozen", "svf"]


def test_the_arms_train_with_their_own_strategies(tmp_path: Path) -> None:
    for strategy in demo_module.STRATEGIES:
        config = demo_module.demo_config(tmp_path / strategy, strategy, 2, 0)
        assert config.tuning.strategy == strategy == Path(config.out).name
