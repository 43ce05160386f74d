"""Arrays as bytes, and a checkpoint of them in one file with its digest. No model and no store is known here.

A checkpoint's first line is the SHA-256 of all that follows, an uncompressed npz: arrays under names such as
``model/0000``, and under ``state`` the bytes of a JSON object, which also says how many arrays a name has.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunelab.errors import StateError
from tunelab.npy import read_npz, write_npz

Arrays = Sequence[NDArray[Any]]

_STATE = "state"
_DIGEST_LENGTH = 64


def pack_checkpoint(arrays: Mapping[str, Arrays], state: Mapping[str, Any]) -> bytes:
    """A checkpoint's bytes.

    Args:
        arrays: by name; not the name ``state``.
        state: what JSON can hold, and NaN.

    Raises:
        ValueError: an array holds objects, which only a pickle could store.
    """
    line = json.dumps({"arrays": {name: len(some) for name, some in arrays.items()}, "state": dict(state)})
    named = {f"{name}/{i:04d}": array for name, some in arrays.items() for i, array in enumerate(some)}
    rest = write_npz({**named, _STATE: np.frombuffer(line.encode(), np.uint8)})
    return digest(rest).encode() + b"\n" + rest


def unpack_checkpoint(raw: bytes, where: str) -> tuple[dict[str, Arrays], dict[str, Any]]:
    """What :func:`pack_checkpoint` was given: arrays by name, and the state.

    Args:
        raw: its bytes; a damaged one takes no more memory than a whole one.
        where: they are from, for messages.

    Raises:
        StateError: they are damaged, or no checkpoint.
    """
    told, rest = raw[:_DIGEST_LENGTH], memoryview(raw)[_DIGEST_LENGTH + 1 :]
    if raw[_DIGEST_LENGTH : _DIGEST_LENGTH + 1] != b"\n" or digest(rest).encode() != told:
        raise StateError(f"{where}: does not match its digest")
    try:
        named = read_npz(bytes(rest))
        content = json.loads(named[_STATE].tobytes())
        arrays: dict[str, Arrays] = {
            name: [named[f"{name}/{i:04d}"] for i in range(count)] for name, count in content["arrays"].items()
        }
        return arrays, dict(content["state"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StateError(f"{where}: is no checkpoint of this version ({error})") from error


def pack(arrays: Arrays) -> bytes:
    """Arrays as the bytes of an npz file, in order.

    Raises:
        ValueError: an array holds objects, which only a pickle could store.
    """
    return write_npz({f"{i:04d}": array for i, array in enumerate(arrays)})


def unpack(raw: bytes) -> list[NDArray[Any]]:
    """The arrays that :func:`pack` took; nothing in them is ever unpickled.

    Raises:
        StateError: the bytes are damaged, or were not made by :func:`pack`.
    """
    try:
        return [array for _, array in sorted(read_npz(raw).items())]
    except ValueError as error:
        raise StateError(f"weights: {error}; the file is damaged: copy it again, or train anew") from error


def digest(raw: bytes | memoryview) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(raw).hexdigest()
