"""Damage to files, made from a seed: bytes, parts of archives, JSON and YAML of other shapes."""

import io
import json
import random
import zipfile
from typing import Any

# What a number, a text or a list of a file becomes.
ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 10**9, 10**400, -(10**30), 0.5, 1e308, -1e308, float("nan"),
    float("inf"), "", " ", "0", "nan", "\x00", "\ud800", "x" * 10_000, "../../etc/passwd", "é" * 99,
    [], {}, [[]], [None], {"": None}, [0] * 1000, {"a": {"b": {"c": []}}},
)  # fmt: skip
WORDS = (b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x00\x00\x00\x00", b"\x80\x00\x00\x00")


def nested(depth: int) -> Any:
    """A list in a list, and so on."""
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


def mutate_bytes(data: bytes, rng: random.Random) -> bytes:
    """Change one to eight places of a file."""
    content = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        at = rng.randrange(max(1, len(content)))
        length = min(rng.choice((1, 4, 64, 1024)), max(1, len(content) - at))
        way = rng.randrange(8)
        if way == 0 and content:
            content[at] ^= 1 << rng.randrange(8)
        elif way == 1:
            content[at : at + length] = rng.randbytes(length)
        elif way == 2:
            del content[at : at + length]
        elif way == 3:
            content[at:at] = content[at : at + length]
        elif way == 4:
            del content[at:]
        elif way == 5:
            content[at : at + 4] = rng.choice(WORDS)
        elif way == 6:
            content[at:at] = rng.randbytes(length)
        elif content:  # the first bytes are where formats say their sizes
            head = rng.randrange(min(64, len(content)))
            content[head] = rng.randrange(256)
    return bytes(content)


def mutate_value(value: Any, rng: random.Random) -> Any:
    """Change one to three places of what JSON or YAML holds."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        value = _changed(value, rng)
    return value


def _changed(value: Any, rng: random.Random) -> Any:
    deeper = isinstance(value, (dict, list)) and value and rng.random() < 0.85
    if not deeper:
        return nested(rng.choice((5, 5000))) if rng.random() < 0.05 else rng.choice(ODD)
    if isinstance(value, dict):
        key = rng.choice(list(value))
        way = rng.random()
        if way < 0.1:
            return {k: v for k, v in value.items() if k != key}
        if way < 0.2:
            return {**value, f"{key}2": rng.choice(ODD)}
        return {**value, key: _changed(value[key], rng)}
    at = rng.randrange(len(value))
    way = rng.random()
    if way < 0.1:
        return value[:at] + value[at + 1 :]
    if way < 0.2:
        return value * rng.choice((2, 50))
    return [*value[:at], _changed(value[at], rng), *value[at + 1 :]]


LONG = b"1" * 5000


def dumped(value: Any) -> bytes:
    """JSON as Python writes it, NaN and half surrogates too; however deep it is."""
    try:
        return json.dumps(value).encode()
    except RecursionError:
        return b"[" * 100_000 + b"]" * 100_000


def mutate_json(data: bytes, rng: random.Random) -> bytes:
    """Change a JSON file in its values, or in its bytes."""
    if rng.random() < 0.3:
        return mutate_bytes(data, rng)
    changed = dumped(mutate_value(json.loads(data), rng))
    return changed.replace(b"null", LONG) if rng.random() < 0.02 else changed


def mutate_archive(data: bytes, rng: random.Random) -> bytes:
    """Change one part of a zip file, so that its checksum is right again."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    name = rng.choice(list(parts))
    way = rng.random()
    if way < 0.05:
        del parts[name]
    elif way < 0.1:
        parts[f"{name}.more"] = parts[name]
    elif way < 0.15:
        parts[name] = b" " * 300_000_000  # some 300 kB once it is packed
    elif name.endswith(".json"):
        parts[name] = mutate_json(parts[name], rng)
    else:
        parts[name] = mutate_bytes(parts[name], rng)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for part, content in parts.items():
            archive.writestr(part, content)
    return packed.getvalue()
