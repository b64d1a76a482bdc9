"""A small VOC2012 tree on disk: real files, made up content."""

from pathlib import Path

import numpy as np
from PIL import Image


def write_mask(path: Path, ids: np.ndarray) -> None:
    image = Image.fromarray(ids.astype(np.uint8), "P")
    image.putpalette([v for i in range(256) for v in (i * 37 % 256, i * 91 % 256, i * 53 % 256)])
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def write_image(path: Path, ids: np.ndarray, seed: int = 0) -> None:
    """A picture whose classes have colours of their own, so that it can be learnt."""
    rng = np.random.default_rng(seed)
    colours = np.random.default_rng(7).integers(0, 255, (256, 3))
    noise = rng.integers(-20, 20, (*ids.shape, 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = np.clip(colours[ids.astype(np.uint8)] + noise, 0, 255).astype(np.uint8)
    Image.fromarray(picture).save(path)


def rectangle(class_id: int, area: int, size: tuple[int, int] = (80, 100)) -> np.ndarray:
    """A mask with ``area`` pixels of a class, in rows of 64, ringed by one ignored pixel."""
    ids = np.zeros(size, np.uint8)
    rows = -(-area // 64)
    ids[2 : rows + 4, 2:68] = 255
    block = np.zeros(rows * 64, np.uint8)
    block[:area] = class_id
    ids[3 : rows + 3, 3:67] = block.reshape(rows, 64)
    return ids


def voc_tree(root: Path, masks: dict[str, np.ndarray], name: str = "val") -> Path:
    """Write images, masks and one list."""
    for i, (item, ids) in enumerate(masks.items()):
        write_mask(root / "SegmentationClassAug" / f"{item}.png", ids)
        write_image(root / "JPEGImages" / f"{item}.jpg", ids, i)
    path = root / "ImageSets" / "Segmentation" / f"{name}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{item}\n" for item in masks))
    return root
