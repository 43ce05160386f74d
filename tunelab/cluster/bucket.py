"""Whether the bucket of a cluster file can be written: from here, and from a worker. What else AWS says: ``live``.

One object of a few bytes is put below the prefix and deleted again.
"""

from __future__ import annotations

import shlex
import uuid
from collections.abc import Callable

from tunelab.cluster.findings import Notes
from tunelab.errors import ClusterError, StorageError, UsageError
from tunelab.s3 import S3Prefix, parse_s3

Shell = Callable[[str], str]
"""Runs a shell command on a worker and gives what it printed; raises ClusterError when it cannot be run or fails."""

SAID = "tunelab: the bucket was written"
"""What a worker prints when it could write."""
_ATTEMPTS = 3
_TIMEOUT = 20.0
_OLD_NAMES = {None: "us-east-1", "EU": "eu-west-1"}
"""What S3 says of buckets in two regions."""


def wrote_from(on_worker: Shell | None) -> str:
    """Where the bucket was written from, for whoever reads that nothing was found.

    Args:
        on_worker: as given to :func:`check_live`.
    """
    if on_worker is not None:
        return "the bucket was written from here and from a worker"
    return "no cluster runs, so the bucket was written from here, with the rights of this machine and not a worker's"


def write_from_here(notes: Notes) -> None:
    """Note whether the bucket cannot be written, read and deleted from here, or is far from the machines.

    Args:
        notes: of the file.
    """
    file = notes.file
    at = ("provider", "storage")
    try:
        bucket, prefix = parse_s3(file.storage)
    except UsageError:
        return  # check() says it
    place = S3Prefix(bucket, prefix, timeout=_TIMEOUT, attempts=_ATTEMPTS)
    key = place.whole(f".tunelab-check-{uuid.uuid4().hex}")
    try:
        told = place.ask("get_bucket_location", none_for=("AccessDenied", "403"))
        named = None if told is None else told.get("LocationConstraint")
        where = None if told is None else _OLD_NAMES.get(named, named)
        if where is not None and file.provider == "aws" and where != file.region:
            what = f"the bucket is in {where}, the machines in {file.region}: slow, and every byte is billed"
            notes.error(at, what, f"take a bucket in {file.region}, or machines in {where}")
        place.ask("put_object", key=key, Body=b"tunelab cluster check --live\n")
        place.ask("get_object", key=key)["Body"].read()
        place.ask("delete_object", key=key)
    except (StorageError, UsageError) as problem:
        what, _, remedy = str(problem).partition("; ")
        notes.error(at, what, remedy or "check its name and rights")


def worker_command(storage: str, *, python: str = "~/venv/bin/python") -> str:
    """The shell command that writes to a bucket, and deletes what it wrote, where it is run; it prints :data:`SAID`.

    Args:
        storage: ``s3://BUCKET/PREFIX``.
        python: that has boto3 there; the shell expands it.

    Raises:
        UsageError: no URL of a bucket.
    """
    bucket, prefix = parse_s3(storage)
    key = "/".join(part for part in (prefix, f".tunelab-check-{uuid.uuid4().hex}") if part)
    code = (
        "import boto3; s3 = boto3.client('s3'); "
        f"at = dict(Bucket={bucket!r}, Key={key!r}); "
        "s3.put_object(Body=b'tunelab cluster check --live', **at); "
        f"s3.get_object(**at); s3.delete_object(**at); print({SAID!r})"
    )
    return f"{python} -c {shlex.quote(code)}"


def write_from_worker(notes: Notes, on_worker: Shell, *, python: str = "~/venv/bin/python") -> None:
    """Note whether a worker cannot write to the bucket.

    Args:
        notes: of the file.
        on_worker: a shell there.
        python: of the worker.
    """
    at = ("provider", "storage")
    remedy = "give the role of the workers the rights that `tunelab cluster iam` prints"
    try:
        said = on_worker(worker_command(notes.file.storage, python=python))
    except UsageError:
        return  # check() says it
    except ClusterError as problem:
        notes.error(at, f"a worker could not write: {str(problem)[-300:]}", remedy)
        return
    if SAID not in said:
        last = (said.strip().splitlines() or ["nothing was printed"])[-1]
        notes.error(at, f"a worker could not write: {last[:300]}", remedy)
