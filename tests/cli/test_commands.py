"""The command line as a user runs it: results, and one line of advice for every mistake."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from svfseg.cli import main
from svfseg.cli.bench import BENCHES
from svfseg.cli.commands import COMMANDS
from svfseg.cli.data import ACTIONS
from svfseg.cli.lab import TrainArguments
from svfseg.cli.parse import split_config_file
from tests.data.test_files import folder_of
from tests.data.voc_tree import rectangle, voc_tree

OPTIONS = """
data: {name: folder, size: 64, resize_longest: true, validation_fraction: 0.4}
model: {hidden: 16, backbone: {name: test_resnet, weights: none}}
optim: {lr: 0.05, steps: 4, batch: 2}
selection: {every: 2, episodes: 3}
workers: 0
device: cpu
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data, a config and a finished run."""
    home = tmp_path_factory.mktemp("home")
    folder_of(home / "data", classes=8, each=5)
    (home / "config.yaml").write_text(OPTIONS)
    words = ["train", str(home / "config.yaml"), "--data.root", str(home / "data")]
    assert main([*words, "--out", str(home / "run")]) == 0
    return home


def fails(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """The one line that a bad call prints."""
    capsys.readouterr()
    assert main([str(w) for w in words]) == 2
    printed = capsys.readouterr()
    line = printed.err.strip().splitlines()[-1]
    assert line.startswith("svfseg: ")
    assert "Traceback" not in printed.err
    return line


def test_overview_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in COMMANDS)
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("svfseg 0.")


GROUPS = {"data": ACTIONS, "bench": BENCHES}


@pytest.mark.parametrize(
    "command",
    [n for n in COMMANDS if n not in GROUPS] + [f"{g} {n}" for g in GROUPS for n in GROUPS[g]],
)
def test_help_shows_defaults(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([*command.split(), "--help"])
    assert stopped.value.code == 0
    assert "default" in capsys.readouterr().out


@pytest.mark.parametrize("group", GROUPS)
def test_a_group_says_what_its_commands_do(group: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([group, "--help"]) == 0
    text = capsys.readouterr().out
    for name in GROUPS[group]:
        assert re.search(rf"^  {name} +[A-Z].*\.$", text, re.MULTILINE), name
    assert f"svfseg {group} COMMAND --help" in text


def test_the_program_in_a_process_of_its_own(home: Path) -> None:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "svfseg", *words], capture_output=True, text=True, cwd=home
        )

    assert run("--help").returncode == 0
    wrong = run("eval", "nowhere")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert (
        wrong.stderr
        == "svfseg: nowhere is not a run: it has no config.yaml; give a folder of train\n"
    )
    unknown = run("trian")
    assert unknown.returncode == 2
    assert "did you mean train" in unknown.stderr
    option = run("train", "--optim.lrr", "3")
    assert option.returncode == 2
    assert "--optim.lr" in option.stderr + option.stdout


def test_eval_writes_json(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "deep" / "result.json"
    words = ["eval", str(home / "run"), "--episodes", "3", "--seeds", "1", "2", "--shot", "2"]
    assert main([*words, "--data.fold", "1", "--workers", "0", "--json", str(out)]) == 0
    result = json.loads(out.read_text())
    assert (result["fold"], result["shot"], len(result["seeds"])) == (1, 2, 2)
    printed = capsys.readouterr().out
    assert "mIoU" in printed
    assert "seen in training" in printed


def test_eval_on_a_written_list(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "list.json"
    data = ["--root", str(home / "data")]
    assert main(["data", "episodes", "folder", *data, "--count", "4", "--out", str(out)]) == 0
    run = ["eval", str(home / "run"), "--workers", "0", "--episode-list", str(out)]
    assert main(run) == 0
    assert "4" in capsys.readouterr().out
    out.write_text(out.read_text().replace("c1_0", "c1_1"))
    assert "was changed" in fails(capsys, *run)


def test_predict_writes_masks_of_the_querys_size(home: Path, tmp_path: Path) -> None:
    data, out = home / "data", tmp_path / "found"
    big = tmp_path / "big.jpg"
    Image.open(data / "images" / "c1_1.jpg").resize((301, 203)).save(big)
    words = ["predict", str(home / "run"), "--out", str(out)]
    words += ["--support", str(data / "images/c1_2.jpg"), str(data / "images/c1_3.jpg")]
    words += ["--mask", str(data / "masks/c1_2.png"), str(data / "masks/c1_3.png")]
    for i in range(2):
        words += [
            "--support",
            str(data / f"images/c1_{i}.jpg"),
            "--mask",
            str(data / f"masks/c1_{i}.png"),
        ]
    assert main([*words, "--query", str(big), str(data / "images/c2_0.jpg")]) == 0
    assert sorted(p.name for p in out.glob("[!.]*")) == [
        "big.png", "big_overlay.jpg", "c2_0.png", "c2_0_overlay.jpg", "predictions.jsonl",
        *(f"support_{i}_overlay.jpg" for i in range(1, 5)),
    ]  # fmt: skip
    mask = np.asarray(Image.open(out / "big.png"))
    assert mask.shape == (203, 301)
    assert set(np.unique(mask)) <= {0, 255}
    (tmp_path / "mine").mkdir()
    mine = tmp_path / "mine/support_2_overlay.jpg"
    mine.write_bytes(big.read_bytes())
    own = [*words[:2], "--out", str(mine.parent), *words[4:], "--query", str(big)]
    assert main(own) == 2  # a picture of that name which no command wrote
    assert main([*own, "--query", str(mine), "--overwrite"]) == 2  # or which is read
    assert mine.read_bytes() == big.read_bytes()


def test_predict_refuses_bad_input(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image, mask = home / "data/images/c1_0.jpg", home / "data/masks/c1_0.png"
    empty, small, text = tmp_path / "empty.png", tmp_path / "small.png", tmp_path / "text.png"
    Image.new("L", (48, 40)).save(empty)
    Image.new("L", (5, 5), 1).save(small)
    text.write_text("not an image")
    out = tmp_path / "out"

    def predict(support: Path, marked: Path, query: Path, run: Path = home / "run") -> str:
        return fails(
            capsys, "predict", run, "--support", support, "--mask", marked,
            "--query", query, "--out", out,
        )  # fmt: skip

    assert "is empty: mark the class" in predict(image, empty, image)
    assert "the image is 48x40, its mask 5x5" in predict(image, small, image)
    assert "not an image" in predict(text, mask, image)
    assert "not an image" in predict(image, mask, text)
    assert "no image or folder at" in predict(image, mask, tmp_path / "gone.jpg")
    assert "is not a run" in predict(image, mask, image, tmp_path)
    (tmp_path / "config.yaml").write_text((home / "run/config.yaml").read_text())
    assert "no checkpoint 'best'" in predict(image, mask, image, tmp_path)
    assert "1 --support and 0 --mask" in fails(
        capsys, "predict", home / "run", "--support", image, "--query", image
    )
    both = ["predict", home / "run", "--support", image, "--mask", mask]
    assert "there are no images" in fails(capsys, *both)
    assert "no images in" in fails(capsys, *both, "--query", home)
    assert "device is gpu" in fails(capsys, *both, "--query", image, "--device", "gpu")
    twin = tmp_path / image.name
    twin.write_bytes(image.read_bytes())
    assert "would overwrite" in fails(capsys, *both, "--query", image, twin)
    assert not out.exists()


def test_train_refuses_bad_input(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, out = home / "config.yaml", tmp_path / "run"
    words = ["train", config, "--data.root", home / "data", "--out", out]
    assert "no configuration file at" in fails(capsys, "train", tmp_path / "gone.yaml")
    assert "folds 0 to 3" in fails(capsys, *words, "--data.fold", 9)
    assert "too few images" in fails(capsys, *words, "--shot", 7)
    assert "did you mean test_resnet" in fails(
        capsys, *words, "--model.backbone.name", "test_resnt"
    )
    assert "did you mean pfenet" in fails(capsys, *words, "--model.head", "pfnet")
    assert "no weight file" in fails(capsys, *words, "--model.backbone.weights", "gone.pth")
    assert "holds a run already" in fails(capsys, "train", config, "--out", home / "run")
    (tmp_path / "typo.yaml").write_text("optim: {lrate: 1}")
    assert "optim.lrate" in fails(capsys, "train", tmp_path / "typo.yaml")
    assert not out.exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            "predict a.svf photo.jpg",
            "Unrecognized options: photo.jpg; give the images with --query",
        ),
        ("predict a.svf --quer photo.jpg", "--quer, photo.jpg; did you mean --query;"),
        ("fit photo.jpg --support a.jpg", "photo.jpg; give the marked images with --support"),
        ("fit --support a --adapt slow", "--adapt is slow: expected none, svf, norm, lora, full;"),
        ("fit --support a --steps many", "--steps is many: expected a whole number; svfseg fit"),
        ("fit --support a --lr high", "--lr is high: expected a number; svfseg fit"),
        ("fit --support a --steps", "--steps needs a value; svfseg fit --help"),
        ("train --tuning.stages last", "--tuning.stages is last: expected whole numbers;"),
        ("serve --port many", "--port is many: expected a whole number;"),
        ("report", "Missing from svfseg report: PATH; svfseg report --help"),
        ("train --optim.step 3", "--optim.step, 3; did you mean --optim.steps;"),
        ("segment", "unknown command segment: expected one of analyze, app,"),
        ("import", "did you mean import-checkpoint?"),
        ("serve --port 99999", "port 99999 (bind(): port must be 0-65535"),
    ],
)
def test_wrong_words_get_one_line(
    words: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in fails(capsys, *words.split())
    assert len(capsys.readouterr().err.splitlines()) <= 1


def test_inspect(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    assert main(["inspect", "resnet50_deep"]) == 0
    assert "12,544 of 23,631,808 values train (0.053 %)" in capsys.readouterr().out
    assert main(["inspect", "vgg16_bn"]) == 0
    printed = capsys.readouterr().out
    assert "vgg16_bn has the output stride 16" in printed
    assert "3,840 of 14,723,136" in printed
    assert main(["inspect", str(home / "run")]) == 0
    assert "layer4" in capsys.readouterr().out
    assert main(["inspect", "test_resnet", "--target-modules", r"layer4\..*", "--train", "SV"]) == 0
    assert "layer3" not in capsys.readouterr().out
    line = fails(capsys, "inspect", "test_resnet", "--target-modules", "layr4.*")
    assert "the nearest name is 'layer4'" in line


def test_data_verify(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = voc_tree(tmp_path / "voc", {"a": rectangle(1, 3000), "b": rectangle(6, 3000)})
    assert main(["data", "verify", "pascal5i", "--root", str(root)]) == 0
    assert "every file is there" in capsys.readouterr().out
    (root / "JPEGImages" / "a.jpg").unlink()
    assert "1 files are missing" in fails(capsys, "data", "verify", "pascal5i", "--root", root)
    assert "no lists in" in fails(capsys, "data", "verify", "pascal5i", "--root", tmp_path)
    assert "did you mean verify" in fails(capsys, "data", "verfy")


def test_import_refuses_what_is_no_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text.pth").write_text("no weights")
    words = ["import-checkpoint", tmp_path / "text.pth", "--out", tmp_path / "run"]
    assert "not a weight file" in fails(capsys, *words)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "file", "others"),
    [
        ("c.yaml --out r", "c.yaml", "--out r"),
        ("--out r c.yaml", "c.yaml", "--out r"),
        ("--resume c.yaml --out r", "c.yaml", "--resume --out r"),
        ("--data.resize-longest c.yml", "c.yml", "--data.resize-longest"),
        ("--out=r c.yaml", "c.yaml", "--out=r"),
        ("--data.train-lists a b c.yaml --shot 5", "c.yaml", "--data.train-lists a b --shot 5"),
        ("--out r.yaml", None, "--out r.yaml"),
        ("settings", "settings", ""),
        ("--resume settings", "settings", "--resume"),
        ("", None, ""),
    ],
)
def test_the_config_may_stand_anywhere(words: str, file: str | None, others: str) -> None:
    found, rest = split_config_file(words.split(), TrainArguments)
    assert found == (None if file is None else Path(file))
    assert rest == others.split()


def test_two_configs_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert "give one" in fails(capsys, "train", "a.yaml", "b.yaml")
