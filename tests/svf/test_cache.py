"""Factors on disk: found again, never half-written, never trusted when damaged, bounded."""

import multiprocessing
import os
from pathlib import Path

import pytest
import torch
from torch import nn

from svfseg.files import cache_folder
from svfseg.svf import apply_svf
from svfseg.svf import cache as cache_module
from svfseg.svf.cache import cached
from svfseg.svf.factorize import Factors, factorize
from svfseg.svf.layers import factorize_layer


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SVFSEG_CACHE", str(tmp_path))
    return tmp_path / "factors"


def layer(seed: int = 0) -> nn.Conv2d:
    torch.manual_seed(seed)
    return nn.Conv2d(128, 130, 1)


def never() -> Factors:
    raise AssertionError("factored again")


def entries(folder: Path) -> list[Path]:
    return sorted(folder.glob("*")) if folder.is_dir() else []


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_found_again_bit_by_bit(
    folder: Path, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    conv = layer().to(dtype)
    first = factorize_layer(conv)
    assert len(entries(folder)) == 1
    monkeypatch.setattr("svfseg.svf.layers.factorize", lambda *_: never())
    again = factorize_layer(conv)
    assert again.U.dtype == (torch.float32 if dtype == torch.bfloat16 else dtype)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    with torch.no_grad():
        conv.weight[0, 0] += 1
    with pytest.raises(AssertionError, match="factored again"):
        factorize_layer(conv)


def test_the_setting_is_part_of_the_key(folder: Path) -> None:
    weight = torch.randn(128, 128)
    cached(weight, "groups 1", torch.float32, lambda: factorize(weight))
    cached(weight, "groups 2", torch.float32, lambda: factorize(weight, 2))
    assert len(entries(folder)) == 2


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "text"])
def test_a_damaged_entry_is_rebuilt(folder: Path, damage: str) -> None:
    conv = layer()
    first = factorize_layer(conv)
    (path,) = entries(folder)
    content = bytearray(path.read_bytes())
    if damage == "flipped":
        content[-5] ^= 1
    path.write_bytes({"cut": content[:-9], "empty": b"", "text": b"hello"}.get(damage, content))
    again = factorize_layer(conv)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(first, factorize_layer(conv), strict=True))
    assert len(path.read_bytes()) == len(content)


def test_what_was_used_last_stays(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(3):
        factorize_layer(layer(seed))
        newest = max(entries(folder), key=lambda p: p.stat().st_mtime_ns)
        os.utime(newest, (seed + 1, seed + 1))
    factorize_layer(layer(0))  # touched: now the second is the oldest
    size = entries(folder)[0].stat().st_size
    monkeypatch.setattr(cache_module, "LIMIT", 3 * size)
    factorize_layer(layer(3))
    assert len(entries(folder)) == 3
    monkeypatch.setattr("svfseg.svf.layers.factorize", lambda *_: never())
    factorize_layer(layer(0))
    factorize_layer(layer(2))
    with pytest.raises(AssertionError, match="factored again"):
        factorize_layer(layer(1))


def test_off_and_nonsense(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SVFSEG_FACTOR_CACHE_MIB", "0")
    factorize_layer(layer())
    assert not entries(folder)
    monkeypatch.setenv("SVFSEG_FACTOR_CACHE_MIB", "much")
    with pytest.raises(ValueError, match="whole number of MiB"):
        factorize_layer(layer())


def test_a_disk_that_cannot_be_written_costs_only_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SVFSEG_CACHE", str(tmp_path / "file"))
    assert cache_folder().is_file()
    factors = factorize_layer(layer())
    assert factors.s.shape == (1, 128)
    assert "cannot be stored" in caplog.text


def _factor(seeds: list[int]) -> None:
    torch.set_num_threads(1)
    for seed in seeds:
        factorize_layer(layer(seed))


def test_two_processes_at_once(folder: Path) -> None:
    context = multiprocessing.get_context("spawn")
    both = [context.Process(target=_factor, args=([0, 1, 2, 0, 1, 2],)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(120)
    assert [p.exitcode for p in both] == [0, 0]
    assert len(entries(folder)) == 3
    assert not list(folder.glob("*.part"))
    for seed in range(3):
        expected = factorize(layer(seed).weight)
        assert torch.equal(factorize_layer(layer(seed)).s, expected.s.float())


def test_progress_counts_layers() -> None:
    seen: list[tuple[int, int]] = []
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    apply_svf(model, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 2), (2, 2)]
