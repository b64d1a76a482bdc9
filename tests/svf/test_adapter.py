"""Adapters: small, bound to their base weights, and never half loaded."""

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn

from svfseg.errors import InputError
from svfseg.svf import apply_svf, load_adapter, merge_svf, save_adapter, svf_parameters
from svfseg.svf.adapter import TABLE, TENSORS
from tests.svf.layer_table import CASES, error, made


def trained(scale: str = "direct", train: str = "S") -> tuple[nn.Module, nn.Module]:
    """A base model, and the same trained a little."""
    torch.manual_seed(0)
    base = nn.Sequential(nn.Conv2d(3, 8, 3, groups=1), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=4))
    model = copy.deepcopy(base)
    apply_svf(model, train=train, scale=scale)
    with torch.no_grad():
        for parameter in svf_parameters(model):
            parameter += 0.2 * torch.rand_like(parameter)
    return base, model


@pytest.mark.parametrize("scale", ["direct", "relative"])
@pytest.mark.parametrize("train", ["S", "U", "SV"])
def test_round_trip(tmp_path: Path, scale: str, train: str) -> None:
    base, model = trained(scale, train)
    save_adapter(model, tmp_path / "task")
    load_adapter(base, tmp_path / "task")
    x = torch.randn(2, 3, 9, 9)
    assert error(base(x), model(x)) < 1e-6
    assert {n: p.requires_grad for n, p in base.named_parameters()} == {
        n: p.requires_grad for n, p in model.named_parameters()
    }


@pytest.mark.parametrize("name", CASES)
def test_round_trip_of_every_layer(tmp_path: Path, name: str) -> None:
    layer, x = made(name, torch.float32)
    base = copy.deepcopy(layer)
    apply_svf(layer)
    with torch.no_grad():
        layer.s += 0.1 * torch.rand_like(layer.s)
    save_adapter(layer, tmp_path / "task")
    assert error(load_adapter(base, tmp_path / "task")(x), layer(x)) < 1e-6


def test_resnet50_fits_in_64_kib(tmp_path: Path) -> None:
    net = torchvision.models.resnet50(weights=None)
    summary = apply_svf(net, r"layer[234]\..*")
    assert summary.trained == 12544
    folder = save_adapter(net, tmp_path / "task")
    sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
    assert set(sizes) == {TENSORS, TABLE}
    assert 4 * 12544 < sum(sizes.values()) <= 64 * 1024
    table = json.loads((folder / TABLE).read_text())
    assert table["format"] == 1
    assert (table["train"], table["scale"]) == ("S", "direct")
    assert len(table["layers"]) == 42


def test_orthogonal_weights_are_rebuilt(tmp_path: Path) -> None:
    """All singular values are 1: U and V are any pair of bases, yet the function comes back."""
    layer = nn.Linear(16, 16, bias=False)
    nn.init.orthogonal_(layer.weight)
    base, other_basis = copy.deepcopy(layer), copy.deepcopy(layer)
    apply_svf(layer)
    with torch.no_grad():
        layer.s += torch.rand_like(layer.s)
    save_adapter(layer, tmp_path / "task")
    x = torch.randn(3, 16)
    assert error(load_adapter(base, tmp_path / "task")(x), layer(x)) < 1e-6

    # a library that returns another, equally valid basis and does not fix it is refused
    from svfseg.svf import adapter
    from svfseg.svf.apply import Target
    from svfseg.svf.factorize import Factors
    from svfseg.svf.layers import fingerprint

    def elsewhere(layers: list) -> list[Target]:
        turned = torch.linalg.qr(torch.randn(16, 16).double()).Q
        weight = other_basis.weight.detach().double()
        factors = Factors((weight @ turned)[None], torch.ones(1, 16).double(), turned.mT[None])
        return [Target("", other_basis, factors, fingerprint(other_basis))]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(adapter, "factorize_targets", elsewhere)
        with pytest.raises(ValueError, match="cannot be rebuilt here"):
            load_adapter(other_basis, tmp_path / "task")
    assert type(other_basis) is nn.Linear


def refused(model: nn.Module, folder: Path, message: str) -> None:
    before = copy.deepcopy(model)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        load_adapter(model, folder)
    assert [type(m) for m in model.modules()] == [type(m) for m in before.modules()]
    assert all(
        torch.equal(a, b)
        for a, b in zip(model.state_dict().values(), before.state_dict().values(), strict=True)
    )


