"""Every setting of a run, as frozen dataclasses. Loads no torch, so that help is instant.

The same objects are read from YAML, overridden on the command line, used from Python, and
written back into the run folder.
"""

import dataclasses
import difflib
import importlib
import math
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

# A file of a few lines whose aliases name each other would fill the memory.
MOST_VALUES = 100_000
# What PyYAML raises, besides its own errors, of a date, a number or a tag that is not one.
_YAML_SLIPS = (ValueError, KeyError, AttributeError, TypeError, RecursionError)


@dataclass(frozen=True)
class BackboneConfig:
    """The pre-trained network whose features the head compares."""

    name: str = "tf_efficientnet_lite0"
    """Name of the network: resnet50, resnet101, resnet50_deep, resnet101_deep, vgg16, vgg16_bn,
    mobilenet_v2, or any convolutional network of timm."""
    weights: str = "imagenet"
    """Weights to start from: imagenet (from a package or a download), the path of a file, or none
    (random values)."""
    output_stride: int = 8
    """Pixels of the image per position of the features: 8, 16 or 32. Published VGG heads use 16."""
    dilation: Literal["uniform", "stepwise"] = "uniform"
    """Where a stage trades stride for dilation: uniform, in all its blocks (PFENet, BAM); stepwise,
    from its second block on, the first having the previous stage's dilation (torchvision, the SVF
    code)."""
    norm: Literal["frozen", "train"] = "frozen"
    """Whether normalisation layers are frozen (in eval mode, with fixed weights) or train."""


@dataclass(frozen=True)
class ModelConfig:
    """Choose the head and its backbone."""

    head: str = "baseline"
    """Name of the head: baseline, pfenet, bam, dense (compares features; a single number trains),
    pspnet (the base learner of bam), or the dotted path of a class of your own."""
    hidden: int = 256
    """Number of channels of the head."""
    bins: tuple[float, ...] = (1.0, 0.5, 0.25, 0.125)
    """Sizes of the feature pyramid of pfenet: above 1 in positions (60, 30, 15, 8 on Pascal-5i), up
    to 1 as fractions of the feature map."""
    dropout: float = 0.5
    """Share of channels that are dropped after the reduction."""
    base_learner: str = ""
    """For bam, the pspnet run (a folder) or the published PSPNet checkpoint that it starts from. By
    default there is none, and bam cannot be built."""
    base_classes: int = 15
    """For bam and pspnet, the number of base classes: 15 on Pascal-5i, 60 on COCO-20i."""
    weighted_shots: int = 1
    """For bam, the number of supports that its learned weighting of shots is for; 1 weighs them
    alike."""
    backbone: BackboneConfig = field(default_factory=BackboneConfig)


@dataclass(frozen=True)
class DataConfig:
    """The benchmark, its fold, and the image size."""

    name: str = "pascal5i"
    """Name of the data: pascal5i, coco20i, stickers (generated scenes, for a demonstration), folder
    (your own images), or the dotted path of a function of your own."""
    root: str = ""
    """Folder of the data: VOC2012 for pascal5i, the one with annotations/ for coco20i, the one with
    classes.txt for folder. By default there is none, as stickers needs no folder."""
    convention: Literal["interleaved", "contiguous"] = "interleaved"
    """For coco20i, the classes of fold 0: interleaved, 1, 5, 9 and so on (BAM, HSNet, SVF), or
    contiguous, 1 to 20 (PANet)."""
    fold: int = 0
    """Number of the fold, from 0, whose classes are novel."""
    train_lists: tuple[str, ...] = ("trainaug",)
    """Lists of training images, by name in ImageSets/Segmentation or as files; for coco20i,
    train2014."""
    test_list: str = "val"
    """List of test images, by name or as a file; for coco20i, val2014."""
    train_images: Literal["base-only", "all"] = "base-only"
    """Which training images are used: base-only drops those with any pixel of a novel class (BAM,
    SVF), all keeps them with the novel pixels as background (PFENet)."""
    validation_fraction: float = 0.1
    """Share of the training images that are held out to choose the checkpoint."""
    size: int = 473
    """Side of the square that images are cropped and padded to, in pixels."""
    resize_longest: bool = False
    """Scale the longer side of an image to the size before the random scale. The published
    protocol, at 473 pixels, crops from the image's own resolution."""
    scale_range: tuple[float, float] = (0.9, 1.1)
    """Range of the random scale in training; 0.8 to 1.25 on COCO."""
    on_small_class: Literal["refuse", "drop"] = "refuse"
    """What to do with a class that has too few images for an episode: refuse the data, or drop the
    class."""
    train_count: int = 0
    """Number of training images to use, the smaller sets inside the larger ones; 0 uses all."""
    num_images: int = 400
    """For stickers, the number of training images that are generated; half as many are generated
    for testing."""


