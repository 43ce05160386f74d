"""Where a search runs: on a Ray that was named, on a cluster that was brought up from here, or on this machine.

A folder that merely holds a ``cluster.yaml`` asks nobody: AWS is asked only where ``ray up`` has left its mark for that
cluster on this machine, or where a command names the file. Ray keeps what it made of a cluster file in the folder
for temporary files, as ``ray-config-<digest>``; that is the mark, and it holds the key that Ray made if it made one.
"""

from __future__ import annotations

import json
import os
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tunelab.cluster.file import ClusterFile, load_cluster_file
from tunelab.errors import ClusterError, UsageError

T = TypeVar("T")

FILE = "cluster.yaml"
ASK_SECONDS = 3.0
"""How long a question to AWS or a head may take."""
SSH_PORT = 22


class NoHeadError(ClusterError):
    """The head of a cluster does not run, as far as those know who would."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The head of a cluster that runs, and how it is reached."""

    host: str
    """Address for ssh."""
    identity: str
    """What stays the same while the machine lives: its instance, else its address; host keys are kept by it."""
    user: str
    key: str
    """File of the private key; empty: as ssh finds one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """A cluster of a file."""

    file: ClusterFile
    head: Head


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a search runs; with neither address nor cluster on this machine, on a Ray of its own."""

    why: str
    """For people."""
    address: str | None = None
    """Of a Ray that this process joins."""
    cluster: Cluster | None = None
    """Where the search is handed over to."""


def place(*, address: str | None, local: bool, file: str | None, folder: Path | None) -> Place:
    """Decide, and say why.

    Args:
        address: that was asked for.
        local: whether this machine was.
        file: a cluster file that was named.
        folder: the current one, which may hold a ``cluster.yaml``; None: nothing in it matters.

    Raises:
        ClusterError: a cluster that was named does not run.
        UsageError: its file cannot be read.
    """
    here = f"this machine, {socket.gethostname()}, {os.cpu_count()} cores"
    if local:
        return Place(why=f"{here}: --local")
    if address:
        return Place(why=f"Ray at {address}: --address", address=address)
    if file is not None:
        named = load_cluster_file(Path(file))
        return _on(running(named), f"{file}: --cluster")
    if said := os.environ.get("RAY_ADDRESS"):
        return Place(why=f"Ray at {said}: RAY_ADDRESS", address=said)
    if folder is None or not (path := folder / FILE).is_file():
        return Place(why=here)
    try:
        found = load_cluster_file(path)
    except UsageError as error:
        return Place(why=f"{here}: {FILE} cannot be read ({error})")
    if mark_of(found) is None:
        return Place(why=f"{here}: no ray up of {FILE} from here")
    try:
        return _on(running(found), f"{FILE}, brought up from here")
    except ClusterError as error:
        return Place(why=f"{here}: {error}")


def _on(cluster: Cluster, why: str) -> Place:
    head = cluster.head
    at = head.host if head.identity == head.host else f"{head.host} ({head.identity})"
    return Place(why=f"cluster {cluster.file.name}, head {at}: {why}", cluster=cluster)


def running(file: ClusterFile) -> Cluster:
    """A cluster whose head runs.

    Raises:
        ClusterError: none does, or it cannot be found out within :data:`ASK_SECONDS`.
    """
    if file.provider == "aws":
        host, identity = _aws_head(file)
    elif file.provider == "local":
        host = identity = _local_head(file)
    else:
        say = "open a tunnel to its dashboard and name that: --address http://127.0.0.1:8265"
        raise ClusterError(f"{file.path}: provider.type: {file.provider}: only aws and local are looked up; {say}")
    auth = {**file.mapping("auth"), **((mark_of(file) or {}).get("auth") or {})}
    user = str(auth.get("ssh_user") or "")
    if not user:
        raise ClusterError(f"{file.path}: auth.ssh_user: missing; ssh needs it")
    key = str(Path(str(auth["ssh_private_key"])).expanduser()) if auth.get("ssh_private_key") else ""
    return Cluster(file=file, head=Head(host=host, identity=identity, user=user, key=key))


