"""Where a run's files are kept: put, get, list, delete, on a folder or on S3.

A :class:`Store` is a place with keys below one prefix; it does not know what the files mean. What keeps a run's folder
copied to one is :class:`tunelab.mirror.Mirror`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Protocol

from tunelab.errors import StorageError, UsageError
from tunelab.files import check_key, check_prefix, fault_of_key, files_below, write_file
from tunelab.s3 import AS_THE_ENVIRONMENT_SAYS, FAILURES, S3Options, S3Prefix, code_of, parse_s3

__all__ = ["FolderStore", "S3Options", "S3Store", "Source", "Store", "Version", "open_store", "parse_s3"]

Names = list[str]  # a name of its own, as stores have a method ``list``
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*:/", re.IGNORECASE)


class Store(Protocol):
    """A place with files below one prefix. Keys are relative, parted by ``/``, and never leave the prefix."""

    @property
    def url(self) -> str:
        """The place, as a user would write it."""

    def put(self, key: str, data: bytes) -> None:
        """Store ``data`` under ``key``, whole or not at all.

        Raises:
            StorageError: it could not be stored; what was there before is still there.
        """

    def get(self, key: str) -> bytes:
        """What is stored under ``key``.

        Raises:
            StorageError: nothing is, or it could not be read.
        """

    def list(self, prefix: str = "") -> list[str]:
        """The keys that begin with ``prefix``, sorted.

        Raises:
            StorageError: the place could not be read. An empty or absent folder has no keys.
        """

    def delete(self, key: str) -> None:
        """Let nothing be stored under ``key``, whether something was or not.

        Raises:
            StorageError: it could not be removed.
        """


class Source(Store, Protocol):
    """A store that runs are looked for in and brought back from, without trust in what is there."""

    def read(self, key: str, most: int) -> bytes | None:
        """At most the first ``most`` bytes of what is stored under ``key``; None when nothing is.

        Raises:
            StorageError: it could not be read.
        """

    def folders(self) -> Names:
        """The names that keys begin with before their first ``/``, sorted; hidden ones are left out.

        Raises:
            StorageError: the place could not be read.
        """


class FolderStore:
    """A folder of this machine, or one that is mounted on it."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @property
    def url(self) -> str:
        """The folder's path."""
        return str(self._root)

    def put(self, key: str, data: bytes) -> None:
        """See :meth:`Store.put`."""
        path = self._path(key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"{path.parent}: cannot be made: {error.strerror}; choose another --storage") from error
        write_file(path, data)

    def get(self, key: str) -> bytes:
        """See :meth:`Store.get`."""
        path = self._path(key)
        try:
            return path.read_bytes()
        except OSError as error:
            raise StorageError(
                f"{path}: cannot be read: {error.strerror}; check the name and the permissions"
            ) from error

    def list(self, prefix: str = "") -> list[str]:
        """See :meth:`Store.list`."""
        check_prefix(prefix, self.url)
        return files_below(self._root, prefix)

    def delete(self, key: str) -> None:
        """See :meth:`Store.delete`."""
        path = self._path(key)
        try:
            path.unlink()
        except (FileNotFoundError, NotADirectoryError):
            pass
        except OSError as error:
            raise StorageError(f"{path}: cannot be removed: {error.strerror}; check its permissions") from error

    def read(self, key: str, most: int) -> bytes | None:
        """See :meth:`Source.read`."""
        path = self._path(key)
        try:
            with path.open("rb") as file:
                return file.read(most)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise StorageError(f"{path}: cannot be read: {error.strerror}; check its permissions") from error

    def folders(self) -> Names:
        """See :meth:`Source.folders`."""
        try:
            with os.scandir(self._root) as found:
                names = [one.name for one in found if one.is_dir(follow_symlinks=False)]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StorageError(f"{self._root}: cannot be read: {error.strerror}; check its permissions") from error
        return _shown(names)

    def _path(self, key: str) -> Path:
        check_key(key, self.url)
        path = self._root / key
        if not path.resolve().is_relative_to(self._root.resolve()):
            raise StorageError(f"{path}: a link leads out of {self._root}; remove the link")
        return path


@dataclass(frozen=True, kw_only=True, slots=True)
class Version:
    """An object of S3 at one moment."""

    data: bytes
    """At most its first MiB."""
    tag: str
    """Its ETag: another one after every change."""
    age: float
    """Seconds since it was put, by the clock of the server alone; it tells whole ones."""


class NoConditionsError(StorageError):
    """The server does not know conditional writes."""


