"""Strategies that a user wrote: what they train and put in is saved, restored and resumed."""

import json
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from svfseg.config import BackboneConfig, TrainConfig, TuningConfig
from svfseg.errors import InputError
from svfseg.lab.events import Event, StepDone
from svfseg.lab.run import setup
from svfseg.lab.training import batches, train
from svfseg.models import Backbone
from svfseg.models.backbone import build_backbone
from svfseg.svf import apply_svf, svf_parameters
from svfseg.svf.layers import FactoredLayer
from svfseg.tuning.checkpoint import load_run, restore_model
from svfseg.tuning.state import Snapshot, check_saved, tuned_tensors
from svfseg.tuning.strategy import InPlaceStrategy, Progress
from tests.data.test_files import folder_of
from tests.lab.test_training import config_of


def own_svf(backbone: Backbone, config: TuningConfig, progress: Progress | None) -> None:
    """A stage factored, and nothing said about saving."""
    apply_svf(backbone, r"layer3\..*", progress=progress)


class Vera(nn.Module):
    """A convolution and a low-rank addition of frozen random projections and a trained vector."""

    def __init__(self, base: nn.Conv2d, rank: int = 4) -> None:
        super().__init__()
        self.base = base
        self.down = nn.Parameter(torch.randn(rank, base.in_channels, 1, 1), requires_grad=False)
        self.register_buffer("up", torch.randn(base.out_channels, rank, 1, 1))
        self.vector = nn.Parameter(torch.zeros(base.out_channels))

    def update(self) -> Tensor:
        """What the addition puts on the weight: (out, in, 1, 1)."""
        product = torch.einsum("orij,rcij->ocij", self.up, self.down)
        return 0.01 * self.vector[:, None, None, None] * product

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.base(x)
        return output + nn.functional.conv2d(x, self.update(), stride=self.base.stride)


class VeraStrategy(InPlaceStrategy):
    """Additions on the dense pointwise convolutions of a stage."""

    def apply(self, backbone: Backbone, config: TuningConfig, progress: Progress | None) -> None:
        for name, layer in list(backbone.named_modules()):
            if name.startswith("layer3.") and isinstance(layer, nn.Conv2d) and layer.groups == 1:
                parent, _, last = name.rpartition(".")
                setattr(backbone.get_submodule(parent), last, Vera(layer))

    def merge(self, backbone: Backbone) -> None:
        for name, layer in list(backbone.named_modules()):
            if isinstance(layer, Vera):
                layer.base.weight.data += layer.update().detach()
                parent, _, last = name.rpartition(".")
                setattr(backbone.get_submodule(parent), last, layer.base)


HERE = "tests.tuning.test_own_strategy"
own_strategies = pytest.mark.parametrize("strategy", [f"{HERE}.own_svf", f"{HERE}.VeraStrategy"])
# weights that can be loaded again: the checkpoint holds what differs from them, and no more
packaged = BackboneConfig(output_stride=32)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder_of(tmp_path_factory.mktemp("folder"), classes=8, each=5)


def config(
    data: Path, out: Path, strategy: str, backbone: BackboneConfig = packaged
) -> TrainConfig:
    made = config_of(data, out, strategy)
    return replace(
        made,
        model=replace(made.model, backbone=backbone),
        tuning=replace(made.tuning, lr=0.5),
        optim=replace(made.optim, steps=4),
        selection=replace(made.selection, every=2, monitor="last"),
    )


def outputs(backbone: Backbone) -> Tensor:
    image = 255 * torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        return torch.cat([f.flatten() / f.abs().max().clamp_min(1e-9) for f in backbone(image)])


def check_saved_and_loaded(settings: TrainConfig) -> None:
    """Three steps, then the checkpoint: the same tensors to the bit, merged the same function."""
    run = setup(settings)
    for batch in islice(batches(settings, run.head, run.source, run.accelerator), 3):
        run.advance(batch)
    run.save()
    run.head.eval()
    expected = {k: v.detach().clone() for k, v in run.head.state_dict().items()}
    function = outputs(run.head.backbone)
    torch.manual_seed(4321)  # other random parts, if any were drawn anew and kept
    restored = restore_model(run.folder / "best", settings).eval()
    found = restored.state_dict()
    assert found.keys() == expected.keys()
    assert [k for k in expected if not torch.equal(found[k], expected[k])] == []
    assert torch.equal(outputs(restored.backbone), function)
    merged, _ = load_run(run.folder)
    assert not [m for m in merged.modules() if isinstance(m, (FactoredLayer, Vera))]
    assert torch.allclose(outputs(merged.backbone), function, atol=1e-3)
    trained = merged.backbone.state_dict()
    base = restore_model(  # it moved at all
        train(replace(settings, out=f"{settings.out}_frozen",
                      tuning=replace(settings.tuning, strategy="frozen"))) / "best",
        replace(settings, tuning=replace(settings.tuning, strategy="frozen")),
    )  # fmt: skip
    assert any(not torch.equal(v, trained[k]) for k, v in base.backbone.state_dict().items())