def mark_of(file: ClusterFile) -> Mapping[str, Any] | None:
    """What ``ray up`` made of a cluster file on this machine, the newest first; None: it was not run here."""
    return next((made for _, made in marks_of(file)), None)


def marks_of(file: ClusterFile) -> list[tuple[Path, Mapping[str, Any]]]:
    """All that Ray's launcher made of a cluster's file on this machine, the newest first, and where it lies."""
    ours = file.mapping("provider")
    return [
        (path, made)
        for path, made in _marks()
        if made.get("cluster_name") == file.name
        and all(ours.get(key) == (made.get("provider") or {}).get(key) for key in ("type", "region", "head_ip"))
    ]


def _marks() -> Iterator[tuple[Path, Mapping[str, Any]]]:
    paths = [path for path in Path(tempfile.gettempdir()).glob("ray-config-*") if path.is_file()]
    for path in sorted(paths, key=lambda path: path.stat().st_mtime, reverse=True):
        try:
            if path.stat().st_uid != os.geteuid():
                continue  # anybody may write there
            content = json.loads(path.read_text())
        except (OSError, ValueError):
            continue
        if isinstance(content, dict) and isinstance(made := content.get("config"), dict):
            yield path, made


def _aws_head(file: ClusterFile) -> tuple[str, str]:
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    patient = Config(
        connect_timeout=ASK_SECONDS,
        read_timeout=ASK_SECONDS,
        retries={"total_max_attempts": 1},
        region_name=file.region or None,
    )
    wanted = {"tag:ray-cluster-name": file.name, "tag:ray-node-type": "head", "instance-state-name": "running"}
    filters = [{"Name": name, "Values": [value]} for name, value in wanted.items()]
    try:
        client = boto3.client("ec2", config=patient)
        found = _within(ASK_SECONDS, lambda: client.describe_instances(Filters=filters))
    except (BotoCoreError, ClientError, TimeoutError) as error:
        raise ClusterError(f"{file.path}: AWS ({file.region}) does not say whether the head runs: {error}") from error
    machines = [one for reservation in found["Reservations"] for one in reservation["Instances"]]
    if not machines:
        raise NoHeadError(f"{file.path}: no head of {file.name} runs in {file.region}; ray up starts it")
    machine = max(machines, key=lambda one: str(one.get("LaunchTime")))
    host = machine.get("PrivateIpAddress" if file.value("provider", "use_internal_ips") else "PublicIpAddress")
    if not host:
        raise ClusterError(f"{file.path}: the head {machine['InstanceId']} has no address yet; try again in a minute")
    return str(host), str(machine["InstanceId"])


def _within(seconds: float, ask: Callable[[], T]) -> T:
    """What a question comes to. Its own timeouts know nothing of names that are looked up, and of answers by drops.

    Raises:
        TimeoutError: it took too long; it is left behind.
        Exception: whatever it raised.
    """
    answered: Future[T] = Future()

    def run() -> None:
        try:
            answered.set_result(ask())
        except Exception as error:  # noqa: BLE001 - told to whoever waits
            answered.set_exception(error)

    threading.Thread(target=run, daemon=True, name="tunelab-ask").start()
    try:
        return answered.result(seconds)
    except TimeoutError:
        raise TimeoutError(f"no answer within {seconds:g} s") from None


def _local_head(file: ClusterFile) -> str:
    host = str(file.value("provider", "head_ip") or "")
    if not host:
        raise ClusterError(f"{file.path}: provider.head_ip: missing; write the head's address")
    try:
        socket.create_connection((host, SSH_PORT), timeout=ASK_SECONDS).close()
    except OSError as error:
        raise ClusterError(f"{file.path}: no ssh answers at the head {host}: {error}") from error
    return host
