"""Every setting of a run, as frozen dataclasses. Loads no torch, so that help is instant.

The same objects are read from YAML, overridden on the command line, used from Python, and
written back into the run folder.
"""

import dataclasses
import difflib
import importlib
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from svfseg.errors import InputError, MissingFileError
from svfseg.files import read_text, write_text

C = TypeVar("C")


@dataclass(frozen=True)
class BackboneConfig:
    """The pre-trained network whose features the head compares."""

    name: str = "tf_efficientnet_lite0"
    """resnet50, resnet101, resnet50_deep, resnet101_deep, vgg16, vgg16_bn, mobilenet_v2, or the
    name of any convolutional network of timm."""
    weights: str = "imagenet"
    """imagenet (a package or a download), a file, or none (random)."""
    output_stride: int = 8
    """Pixels of the image per position of the features: 8, 16 or 32. Published VGG heads: 16."""
    dilation: Literal["uniform", "stepwise"] = "uniform"
    """Where a stage trades stride for dilation: in all its blocks (PFENet, BAM), or from its
    second block on, the first keeping the previous stage's (torchvision, the SVF code)."""
    norm: Literal["frozen", "train"] = "frozen"
    """frozen keeps normalisation layers in eval mode and their weights fixed."""


@dataclass(frozen=True)
class ModelConfig:
    """The head and its backbone."""

    head: str = "baseline"
    """baseline, pfenet, bam, dense (compares, one number trains), pspnet (bam's base learner), or
    the dotted path of your class."""
    hidden: int = 256
    """Channels of the head."""
    bins: tuple[float, ...] = (1.0, 0.5, 0.25, 0.125)
    """Sizes of PFENet's feature pyramid: above 1 in positions (60, 30, 15, 8 on Pascal-5i), up to
    1 as fractions of the feature map."""
    dropout: float = 0.5
    """Share of channels dropped after the reduction."""
    base_learner: str = ""
    """bam: the pspnet run (a folder), or a published PSPNet checkpoint, that it starts from."""
    base_classes: int = 15
    """bam, pspnet: number of base classes: 15 on Pascal-5i, 60 on COCO-20i."""
    weighted_shots: int = 1
    """bam: supports that its learned weighting of shots is for; 1 weighs them alike."""
    backbone: BackboneConfig = field(default_factory=BackboneConfig)


@dataclass(frozen=True)
class DataConfig:
    """The benchmark, its fold, and the image size."""

    name: str = "pascal5i"
    """pascal5i, coco20i, stickers (generated, a demonstration), folder (your own), or the dotted
    path of a function of yours."""
    root: str = ""
    """Folder of the data: VOC2012 for pascal5i, the one with annotations/ for coco20i, with
    classes.txt for folder."""
    convention: Literal["interleaved", "contiguous"] = "interleaved"
    """coco20i: classes 1, 5, 9 ... in fold 0 (BAM, HSNet, SVF), or 1 to 20 (PANet)."""
    fold: int = 0
    """Which fold's classes are novel."""
    train_lists: tuple[str, ...] = ("trainaug",)
    """Training lists, by name in ImageSets/Segmentation or as files; coco20i: train2014."""
    test_list: str = "val"
    """Test list, by name or file; coco20i: val2014."""
    train_images: Literal["base-only", "all"] = "base-only"
    """base-only drops training images with any novel class (BAM, SVF); all keeps them, the novel
    pixels being background (PFENet)."""
    validation_fraction: float = 0.1
    """Share of the training images held out for choosing the checkpoint."""
    size: int = 473
    """Side of the square that images are cropped and padded to, pixels."""
    resize_longest: bool = False
    """Scale the longer side to size before the random scale; the published protocol, at 473,
    crops from the image's own resolution."""
    scale_range: tuple[float, float] = (0.9, 1.1)
    """Range of the random scale in training (0.8 to 1.25 on COCO)."""
    on_small_class: Literal["refuse", "drop"] = "refuse"
    """Classes with too few images for an episode: refuse the data, or leave such classes out."""
    train_count: int = 0
    """Train on only so many of the images, the same ones in every larger choice; 0 takes all."""
    num_images: int = 400
    """stickers: number of training images that are generated, and half as many for testing."""


