"""The base model that segmenters start from: loaded once, shared and never changed."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from weakref import WeakValueDictionary

from svfseg.models import Head
from svfseg.models.weights import backbone_fingerprint
from svfseg.segmenter.hub import find_model
from svfseg.tuning.checkpoint import load_head, run_config


@dataclass(frozen=True, eq=False)
class BaseModel:
    """A model that nobody changes: what tunes it works on a copy.

    Attributes:
        head: in eval mode, nothing of it trains.
        size: side of the square that it was trained on, in pixels.
        fingerprint: fingerprint of all its weights.
    """

    head: Head
    size: int
    fingerprint: str

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self


# Models that some segmenter holds, by (run folder, time of its checkpoint, device).
_LOADED: WeakValueDictionary[tuple[str, int, str], BaseModel] = WeakValueDictionary()


def load_base(source: str | Path, device: str) -> BaseModel:
    """Load a base model onto a device, or share it with the segmenters that hold it.

    Args:
        source: see `svfseg.segmenter.hub.find_model`.
        device: device of torch.

    Raises:
        MissingFileError: no such run, file or repository.
        InputError: a damaged one; see `svfseg.tuning.checkpoint.load_head`.
    """
    folder = find_model(source).resolve()
    metadata = folder / "best" / "checkpoint.json"
    written = metadata.stat().st_mtime_ns if metadata.is_file() else 0
    key = (str(folder), written, device)
    model = _LOADED.get(key)
    if model is None:
        head, config = load_head(folder)
        head = head.to(device).requires_grad_(False)
        model = BaseModel(head, config.data.size, backbone_fingerprint(head))
        _LOADED[key] = model
    return model


def model_size(source: str | Path) -> int:
    """Read the side to which a base model's images are fitted, without loading its weights.

    Args:
        source: see `svfseg.segmenter.hub.find_model`.

    Raises:
        MissingFileError: no such run, file or repository.
        InputError: damaged settings.
    """
    return run_config(find_model(source)).data.size