def test_other_models_are_refused_and_left_alone(tmp_path: Path) -> None:
    base, model = trained()
    folder = save_adapter(model, tmp_path / "task")
    weights = copy.deepcopy(base)
    weights[2].weight.data[0, 0, 0, 0] += 1e-6
    refused(weights, folder, "other base weights: layer '2'")
    bias = copy.deepcopy(base)
    bias[0].bias.data[0] += 1e-6
    refused(bias, folder, "other base weights: layer '0'")
    refused(copy.deepcopy(base).double(), folder, "other base weights")
    refused(nn.Sequential(base[0]), folder, "has no layer '2'")
    refused(nn.Sequential(base[0], base[1], nn.Conv2d(8, 8, 3)), folder, "in 1 group")
    refused(nn.DataParallel(base), folder, "plain model")
    factored = copy.deepcopy(base)
    apply_svf(factored, train="U")
    with pytest.raises(InputError, match="is factored to train 'U'"):
        load_adapter(factored, folder)
    # factored as the adapter was, at the start: it takes the values
    same = copy.deepcopy(base)
    apply_svf(same)
    load_adapter(same, folder)
    again, expected = same.state_dict(), model.state_dict()
    assert all(torch.equal(again[name], expected[name]) for name in expected)


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    base, model = trained()
    folder = save_adapter(model, tmp_path / "task")
    refused(base, tmp_path / "nothing", "holds no adapter")

    def damaged(name: str) -> Path:
        shutil.rmtree(tmp_path / "bad", ignore_errors=True)
        return shutil.copytree(folder, tmp_path / "bad") / name

    path = damaged(TENSORS)
    path.write_bytes(path.read_bytes()[:-7])
    refused(base, path.parent, "is damaged")
    path = damaged(TENSORS)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    refused(base, path.parent, "is damaged")
    path = damaged(TENSORS)
    path.unlink()
    refused(base, path.parent, "is missing")
    path = damaged(TABLE)
    path.write_text(path.read_text()[:100])
    refused(base, path.parent, "cannot be read")
    for key, value, message in (
        ("format", 99, "reads 1: update svfseg"),
        ("layers", [], "is damaged"),
        ("scale", "relative", "is damaged"),
        ("scale", "x", "scale 'x'"),
        ("train", None, "train None"),
        ("train", 5, "train 5"),
    ):
        path = damaged(TABLE)
        table = json.loads(path.read_text())
        table[key] = value
        path.write_text(json.dumps(table))
        refused(base, path.parent, message)
    for key, value in (("name", [1]), ("shape", 3), ("groups", "x"), ("probe", None), ("base", 1)):
        path = damaged(TABLE)
        table = json.loads(path.read_text())
        table["layers"][0][key] = value
        path.write_text(json.dumps(table))
        refused(base, path.parent, "has the layer")
    path = damaged(TABLE)
    table = json.loads(path.read_text())
    table["layers"][0]["probe"] += 0.1
    path.write_text(json.dumps(table))
    refused(base, path.parent, "cannot be rebuilt here")


def test_saving_replaces_whole_adapters_only(tmp_path: Path) -> None:
    base, model = trained()
    folder = save_adapter(model, tmp_path / "task")
    with torch.no_grad():
        svf_parameters(model)[0].mul_(2)
    save_adapter(model, folder)
    x = torch.randn(2, 3, 9, 9)
    assert error(load_adapter(base, folder)(x), model(x)) < 1e-6
    assert {p.name for p in tmp_path.iterdir()} == {"task"}
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "photo.txt").write_text("keep")
    with pytest.raises(ValueError, match="is not an adapter"):
        save_adapter(model, tmp_path / "mine")
    assert (tmp_path / "mine" / "photo.txt").read_text() == "keep"


def test_a_full_disk_leaves_the_previous_adapter(tmp_path: Path, monkeypatch) -> None:
    base, model = trained()
    folder = save_adapter(model, tmp_path / "task")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def full(self: Path, text: str) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_text", full)
        with pytest.raises(OSError, match="No space left"):
            save_adapter(model, folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert {p.name for p in tmp_path.iterdir()} == {"task"}
    load_adapter(base, folder)


def test_mixed_configurations_are_refused(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    apply_svf(model, ["0"])
    apply_svf(model, ["1"], train="U")
    with pytest.raises(ValueError, match="one configuration"):
        save_adapter(model, tmp_path / "task")
    merge_svf(model)
    with pytest.raises(ValueError, match="call apply_svf first"):
        save_adapter(model, tmp_path / "task")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.optim.swa_utils.AveragedModel,
                                  lambda net: torch.compile(net, backend="eager")])  # fmt: skip
def test_a_wrapped_model_is_not_saved(wrap: Callable, tmp_path: Path) -> None:
    """Its names are no model's."""
    net = nn.Sequential(nn.Conv2d(3, 4, 3))
    apply_svf(net)
    with pytest.raises(ValueError, match="use SVF on the plain model"):
        save_adapter(wrap(net), tmp_path / "adapter")
    assert not (tmp_path / "adapter").exists()