@dataclass(frozen=True)
class TuningConfig:
    """Which of the backbone's weights train."""

    strategy: str = "svf"
    """frozen: nothing. full: every convolution. Of the stages below: layers: every convolution;
    conv: those of one kind of kernel; norm: scale and shift of normalisation; bias: biases and
    shifts; adapter: new bottlenecks behind the blocks; lora: low-rank additions; ssf: a new scale
    and shift behind each convolution; svf: singular values; svf+norm: both;
    or the dotted path of a function of yours."""
    stages: tuple[int, ...] = (2, 3, 4)
    """Stages of the backbone that are tuned, of 0 to 4."""
    kernels: Literal["spatial", "pointwise"] = "spatial"
    """conv: kernels of 3x3 and more, or of 1x1."""
    statistics: bool = False
    """norm, svf+norm: let the running statistics of the stages move too."""
    rank: int = 8
    """lora: rank of the additions; adapter: channels between its two convolutions."""
    factors: str = "S"
    """svf: letters of the factors that train: S, U, V."""
    parametrization: Literal["direct", "relative"] = "direct"
    """svf: train s itself, or a gain on it."""
    route: Literal["auto", "factored", "recomposed", "differentiable"] = "auto"
    """svf: how the layers compute: auto counts multiplications for each layer and input."""
    lr: float = 0.0015
    """Learning rate of the tuned backbone weights."""
    weight_decay: float = 0.0
    """Weight decay of the tuned backbone weights."""
    decay_to: Literal["zero", "start"] = "zero"
    """Where weight decay pulls them."""


@dataclass(frozen=True)
class OptimConfig:
    """The optimizer and its schedule."""

    lr: float = 0.015
    """Learning rate of the head."""
    momentum: float = 0.9
    weight_decay: float = 1e-4
    """Weight decay of the head."""
    schedule: Literal["poly", "cosine", "constant"] = "cosine"
    """poly is (1 - t / T) ** 0.9."""
    steps: int = 20000
    """Optimizer steps."""
    batch: int = 8
    """Episodes a step, on all processes together."""
    clip: float = 0.0
    """Largest norm of the gradient, of the head's and of the tuned weights' each; 0: any."""
    aux_weight: float = 1.0
    """Weight of a head's auxiliary losses."""


@dataclass(frozen=True)
class SelectionConfig:
    """How the best checkpoint is chosen."""

    monitor: Literal["base-validation", "test", "last"] = "base-validation"
    """base-validation: held-out images of base classes. test: the novel classes, the habit of
    published code, which tunes on the test set; the result says so. last: no choice."""
    every: int = 1000
    """Steps between two evaluations."""
    episodes: int = 200
    """Episodes of an evaluation during training."""
    curve_episodes: int = 0
    """Test-fold episodes scored beside each evaluation and only written down; 0 for none."""


