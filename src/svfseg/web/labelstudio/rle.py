"""Label Studio's brush masks: RGBA bytes as run lengths in a stream of bits.

The stream, most significant bit first: the number of values (32 bits), the bits of a value less
one (5), four sizes of run lengths less one (4 each), then the runs. A run is a flag (1 repeats one
value, 0 lists values), which of the four sizes its length has (2), its length less one, and the
value or values. Zeros fill the last byte.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import Field, TypeAdapter, ValidationError

from svfseg.data.images import Array
from svfseg.errors import InputError

Mask = npt.NDArray[np.bool_]
_Byte = Annotated[int, Field(ge=0, le=255, strict=True)]

# Bits of a value, and of run lengths, as Label Studio itself writes them.
_WORD = 8
_SIZES = (3, 4, 8, 16)
_CHANNELS = 4


def encode_mask(mask: npt.NDArray[np.generic]) -> list[int]:
    """Encode a mask, white and opaque inside, transparent outside.

    Args:
        mask: (height, width), non-zero inside.
    """
    inside = (np.asarray(mask) != 0).ravel()
    return encode_bytes(np.repeat(np.where(inside, 255, 0).astype(np.uint8), _CHANNELS))


def decode_mask(rle: Sequence[object], height: int, width: int) -> Mask:
    """Decode a mask of Label Studio.

    A brush leaves soft edges, and strokes may be drawn half transparent: the pixels inside are
    those that are more than half as opaque as the most opaque pixel.

    Args:
        rle: the bytes of the stream.
        height: height of the image, pixels.
        width: width of the image, pixels.

    Returns:
        (height, width) bool.

    Raises:
        InputError: it is not such a stream, or of another size than the image.
    """
    values = decode_bytes(rle, height * width * _CHANNELS)
    alpha = values.reshape(height, width, _CHANNELS)[..., -1].astype(int)
    inside: Mask = 2 * alpha > max(1, int(alpha.max()))
    return inside


def encode_bytes(values: Array) -> list[int]:
    """Encode values as a stream.

    Args:
        values: (number,) uint8.
    """
    starts = np.flatnonzero(np.diff(values)) + 1
    edges = [0, *starts.tolist(), len(values)]
    bits = [f"{len(values):032b}{_WORD - 1:05b}", *(f"{size - 1:04b}" for size in _SIZES)]
    for start, end in pairwise(edges):
        remaining = end - start
        while remaining:
            run = min(remaining, 1 << _SIZES[-1])
            which = next(i for i, size in enumerate(_SIZES) if run <= 1 << size)
            bits.append(f"1{which:02b}{run - 1:0{_SIZES[which]}b}{int(values[start]):08b}")
            remaining -= run
    text = "".join(bits)
    text += "0" * (-len(text) % 8)
    return list(int(text, 2).to_bytes(len(text) // 8, "big"))


def decode_bytes(rle: Sequence[object], count: int) -> Array:
    """Decode the values of a stream.

    Args:
        rle: the bytes of the stream.
        count: number of values that it must have.

    Returns:
        (count,) uint8.

    Raises:
        InputError: another number of values, a stream that is cut off, or not a stream.
    """
    try:
        content = TypeAdapter(list[_Byte]).validate_python(rle)
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(f"the brush mask is not a list of bytes ({first['msg']})") from error
    # the leading byte keeps the zeros at the front
    text = bin(int.from_bytes(b"\x01" + bytes(content), "big"))[3:]
    at = 0

    def take(bits: int) -> str:
        nonlocal at
        at += bits
        if at > len(text):
            raise InputError(f"the brush mask is cut off after {len(rle)} bytes: submit it again")
        return text[at - bits : at]

    number, word = int(take(32), 2), int(take(5), 2) + 1
    if number != count or word != _WORD:
        raise InputError(
            f"the brush mask has {number} values of {word} bits: expected {count} of {_WORD}, four "
            "per pixel of the image; it was drawn on another image"
        )
    sizes = [int(take(4), 2) + 1 for _ in range(4)]
    values = np.zeros(count, np.uint8)
    done = 0
    while done < count:
        repeats = take(1) == "1"
        run = int(take(sizes[int(take(2), 2)]), 2) + 1
        if done + run > count:
            raise InputError("the brush mask has runs beyond its end: submit it again")
        bits_of_values = take(_WORD if repeats else _WORD * run)
        listed = int(bits_of_values, 2).to_bytes(len(bits_of_values) // _WORD, "big")
        values[done : done + run] = np.frombuffer(listed, np.uint8)
        done += run
    return values
