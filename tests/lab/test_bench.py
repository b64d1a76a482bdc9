"""The deterministic figures of the benchmarks hold their bars; the commands print tables."""

import json
from pathlib import Path

import pytest
import torch

from svfseg.cli import main
from svfseg.cli.tables import bench_table
from svfseg.lab.bench.measure import resident_bytes
from svfseg.lab.bench.step import BARS, SETTINGS, build_arms, count, step_of
from svfseg.svf.layers import FactoredLayer


@pytest.mark.slow
@pytest.mark.parametrize("network", ["resnet50", "resnet50_deep"])
def test_memory_and_operations_hold_their_bars(
    network: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deterministic: shapes decide, not values, so the factors need not be those of a weight."""
    _factor_quickly(monkeypatch)
    arms = build_arms(network)
    _, side, batch = SETTINGS[network]
    image = torch.zeros(batch, 3, side, side)
    merged = arms.pop("merged")
    figures = {}
    for name, model in arms.items():
        figures[name] = count(model.train(), step_of(model, image, name == "floor"))
    for (figure, arm), bar in BARS.items():
        if figure != "seconds":
            assert figures["ours"][figure] / figures[arm][figure] <= bar, (figure, arm)
    assert resident_bytes(merged) == resident_bytes(arms["floor"])
    assert [type(m) for m in merged.modules()] == [type(m) for m in arms["floor"].modules()]


def test_merged_is_the_untouched_network() -> None:
    arms = build_arms("tf_efficientnet_lite0")
    image = 255 * torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        for found, expected in zip(
            arms["merged"].eval()(image), arms["floor"].eval()(image), strict=True
        ):
            assert (found - expected).norm() <= 1e-5 * expected.norm()


def test_stages_before_the_first_trained_layer_keep_nothing() -> None:
    ours = build_arms("tf_efficientnet_lite0")["ours"]
    x = ours.stage(1)(ours.stage(0)(torch.rand(1, 3, 64, 64)))  # type: ignore[operator]
    assert not x.requires_grad
    first = next(m for m in ours.stage(2).modules() if isinstance(m, FactoredLayer))  # type: ignore[operator]
    assert ours.stage(2)(x).requires_grad  # type: ignore[operator]
    assert first.s.requires_grad


def test_the_command_prints_a_table_and_writes_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "rows.jsonl"
    words = ["bench", "step", "tf_efficientnet_lite0", "--repeats", "1", "--json", str(out)]
    assert main(words) == 0
    assert "ours / three-op" in capsys.readouterr().out
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["arm"] for row in rows[:4]] == ["floor", "full", "three-op", "ours"]
    assert "environment" in rows[-1]
    assert rows[3]["saved bytes"] < rows[2]["saved bytes"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["bench", "stop"], "unknown command bench stop; did you mean step?"),
        (["bench", "step", "resnet5"], "unknown network resnet5"),
        (["bench", "factor", "--json", "."], ". is a folder: give a file to write"),
    ],
)
def test_bad_input_is_one_line(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    error = capsys.readouterr().err
    assert message.split("; did")[0] in error
    assert len(error.splitlines()) == 1


def test_tables_show_bars_where_there_are_some() -> None:
    table = bench_table(
        [
            {"arm": "a", "seconds": 1.5, "bytes": 2_000_000, "side": 3},
            {"arm": "b / a", "seconds": 0.5, "side": 3, "bars": {"seconds": 0.6}},
        ]
    )
    assert "0.500 (bar 0.60)" in table
    assert "2.0 MB" in table
    assert "side 3" in table


def _factor_quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Factors of the right shapes without a decomposition."""
    from svfseg.svf.factorize import Factors, fold

    def shapes(weight: torch.Tensor, groups: int = 1, transposed: bool = False) -> Factors:
        matrices = fold(weight.detach(), groups, transposed)
        g, rows, columns = matrices.shape
        rank = min(rows, columns)
        return Factors(
            torch.zeros(g, rows, rank), torch.ones(g, rank), torch.zeros(g, rank, columns)
        )

    monkeypatch.setattr("svfseg.svf.layers.factorize", shapes)
    monkeypatch.setenv("SVFSEG_FACTOR_CACHE_MIB", "0")


def test_the_cost_of_every_strategy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from svfseg.tuning.strategies import STRATEGIES

    out = tmp_path / "rows.jsonl"
    words = ["bench", "cost", "--backbone", "test_resnet", "--size", "65", "--json", str(out)]
    assert main(words) == 0
    assert "svf+norm" in capsys.readouterr().out
    rows = {row["arm"]: row for row in map(json.loads, out.read_text().splitlines()[:-1])}
    assert list(rows) == list(STRATEGIES)
    assert rows["frozen"]["trained"] == rows["frozen"]["task bytes"] == 0
    for name in ("norm", "bias", "svf", "ssf"):
        assert 0 < rows[name]["trained"] < 0.2 * rows["full"]["trained"]
        assert 4 * rows[name]["trained"] < rows[name]["task bytes"]
    assert rows["svf"]["trained"] < rows["svf+norm"]["trained"]
    assert rows["svf"]["kept bytes"] < rows["layers"]["kept bytes"]
    assert rows["frozen"]["step operations"] == min(r["step operations"] for r in rows.values())
    assert main(["bench", "cost", "svg"]) == 2
    assert "did you mean" in capsys.readouterr().err