@own_strategies
def test_what_it_trains_and_puts_in_is_saved(data: Path, tmp_path: Path, strategy: str) -> None:
    check_saved_and_loaded(config(data, tmp_path / "run", strategy))
    size = sum(f.stat().st_size for f in (tmp_path / "run/best").rglob("*") if f.is_file())
    assert size < 3e6  # not the backbone


@pytest.mark.parametrize("strategy", ["svf", "svf+norm"])
def test_svf_beside_normalisation_in_training_is_saved(
    data: Path, tmp_path: Path, strategy: str
) -> None:
    backbone = replace(packaged, norm="train")
    check_saved_and_loaded(config(data, tmp_path / "run", strategy, backbone))


@own_strategies
def test_it_resumes_as_if_never_stopped(data: Path, tmp_path: Path, strategy: str) -> None:
    class Stop(Exception):
        pass

    def stop(event: Event) -> None:
        if isinstance(event, StepDone) and event.step == 3:  # after the checkpoint of step 2
            raise Stop

    whole, parts = (config(data, tmp_path / out, strategy) for out in ("whole", "parts"))
    train(whole)
    with pytest.raises(Stop):
        train(parts, report=stop)
    train(parts, resume=True)
    for name in sorted(path.name for path in (tmp_path / "whole/last").rglob("*.safetensors")):
        one, two = (next((tmp_path / out / "last").rglob(name)) for out in ("whole", "parts"))
        assert one.read_bytes() == two.read_bytes(), name
    assert json.loads((tmp_path / "parts/last/checkpoint.json").read_text())["step"] == 4


def test_factored_layers_of_ones_own_strategy_become_an_adapter(data: Path, tmp_path: Path) -> None:
    settings = config(data, tmp_path / "run", f"{HERE}.own_svf")
    run = train(settings)
    assert (run / "best" / "adapter" / "adapter.json").is_file()
    restored = restore_model(run / "best", settings)
    assert all(p.requires_grad for p in svf_parameters(restored.backbone))


def test_what_could_not_be_saved_is_refused_before_the_training() -> None:
    def hides(backbone: Backbone, config: TuningConfig, progress: object) -> None:
        backbone.layer4.register_buffer("hidden", torch.randn(3), persistent=False)
        next(iter(backbone.layer4.parameters())).requires_grad_(True)

    def differs(backbone: Backbone, config: TuningConfig, progress: object) -> None:
        apply_svf(backbone, r"layer3\..*")
        apply_svf(backbone, r"layer4\..*", train="U")

    def ties(backbone: Backbone, config: TuningConfig, progress: object) -> None:
        shared = torch.nn.Parameter(torch.randn(3))
        backbone.layer3.register_parameter("tied", shared)
        backbone.layer4.register_parameter("tied", shared)

    config = BackboneConfig("test_resnet", "none")
    for function, words in ((hides, "persistent=False"), (differs, "different settings")):
        backbone = build_backbone(config)
        before = Snapshot(backbone)
        function(backbone, TuningConfig(), None)
        with pytest.raises(InputError, match=words):
            check_saved(backbone, before)
    backbone = build_backbone(config)
    ties(backbone, TuningConfig(), None)
    tensors = tuned_tensors(backbone)
    assert torch.equal(*(tensors[f"layer{i}.tied"] for i in (3, 4)))
    assert save_tensors(tensors)  # shared memory would be refused


def test_what_a_strategy_wrote_to_or_replaced_is_saved() -> None:
    """Frozen statistics that it changes in place; and layers that it frees, whose place in memory
    new tensors may take."""
    backbone = build_backbone(BackboneConfig("test_resnet", "none"))
    norm = next(m for m in backbone.layer4.modules() if isinstance(m, nn.BatchNorm2d))
    before = Snapshot(backbone)
    norm.running_mean.add_(1)
    for name, module in list(backbone.layer3.named_modules()):
        if isinstance(module, nn.BatchNorm2d):
            parent = backbone.layer3.get_submodule(name.rpartition(".")[0])
            channels = module.num_features
            del module
            setattr(parent, name.rpartition(".")[2], nn.BatchNorm2d(channels))
    changed = before.changed_names(backbone)
    new = {n for n in backbone.state_dict() if n.startswith("layer3.") and "running" in n}
    assert new
    assert new <= changed
    assert any(n.startswith("layer4.") and n.endswith("running_mean") for n in changed)
    assert not any(n.startswith(("layer0.", "layer1.", "layer2.")) for n in changed)