@dataclass(frozen=True)
class TrainConfig:
    """One training run."""

    out: str = "runs/default"
    """The run folder."""
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    tuning: TuningConfig = field(default_factory=TuningConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    selection: SelectionConfig = field(default_factory=SelectionConfig)
    shot: int = 1
    """Support images of an episode."""
    seed: int = 321
    precision: Literal["no", "fp16", "bf16"] = "no"
    """Mixed precision."""
    workers: int = 2
    """Processes that load data."""
    device: str = "auto"
    """auto (a GPU if there is one), cpu, cuda, mps."""


@dataclass(frozen=True)
class EvalDataConfig:
    """The data to evaluate on, where it differs from the run's own."""

    fold: int | None = None
    """The fold; another than the run was trained on tests classes that it was trained on."""
    root: str | None = None
    """Folder of the data, where it moved."""


@dataclass(frozen=True)
class EvalConfig:
    """What to evaluate a run on; None takes the run's own setting."""

    data: EvalDataConfig = field(default_factory=EvalDataConfig)
    shot: int | None = None
    """Support images of an episode."""
    episodes: int = 1000
    """Episodes a seed."""
    seeds: tuple[int, ...] = (321,)
    """Seeds of the episode lists; the paper's family uses 321, BAM 510 365 382 322 988."""
    batch: int = 1
    """Episodes at once."""
    cache: int = 2048
    """MiB of features to keep on the device for other episodes; past it they are computed again."""
    checkpoint: Literal["best", "last"] = "best"
    resize: Literal["original", "square"] = "original"
    """Score on the original-size mask (published protocol), or on the resized square."""
    generalized: bool = False
    """bam: also score base and novel classes in one map."""
    threshold: float = 0.9
    """Foreground from which the novel class covers a base class in that map."""
    workers: int = 2
    """Processes that load data."""
    device: str = "auto"
    """auto (a GPU if there is one), cpu, cuda, mps."""


def from_dict(kind: type[C], values: Any, where: str = "") -> C:
    """Build a config from plain nested data (YAML, JSON), checking names and types.

    Raises:
        InputError: an unknown key (with the nearest right one), or a value of another type.
    """
    if not isinstance(values, dict):
        raise InputError(f"{where or 'the config'} is {values!r}: expected settings by name")
    hints = typing.get_type_hints(kind)
    names = [f.name for f in dataclasses.fields(kind)]  # type: ignore[arg-type]
    built = {}
    for key, value in values.items():
        path = f"{where}.{key}" if where else str(key)
        if key not in names:
            raise InputError(f"unknown setting {path}{did_you_mean(str(key), names)}")
        built[key] = _convert(hints[key], value, path)
    return kind(**built)


def to_dict(config: Any) -> dict[str, Any]:
    """A config as plain nested data that `from_dict` reads back."""
    plain: dict[str, Any] = _listed(dataclasses.asdict(config))
    return plain


def read_config(path: str | Path) -> dict[str, Any]:
    """Plain nested settings of a YAML file.

    Raises:
        MissingFileError: no such file.
        InputError: not YAML, or no settings in it.
    """
    import yaml  # here, so that settings can be used without it

    path = Path(path)
    if not path.is_file():
        raise MissingFileError(f"no config at {path}")
    try:
        content = yaml.load(read_text(path), _yaml_loader())
    except yaml.YAMLError as error:
        raise InputError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise InputError(f"{path} holds no settings: expected 'name: value' lines")
    return content


def _yaml_loader() -> Any:
    """Give a safe loader that takes only true and false for booleans, as YAML 1.2 does.

    YAML 1.1 also takes on, off, yes and no, as keys too.
    """
    import yaml

    class Loader(yaml.SafeLoader):
        yaml_implicit_resolvers = {  # noqa: RUF012 (PyYAML's own attribute)
            first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":bool")]
            for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
        }

    Loader.add_implicit_resolver(
        "tag:yaml.org,2002:bool", re.compile(r"true|True|TRUE|false|False|FALSE"), list("tTfF")
    )
    return Loader


def write_config(path: Path, config: Any) -> None:
    """Write every setting as YAML that `read_config` reads back."""
    import yaml

    write_text(path, yaml.safe_dump(to_dict(config), sort_keys=False))


def did_you_mean(word: str, choices: typing.Iterable[str]) -> str:
    """The end of an error message that suggests the closest right word, or lists them all."""
    known = sorted(choices)
    close = [name for name in known if word and name.startswith(word)]
    close = close or difflib.get_close_matches(word, known, 1, 0.6)
    return f": did you mean {close[0]}?" if close else f": expected one of {', '.join(known)}"


def _listed(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _listed(v) for k, v in value.items()}
    return [_listed(v) for v in value] if isinstance(value, (list, tuple)) else value


def _convert(hint: Any, value: Any, path: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        kind: Any = hint
        return from_dict(kind, value, path)
    if origin in (typing.Union, types.UnionType):
        if value is None:
            return None
        return _convert(next(a for a in args if a is not type(None)), value, path)
    if origin is Literal:
        if value not in args:
            raise InputError(f"{path} is {value!r}{did_you_mean(str(value), map(str, args))}")
        return value
    if origin is tuple:
        items = value if isinstance(value, (list, tuple)) else [value]
        if args[-1] is not Ellipsis and len(items) != len(args):
            raise InputError(f"{path} is {value!r}: expected {len(args)} values")
        return tuple(_convert(args[0], item, path) for item in items)
    if hint is float and isinstance(value, str):
        try:  # YAML 1.1 reads 1e-4 as text
            return float(value)
        except ValueError:
            pass
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise InputError(f"{path} is {value!r}: expected {_name(hint)}")
    return value


def _name(hint: Any) -> str:
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
    return names.get(hint, str(hint))


def look_up(name: str, known: Mapping[str, Any], what: str) -> Any:
    """The row of that name, else the object at a dotted path such as ``my_module.Head``.

    Args:
        name: as a config has it.
        known: what svfseg has.
        what: "head", "strategy" ..., for messages.

    Raises:
        InputError: no such row, and no such object.
    """
    if name in known:
        return known[name]
    module, _, attribute = name.rpartition(".")
    if not module:
        advice = did_you_mean(name, known)
        more = "" if advice.endswith("?") else ", or the dotted path of your own"
        raise InputError(f"unknown {what} {name}{advice}{more}")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise InputError(f"{what} {name} cannot be imported: {error}") from error
