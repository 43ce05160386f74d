"""Arrays in files, and a checkpoint of them in a folder, each file with its digest. No model is known here.

Files are written by rename, the state last: a folder without a whole state is no checkpoint. ``state.json`` is two
lines: the digest of the second, and that one, in JSON, with the digests of all other files.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tunelab.errors import StateError, StorageError
from tunelab.files import write_file

Arrays = Sequence[NDArray[Any]]


def write_checkpoint(folder: Path, arrays: Mapping[str, Arrays], state: Mapping[str, Any]) -> None:
    """Write a checkpoint.

    Args:
        folder: where to, made where there is none; one file ``<name>.npz`` for each name, and ``state.json``.
        arrays: by name.
        state: what JSON can hold; not the key ``digests``.

    Raises:
        StorageError: the folder or a file could not be written.
    """
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise StorageError(
            f"{folder}: cannot be made: {error.strerror}; free space or choose another folder"
        ) from error
    digests = {}
    for name, some in arrays.items():
        raw = pack(some)
        digests[name] = digest(raw)
        write_file(folder / f"{name}.npz", raw)
    line = json.dumps({**state, "digests": digests}).encode()
    write_file(folder / "state.json", digest(line).encode() + b"\n" + line)


def read_checkpoint(folder: Path, names: Iterable[str]) -> tuple[dict[str, Arrays], dict[str, Any]]:
    """What :func:`write_checkpoint` was given: arrays by name, and the state.

    Args:
        folder: where from.
        names: of the arrays.

    Raises:
        StateError: a file is missing or damaged.
    """
    try:
        told, _, line = (folder / "state.json").read_bytes().partition(b"\n")
        raws = {name: (folder / f"{name}.npz").read_bytes() for name in names}
    except OSError as error:
        raise StateError(f"{folder}: no whole checkpoint: {error}") from error
    _check(folder / "state.json", line, told.decode("ascii", "replace"))
    state = json.loads(line)
    digests = state.pop("digests")
    for name, raw in raws.items():
        _check(folder / f"{name}.npz", raw, digests.get(name))
    return {name: unpack(raw) for name, raw in raws.items()}, state


def pack(arrays: Arrays) -> bytes:
    """Arrays as the bytes of an npz file, in order."""
    buffer = io.BytesIO()
    named: dict[str, Any] = {f"{i:04d}": array for i, array in enumerate(arrays)}
    np.savez(buffer, **named)
    return buffer.getvalue()


def unpack(raw: bytes) -> list[NDArray[Any]]:
    """The arrays that :func:`pack` took; nothing in them is ever unpickled."""
    with np.load(io.BytesIO(raw), allow_pickle=False) as file:
        return [file[name] for name in sorted(file.files)]


def digest(raw: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(raw).hexdigest()


def _check(file: Path, raw: bytes, told: str | None) -> None:
    if digest(raw) != told:
        raise StateError(f"{file}: does not match its digest; an older checkpoint may be whole")
