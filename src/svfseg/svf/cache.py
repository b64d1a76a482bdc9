"""Store factors on disk, under a hash of the bytes of the weight that was factored."""

import contextlib
import hashlib
import logging
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load, save
from torch import Tensor

from svfseg.errors import InputError
from svfseg.files import cache_folder
from svfseg.svf.factorize import Factors

# Part of every key: factors of another recipe are never found.
RECIPE = "svd-float64-canonical-1"
# Factoring less than this takes about as long as reading it.
SMALLEST = 2**14
LIMIT = 2 * 2**30

_log = logging.getLogger(__name__)


def cached(
    weight: Tensor, setting: str, dtype: torch.dtype, compute: Callable[[], Factors]
) -> Factors:
    """Read the factors of a weight from the cache, or compute and store them, in ``dtype``.

    An entry is one file: the hash of its content, then the content. It is written beside its
    place and renamed, so that a reader never sees half of it; one that is damaged is computed
    again. What was not used for the longest time goes first when all entries together pass
    $SVFSEG_FACTOR_CACHE_MIB (2048 by default; 0 switches the cache off). A disk that cannot be
    written costs time, nothing else.

    Args:
        weight: its bytes, dtype and shape are the key, with ``setting`` and ``dtype``.
        setting: what else the factors depend on (groups, layout).
        dtype: dtype of the factors.
        compute: gives them, in float64.
    """
    limit = _limit()
    if weight.numel() < SMALLEST or limit == 0:
        return Factors(*(f.to(dtype) for f in compute()))
    content: Any = weight.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    # the device's library is part of the recipe: another's vectors differ in the last bits
    head = f"{RECIPE} {setting} {dtype} {weight.dtype} {tuple(weight.shape)} {weight.device.type}"
    key = hashlib.sha256(head.encode())
    key.update(content)
    path = cache_folder() / "factors" / f"{key.hexdigest()}.svd"
    stored = _read(path)
    if stored is not None:
        return Factors(*(f.to(weight.device) for f in stored))
    factors = Factors(*(f.to(dtype) for f in compute()))
    _write(path, factors, limit)
    return factors


def _limit() -> int:
    text = os.environ.get("SVFSEG_FACTOR_CACHE_MIB", "")
    try:
        return int(text) * 2**20 if text else LIMIT
    except ValueError as error:
        raise InputError(
            f"SVFSEG_FACTOR_CACHE_MIB is {text!r}: expected a whole number of MiB, 0 for no cache"
        ) from error


def _read(path: Path) -> Factors | None:
    try:
        content = path.read_bytes()
    except OSError:
        return None
    body = memoryview(content)[32:]
    if hashlib.sha256(body).digest() == content[:32]:
        with contextlib.suppress(safetensors.SafetensorError, KeyError):
            tensors = load(bytes(body))
            with contextlib.suppress(OSError):
                os.utime(path)  # used now
            return Factors(tensors["U"], tensors["s"], tensors["Vh"])
    _log.warning("%s is damaged: its factors are computed again", path)
    return None


def _write(path: Path, factors: Factors, limit: int) -> None:
    body = save({k: v.cpu().contiguous() for k, v in factors._asdict().items()})
    if len(body) > limit:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, suffix=".part")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(hashlib.sha256(body).digest())
                file.write(body)
            os.replace(name, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(name)
            raise
        _shrink(path.parent, limit)
    except OSError as error:
        _log.warning("the factors cannot be stored in %s: %s", path.parent, error)


def _shrink(folder: Path, limit: int) -> None:
    """Remove the entries not used for longest until the rest fits; others may remove them too."""
    entries = []
    for path in folder.iterdir():
        with contextlib.suppress(OSError):
            status = path.stat()
            entries.append((status.st_mtime, status.st_size, path))
    total = sum(size for _, size, _ in entries)
    for _, size, path in sorted(entries):
        if total <= limit:
            break
        with contextlib.suppress(OSError):
            path.unlink()
        total -= size
