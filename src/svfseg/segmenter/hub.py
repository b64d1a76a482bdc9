"""Find a model: the one that comes with svfseg, a run folder, or one on the hub."""

import re
from pathlib import Path

from svfseg.errors import MissingFileError

DEFAULT = Path(__file__).parent / "default"


def find_model(source: str | Path) -> Path:
    """Find the run folder of a model.

    Args:
        source: "default", a run folder, or "owner/name" of a Hugging Face hub repository that
            holds a run folder's files.

    Raises:
        MissingFileError: none of these.
    """
    if str(source) == "default":
        return DEFAULT
    path = Path(source)
    if (path / "config.yaml").is_file():
        return path
    if not path.exists() and re.fullmatch(r"[\w.-]+/[\w.-]+", str(source)):
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

        try:
            return Path(snapshot_download(str(source), allow_patterns=["config.yaml", "best/*"]))
        except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
            raise MissingFileError(
                f"{source} is not a run folder, and the hub gave no such repository "
                f"({type(error).__name__}): check the path or the name"
            ) from error
    raise MissingFileError(
        f"{source} is not a run (it has no config.yaml): give a folder of train, owner/name on the "
        "hub, or default"
    )
