"""Whether the bucket of a cluster file can be written: from here, and from a worker. What else AWS says: ``live``.

One object of a few bytes is put below the prefix and deleted again.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable

from tunelab.cluster.findings import Notes
from tunelab.errors import ClusterError, StorageError, UsageError
from tunelab.s3 import S3Prefix, parse_s3

OnWorker = Callable[[str], str]
"""Runs a program of Python on a worker and gives what it printed, errors too; raises ClusterError where it cannot, and
:class:`NoWorkerError` where no worker runs."""

SAID = "tunelab: the bucket was written"
"""What a worker prints when it could write."""
_AT = ("provider", "storage")
_ATTEMPTS = 3
_TIMEOUT = 20.0
_OLD_NAMES = {None: "us-east-1", "EU": "eu-west-1"}
"""What S3 says of buckets in two regions."""
_CUT_OFF = ("EndpointConnectionError", "ConnectTimeoutError", "ReadTimeoutError")


class NoWorkerError(ClusterError):
    """The head of a cluster runs, and no worker does."""


def only_from_here(why: str) -> str:
    """That the bucket was written from here alone, for people.

    Args:
        why: no worker did it.
    """
    return f"{why}, so the bucket was written from here, with the rights of this machine and not a worker's"


def write_from_here(notes: Notes) -> None:
    """Note whether the bucket cannot be written, read and deleted from here, or is far from the machines.

    Args:
        notes: of the file.
    """
    file = notes.file
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
            notes.error(_AT, what, f"take a bucket in {file.region}, or machines in {where}")
        place.ask("put_object", key=key, Body=b"tunelab cluster check --live\n")
        place.ask("get_object", key=key)["Body"].read()
        place.ask("delete_object", key=key)
    except (StorageError, UsageError) as problem:
        what, _, remedy = str(problem).partition("; ")
        notes.error(_AT, what, remedy or "check its name and rights")


def worker_program(storage: str) -> str:
    """The program that writes to a bucket, and deletes what it wrote, where it is run; it prints :data:`SAID`.

    Args:
        storage: ``s3://BUCKET/PREFIX``.

    Raises:
        UsageError: no URL of a bucket.
    """
    bucket, prefix = parse_s3(storage)
    key = "/".join(part for part in (prefix, f".tunelab-check-{uuid.uuid4().hex}") if part)
    patient = {
        "connect_timeout": _TIMEOUT / 4,
        "read_timeout": _TIMEOUT,
        "retries": {"mode": "standard", "total_max_attempts": _ATTEMPTS},
    }
    return (
        "import boto3; from botocore.config import Config; "
        f"s3 = boto3.client('s3', config=Config(**{patient!r})); "
        f"at = dict(Bucket={bucket!r}, Key={key!r}); "
        "s3.put_object(Body=b'tunelab cluster check --live', **at); "
        f"s3.get_object(**at); s3.delete_object(**at); print({SAID!r})"
    )


def write_from_worker(notes: Notes, on_worker: OnWorker) -> str:
    """Note whether a worker cannot write to the bucket, or cannot be asked to.

    Args:
        notes: of the file.
        on_worker: how one is asked.

    Returns:
        Where the bucket was written from, for people, where nothing is noted.
    """
    try:
        said = on_worker(worker_program(notes.file.storage))
    except UsageError:
        return ""  # check() says it
    except NoWorkerError:
        return only_from_here("the head runs and no worker does")
    except ClusterError as problem:
        what, _, remedy = str(problem).rpartition("; ")
        what, remedy = (what, remedy) if what else (remedy, "")
        notes.warn(
            _AT, f"no worker could be asked to write: {what[-300:]}", remedy or "look at the cluster: ray status"
        )
        return ""
    if SAID not in said.splitlines():
        last = (said.strip().splitlines() or ["nothing was printed"])[-1]
        remedy = "give the role of the workers the rights that `tunelab cluster iam` prints"
        if any(name in last for name in _CUT_OFF):
            remedy = "let the workers reach S3: a public address, or a gateway endpoint in their VPC"
        notes.error(_AT, f"a worker could not write: {last[:300]}", remedy)
    return "the bucket was written from here and from a worker"
