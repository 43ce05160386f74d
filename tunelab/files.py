"""Files and the keys that name them: written whole or not at all, and never out of their folder or prefix."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from tunelab.errors import StorageError


def check_key(key: str, url: str) -> None:
    """Refuse a key that could leave the prefix.

    Raises:
        StorageError: it is empty or absolute, or has an empty part, ``.``, ``..``, a backslash or a control character.
    """
    if fault := fault_of_key(key):
        raise StorageError(f"{url}: the key {key!r} {fault}; keys are relative paths below it")


def check_prefix(prefix: str, url: str) -> None:
    """Refuse a prefix that could leave the store's own; an empty one and one that ends with ``/`` are good.

    Raises:
        StorageError: as for :func:`check_key`.
    """
    if prefix:
        check_key(prefix.removesuffix("/"), url)


def write_file(path: Path, data: bytes) -> None:
    """Write a file whole or not at all: a hidden temporary name beside it, fsync, rename.

    Raises:
        StorageError: it could not be written; what was there before is still there.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        try:
            temporary.unlink(missing_ok=True)
        except OSError:  # its folder is none, or its name too long: then it was never made
            pass
        say = f"cannot be written: {error.strerror}; free space or choose another folder"
        raise StorageError(f"{path}: {say}") from error


def sync_folder(folder: Path) -> None:
    """Let the names in a folder reach the disk, so that a rename survives a loss of power.

    Raises:
        StorageError: they could not.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise StorageError(f"{folder}: cannot be written: {error.strerror}; free space there") from error


def files_below(folder: Path, prefix: str = "") -> list[str]:
    """The regular files below a folder as keys, sorted; hidden ones, locks and links are left out.

    Links are left out so that a link to a private file does not carry it to a bucket. An absent folder has no files.

    Args:
        folder: that the keys are relative to.
        prefix: that they begin with; other folders are not looked at.

    Raises:
        StorageError: a folder cannot be read.
    """
    found = []
    begin = folder
    for part in prefix.split("/")[:-1]:
        begin = begin / part
        if part.startswith(".") or begin.is_symlink():
            return []
    for root, folders, names in os.walk(begin, onerror=_refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            path = Path(root, name)
            if not name.startswith(".") and not name.endswith(".lock") and path.is_file() and not path.is_symlink():
                found.append(path.relative_to(folder).as_posix())
    return sorted(key for key in found if key.startswith(prefix))


def _refuse(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):  # absent from the start, or removed while it was walked
        raise StorageError(f"{error.filename}: cannot be read: {error.strerror}; check its permissions") from error


def fault_of_key(key: str) -> str | None:
    """Why a key could leave its prefix; None when it cannot."""
    if not key:
        return "is empty"
    if key.startswith("/"):
        return "is absolute"
    if "\\" in key or any(ord(letter) < 32 or ord(letter) == 127 for letter in key):
        return "holds a backslash or a control character"
    parts = key.split("/")
    if ".." in parts:
        return "holds '..'"
    if "." in parts or "" in parts:
        return "holds '.' or an empty part"
    return None


def size_text(size: float) -> str:
    """Bytes for people: ``95 kB``, ``1.23 GB``."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 999.5:
            return f"{size:.0f} bytes" if unit == "bytes" else f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"
