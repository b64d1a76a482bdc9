"""Settings from YAML: every key and value is checked, and the nearest right one is named."""

from pathlib import Path

import pytest
import yaml

from svfseg.config import EvalConfig, TrainConfig, from_dict, read_config, to_dict, write_config
from svfseg.errors import InputError
from svfseg.lab.study import read_study

CONFIGS = sorted((Path(__file__).resolve().parents[1] / "configs").rglob("*.yaml"))
STUDIES = [path for path in CONFIGS if "arms" in yaml.safe_load(path.read_text())]


@pytest.mark.parametrize("word", ["on", "off", "yes", "no", "y", "n"])
def test_words_that_yaml_1_1_took_for_booleans_are_words(tmp_path: Path, word: str) -> None:
    (tmp_path / "c.yaml").write_text(f"{word}: {{{word}: {word}}}\ntruth: [true, False]\n")
    assert read_config(tmp_path / "c.yaml") == {word: {word: word}, "truth": [True, False]}


def test_round_trip(tmp_path: Path) -> None:
    config = from_dict(TrainConfig, {"data": {"scale_range": [0.8, 1.25]}, "optim": {"lr": 1}})
    assert config.optim.lr == 1.0
    assert config.data.scale_range == (0.8, 1.25)
    write_config(tmp_path / "c.yaml", config)
    assert from_dict(TrainConfig, read_config(tmp_path / "c.yaml")) == config
    assert from_dict(EvalConfig, to_dict(EvalConfig(seeds=(1, 2)))) == EvalConfig(seeds=(1, 2))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_every_config_of_the_repository_is_valid(path: Path) -> None:
    first = path.read_text().splitlines()[0]
    assert first.startswith("# "), "a config begins with what it is and its command"
    if path in STUDIES:
        assert read_study(path).arms
        return
    config = from_dict(TrainConfig, read_config(path))
    assert config.tuning.strategy in path.stem


def test_compared_configs_differ_only_in_the_tuning() -> None:
    folders = {path.parent for path in CONFIGS if path not in STUDIES}
    assert folders
    for folder in folders:
        plain = [yaml.safe_load(path.read_text()) for path in sorted(folder.glob("*.yaml"))]
        for config in plain:
            config.pop("tuning")
        assert all(config == plain[0] for config in plain)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"optm": {}}, "unknown setting optm: did you mean optim"),
        ({"optim": {"learning_rate": 1}}, "unknown setting optim.learning_rate: expected one of"),
        ({"optim": {"stepps": 1}}, "optim.stepps: did you mean steps"),
        ({"optim": {"lr": "fast"}}, "optim.lr is 'fast': expected a number"),
        ({"optim": {"steps": 1.5}}, "optim.steps is 1.5: expected a whole number"),
        ({"shot": True}, "shot is True: expected a whole number"),
        ({"optim": {"schedule": "polly"}}, "did you mean poly"),
        ({"data": {"scale_range": [1]}}, "expected 2 values"),
        ({"data": "pascal"}, "data is 'pascal': expected settings by name"),
        ([1], "expected settings by name"),
    ],
)
def test_mistakes_are_explained(values: object, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("[", r"\[")):
        from_dict(TrainConfig, values)


def test_numbers_that_yaml_reads_as_text() -> None:
    assert from_dict(TrainConfig, yaml.safe_load("optim: {lr: 1e-4}")).optim.lr == 1e-4


SLIPS = ("a: 2001-99-99", "a: !!bool maybe", "a: !!timestamp x", f"a: {'1' * 5000}", "[" * 5000,
         "a: !!int x", "? [a]\n: b")  # fmt: skip


@pytest.mark.parametrize("text", SLIPS, ids=lambda text: text[:16])
def test_what_yaml_stumbles_over_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(InputError, match=r"c\.yaml is not YAML: "):
        read_config(tmp_path / "c.yaml")


@pytest.mark.parametrize("part", ["{{l: *a{0}, r: *a{0}}}", "[*a{0}, *a{0}]"])
def test_a_few_lines_do_not_fill_the_memory(tmp_path: Path, part: str) -> None:
    """Aliases of aliases, thirty levels of them; and one that holds itself."""
    lines = ["a0: &a0 {x: 1}", *(f"a{n}: &a{n} {part.format(n - 1)}" for n in range(1, 30))]
    for text, count in (("\n".join(lines), r"[\d.e+]+"), ("train: &a [*a]", "inf")):
        (tmp_path / "c.yaml").write_text(text)
        with pytest.raises(InputError, match=rf"c\.yaml holds {count} values once its aliases"):
            read_config(tmp_path / "c.yaml")
    (tmp_path / "c.yaml").write_text("a: &a {x: 1}\nb: {<<: *a, c: *a}")
    assert read_config(tmp_path / "c.yaml") == {"a": {"x": 1}, "b": {"x": 1, "c": {"x": 1}}}


def test_broken_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no configuration file at"):
        read_config(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("a: [1")
    with pytest.raises(ValueError, match="is not YAML"):
        read_config(tmp_path / "bad.yaml")
    (tmp_path / "list.yaml").write_text("- 1")
    with pytest.raises(ValueError, match="holds no settings"):
        read_config(tmp_path / "list.yaml")
    (tmp_path / "empty.yaml").write_text("")
    assert read_config(tmp_path / "empty.yaml") == {}


def test_the_papers_configs_are_what_their_script_writes(tmp_path: Path, monkeypatch) -> None:
    import runpy

    script = runpy.run_path(str(CONFIGS[0].parents[1] / "make.py"))
    space = script["main"].__globals__
    for name, folder in (("PAPER", "paper"), ("REDUCED", "reduced")):
        (tmp_path / folder).mkdir()
        source = space[name]
        if folder == "reduced":
            text = (source / "strategies.yaml").read_text()
            (tmp_path / folder / "strategies.yaml").write_text(text)
        monkeypatch.setitem(space, name, tmp_path / folder)
    script["main"]()
    for path in sorted(tmp_path.rglob("*.yaml")):
        kept = CONFIGS[0].parents[1] / path.relative_to(tmp_path)
        assert path.read_text() == kept.read_text(), f"run python configs/make.py ({kept.name})"
