"""Names and content of a project's files."""

import io
import re
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from svfseg.annotations.writers import palette
from svfseg.data.images import Array
from svfseg.data.opening import open_picture
from svfseg.segmenter import FewShotSegmenter

# Formats that browsers display: such files are stored as they came, all others as PNG.
DISPLAYED = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp"}


def task_file(segmenter: FewShotSegmenter) -> bytes:
    """Give the content of a task file."""
    with tempfile.TemporaryDirectory() as folder:
        return segmenter.save(Path(folder) / "task.svf").read_bytes()


def probability_file(probability: Array) -> bytes:
    """Encode probabilities, (height, width) in [0, 1], as a grey PNG; 255 is certain."""
    grey = np.round(probability.astype(np.float32) * 255).astype(np.uint8)
    content = io.BytesIO()
    Image.fromarray(grey).save(content, "PNG", compress_level=1)
    return content.getvalue()


def ids_file(mask: Image.Image, largest: int) -> bytes:
    """Encode a mask as a palette PNG: its values are the ids, and its colours tell them apart."""
    content = io.BytesIO()
    mask.putpalette([channel for color in palette(largest) for channel in color])
    mask.save(content, "PNG")
    return content.getvalue()


def file_name(name: str) -> str:
    """Give the name of a file without folders, as any file system and any text takes it."""
    own = name.replace("\\", "/").rpartition("/")[2]
    return "".join(each if each.isprintable() else "_" for each in own) or "image"


def stem_of(name: str) -> str:
    """Give the name of a file without its suffix, in letters that every system allows."""
    own = Path(file_name(name)).stem
    plain = re.sub(r"[^\w.-]+", "_", own).strip("._")[:100]
    return plain.encode()[:150].decode("utf-8", "ignore") or "image"


def displayed_suffix(data: bytes) -> str | None:
    """Give the suffix of a file that every browser displays upright; None for other files."""
    with open_picture(data) as image:
        turned = image.getexif().get(0x0112, 1) != 1
        return None if turned else DISPLAYED.get(image.format or "")