@dataclass(frozen=True)
class TuningConfig:
    """Which of the backbone's weights train."""

    strategy: str = "svf"
    """What trains in the backbone: frozen, nothing; full, every convolution; and in the chosen
    stages layers, every convolution; conv, the convolutions of one kind of kernel; norm, scale and
    shift of normalisation; bias, biases and shifts; adapter, new bottlenecks behind the blocks;
    lora, low-rank additions; ssf, a new scale and shift behind each convolution; svf, singular
    values; svf+norm, both; or the dotted path of a function of your own."""
    stages: tuple[int, ...] = (2, 3, 4)
    """Stages of the backbone, of 0 to 4, in which the strategy trains."""
    kernels: Literal["spatial", "pointwise"] = "spatial"
    """For conv, the kernels that train: spatial (3x3 and larger) or pointwise (1x1)."""
    statistics: bool = False
    """For norm and svf+norm, let the running statistics of the stages move too."""
    rank: int = 8
    """For lora, the rank of the additions; for adapter, the number of channels between its two
    convolutions."""
    factors: str = "S"
    """For svf, the letters of the factors that train: S, U, V."""
    parametrization: Literal["direct", "relative"] = "direct"
    """For svf, train the singular values themselves (direct), or a factor on each (relative)."""
    route: Literal["auto", "factored", "recomposed", "differentiable"] = "auto"
    """For svf, how the layers compute; auto takes the route with the fewest multiplications for
    each layer and input."""
    lr: float = 0.0015
    """Learning rate of the tuned backbone weights."""
    weight_decay: float = 0.0
    """Weight decay of the tuned backbone weights."""
    decay_to: Literal["zero", "start"] = "zero"
    """Where weight decay pulls the tuned backbone weights: to zero, or to their values at the
    start."""


@dataclass(frozen=True)
class OptimConfig:
    """The optimizer and its schedule."""

    lr: float = 0.015
    """Learning rate of the head."""
    momentum: float = 0.9
    """Momentum of stochastic gradient descent."""
    weight_decay: float = 1e-4
    """Weight decay of the head."""
    schedule: Literal["poly", "cosine", "constant"] = "cosine"
    """How the learning rates fall over the training; poly is (1 - t / T) ** 0.9."""
    steps: int = 20000
    """Number of optimizer steps."""
    batch: int = 8
    """Number of episodes per step, all processes together."""
    clip: float = 0.0
    """Largest norm of the gradient, for the head's weights and the tuned weights separately; 0 does
    not limit it."""
    aux_weight: float = 1.0
    """Weight of a head's auxiliary losses."""


@dataclass(frozen=True)
class SelectionConfig:
    """How the best checkpoint is chosen."""

    monitor: Literal["base-validation", "test", "last"] = "base-validation"
    """Episodes that choose the checkpoint: base-validation, held-out images of base classes; test,
    the novel classes, as published code does, which tunes on the test set and is noted in the
    result; last, none, so that the last checkpoint is taken."""
    every: int = 1000
    """Number of steps between two evaluations."""
    episodes: int = 200
    """Number of episodes of an evaluation during training."""
    curve_episodes: int = 0
    """Number of test-fold episodes that are scored beside each evaluation, only to be written down;
    0 scores none."""