class S3Store:
    """A prefix of an S3 bucket as a store.

    Args:
        bucket: its name.
        prefix: without slashes at its ends; empty for the whole bucket.
        timeout: seconds for one answer of the server, and a quarter of them for a connection.
        attempts: how often a request is sent before it is given up; see :class:`~tunelab.s3.S3Prefix`.
        s3: endpoint and encryption.
    """

    def __init__(
        self,
        bucket: str,
        prefix: str = "",
        *,
        timeout: float = 30.0,
        attempts: int = 4,
        s3: S3Options = AS_THE_ENVIRONMENT_SAYS,
    ) -> None:
        self._place = S3Prefix(bucket, prefix, timeout=timeout, attempts=attempts, s3=s3)
        self._named = (bucket, prefix)
        self._s3 = s3

    @property
    def url(self) -> str:
        """``s3://bucket/prefix``."""
        return self._place.url

    def with_limits(self, *, timeout: float, attempts: int) -> S3Store:
        """The same prefix, asked with another patience."""
        return S3Store(*self._named, timeout=timeout, attempts=attempts, s3=self._s3)

    def put(self, key: str, data: bytes) -> None:
        """See :meth:`Store.put`. One request (5 GiB at most): a broken one leaves no part behind."""
        self._place.ask("put_object", key=self._place.whole(key), Body=data, **self._s3.of_put())

    def get(self, key: str) -> bytes:
        """See :meth:`Store.get`. The server's checksum is compared by boto3."""
        whole = self._place.whole(key)
        return self._body(self._place.ask("get_object", key=whole), whole)

    def list(self, prefix: str = "") -> list[str]:
        """See :meth:`Store.list`. Objects whose names could not have been put here are left out."""
        return list(self.marks(prefix))

    def marks(self, prefix: str = "") -> dict[str, tuple[int, str]]:
        """The keys of :meth:`list`, each with size and ETag: another one after every change.

        Raises:
            StorageError: as :meth:`list`.
        """
        check_prefix(prefix, self.url)
        found = sorted((key, (one["Size"], one["ETag"])) for key, one in self._place.objects(prefix))
        return {key: mark for key, mark in found if fault_of_key(key) is None}

    def delete(self, key: str) -> None:
        """See :meth:`Store.delete`."""
        self._place.ask("delete_object", key=self._place.whole(key), none_for=_NOTHING_THERE)

    def read(self, key: str, most: int) -> bytes | None:
        """See :meth:`Source.read`."""
        whole = self._place.whole(key)
        answer = self._place.ask("get_object", key=whole, none_for=_NOTHING_THERE)
        return None if answer is None else self._body(answer, whole, most)

    def folders(self) -> Names:
        """See :meth:`Source.folders`."""
        return _shown(self._place.folders())

    def version(self, key: str) -> Version | None:
        """What is stored under ``key``, and what tells it from what was there before; None when nothing is.

        Raises:
            StorageError: it could not be read.
        """
        whole = self._place.whole(key)
        answer = self._place.ask("get_object", key=whole, none_for=_NOTHING_THERE)
        if answer is None:
            return None
        told = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
        age = (parsedate_to_datetime(told) - answer["LastModified"]).total_seconds() if told else 0.0
        return Version(data=self._body(answer, whole, 1 << 20), tag=answer["ETag"], age=age)

    def put_if(self, key: str, data: bytes, tag: str) -> str | None:
        """Store ``data`` under ``key`` if what is there has this tag; if it is empty: if nothing is there.

        A request that is sent again because its answer was lost can be refused although it was done: who is refused
        reads what is there.

        Returns:
            The new tag; None when it was refused.

        Raises:
            NoConditionsError: the server does not know conditional writes.
            StorageError: it could not be stored, or whether it was is not known.
        """
        fields = self._s3.of_put() | ({"IfMatch": tag} if tag else {"IfNoneMatch": "*"})
        try:
            answer = self._place.ask("put_object", key=self._place.whole(key), none_for=_REFUSED, Body=data, **fields)
        except StorageError as error:
            if code_of(error.__cause__) in ("NotImplemented", "501"):
                raise NoConditionsError(str(error)) from error
            raise
        return None if answer is None else str(answer["ETag"])

    def _body(self, answer: Any, whole: str, most: int | None = None) -> bytes:
        try:
            with answer["Body"] as body:
                if most is None or answer["ContentLength"] <= most:
                    return bytes(body.read())  # to the end, so that boto3 compares size and checksum
                return bytes(body.read(most))
        except FAILURES as error:
            raise self._place.explained(error, whole) from error


_NOTHING_THERE = frozenset({"NoSuchKey", "404"})
_REFUSED = _NOTHING_THERE | {"PreconditionFailed", "412", "ConditionalRequestConflict", "409"}


def _shown(names: Iterable[str]) -> Names:
    """Without hidden ones, and without those that no key can begin with."""
    return sorted(name for name in names if fault_of_key(name) is None and name[0] != ".")


def open_store(url: str, s3: S3Options = AS_THE_ENVIRONMENT_SAYS) -> FolderStore | S3Store:
    """The store that a URL names; nothing is read or written yet.

    Args:
        url: ``s3://bucket/prefix``, or the path of a folder.
        s3: endpoint and encryption, for the first.

    Raises:
        UsageError: the URL means neither.
    """
    if not url.strip():
        raise UsageError("storage: empty; write a folder or s3://bucket/prefix")
    if url.lower().startswith("s3:"):
        return S3Store(*parse_s3(url), s3=s3)
    if _SCHEME.match(url):
        raise UsageError(f"storage: {url.split(':')[0]}: is no known scheme; write a folder or s3://bucket/prefix")
    return FolderStore(Path(url).expanduser())