@dataclass(frozen=True)
class TrainConfig:
    """One training run."""

    out: str = "runs/default"
    """Folder that the run is written to."""
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    tuning: TuningConfig = field(default_factory=TuningConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    selection: SelectionConfig = field(default_factory=SelectionConfig)
    shot: int = 1
    """Number of support images per episode."""
    seed: int = 321
    """Seed of the random numbers: initial weights, episodes and augmentation."""
    precision: Literal["no", "fp16", "bf16"] = "no"
    """Mixed precision: no, fp16 or bf16."""
    workers: int = 2
    """Number of processes that load data."""
    device: str = "auto"
    """Device to compute on: auto (a GPU if there is one), cpu, cuda or mps."""


@dataclass(frozen=True)
class EvalDataConfig:
    """The data to evaluate on, where it differs from the run's own."""

    fold: int | None = None
    """Number of the fold to test. By default it is the run's own; another one tests classes that
    the run was trained on."""
    root: str | None = None
    """Folder of the data. By default it is the run's own."""


@dataclass(frozen=True)
class EvalConfig:
    """Say what to evaluate a run on; None stands for the run's own setting."""

    data: EvalDataConfig = field(default_factory=EvalDataConfig)
    shot: int | None = None
    """Number of support images per episode. By default it is the run's own."""
    episodes: int = 1000
    """Number of episodes per seed."""
    seeds: tuple[int, ...] = (321,)
    """Seeds of the episode lists; the SVF paper and its relatives use 321, BAM 510 365 382 322
    988."""
    batch: int = 1
    """Number of episodes that are computed at once."""
    cache: int = 2048
    """Memory for features that other episodes use again, MiB of the device; beyond it they are
    computed again."""
    checkpoint: Literal["best", "last"] = "best"
    """Which checkpoint of the run to score: the best one, or the last one."""
    resize: Literal["original", "square"] = "original"
    """Size of the masks that are scored: original (the published protocol), or the resized
    square."""
    generalized: bool = False
    """For bam, also score base and novel classes in one map."""
    threshold: float = 0.9
    """For the map of base and novel classes, the probability from which the novel class covers a
    base class."""
    workers: int = 2
    """Number of processes that load data."""
    device: str = "auto"
    """Device to compute on: auto (a GPU if there is one), cpu, cuda or mps."""


def from_dict(kind: type[C], values: Any, where: str = "") -> C:
    """Build a config from plain nested data (YAML, JSON), checking names and types.

    Raises:
        InputError: a key is unknown (the message names the nearest one), or a value has another
            type.
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
    """Turn a config into plain nested data that `from_dict` reads back."""
    plain: dict[str, Any] = _listed(dataclasses.asdict(config))
    return plain


def read_config(path: str | Path) -> dict[str, Any]:
    """Read the settings of a YAML file, nested and plain.

    Raises:
        MissingFileError: there is no such file.
        InputError: the file is not YAML, or holds no settings.
    """
    import yaml  # here, so that settings can be used without it

    path = Path(path)
    if not path.is_file():
        raise MissingFileError(f"there is no configuration file at {path}")
    text = read_text(path)
    try:
        content = yaml.load(text, _yaml_loader())
    except (yaml.YAMLError, *_YAML_SLIPS) as error:
        raise InputError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise InputError(f"{path} holds no settings: expected 'name: value' lines")
    count = _count_values(content, {})
    if count > MOST_VALUES:
        raise InputError(
            f"{path} holds {count:.3g} values once its aliases (*name) are filled in: expected at "
            f"most {MOST_VALUES:,}"
        )
    return content


def _count_values(value: Any, counts: dict[int, float]) -> float:
    """Count what is below a value; what aliases name counts each time, and endlessly in itself."""
    if not isinstance(value, (dict, list)):
        return 1
    if id(value) not in counts:
        counts[id(value)] = math.inf
        parts = value.values() if isinstance(value, dict) else value
        counts[id(value)] = 1 + sum(_count_values(part, counts) for part in parts)
    return counts[id(value)]


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
    """Write the end of an error message: the closest right word, or all of them."""
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
    """Look up a name in a table, else import a dotted path such as ``my_module.Head``.

    Args:
        name: name or dotted path, as a config has it.
        known: name -> object that svfseg has.
        what: kind of object, such as "head", for messages.

    Raises:
        InputError: there is neither such a name nor such an object.
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
        raise InputError(
            f"{what} {name} cannot be imported: {error}; run svfseg with "
            "PYTHONPATH set to the folder of that module"
        ) from error
