"""The end of a cluster: its machines, the key that Ray made for it, and what this machine remembers of it.

`ray down` does the work. After it EC2 is asked, because what it has overlooked, or only stopped, costs money for ever.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunelab.cluster.file import ClusterFile
from tunelab.cluster.tunnel import KNOWN_HOSTS
from tunelab.cluster.where import marks_of
from tunelab.errors import ClusterError

Said = Callable[[str], None]

COSTLY = ("pending", "running", "stopping", "stopped")
"""States of machines that cost something, if only their disks."""
GONE_SECONDS = 600
"""A machine that is ended has so long until it is."""
_POLL_SECONDS = 5
_ATTEMPTS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A machine of a cluster, as EC2 has it."""

    identity: str
    kind: str
    """Instance type."""
    role: str
    """``head`` or ``worker``; empty where no tag says it."""
    state: str
    key: str
    """Name of its key pair; empty: it has none."""

    def __str__(self) -> str:
        return f"{self.identity} ({', '.join(word for word in (self.role, self.kind, self.state) if word)})"


def down(file: ClusterFile, say: Said) -> None:
    """End a cluster.

    Args:
        file: of it.
        say: tells the user what was ended.

    Raises:
        ClusterError: something that costs may be left; says what, and how to see it.
    """
    if file.provider != "aws":
        if code := _ray_down(file):
            raise ClusterError(f"{file.path}: ray down ended with {code}; Ray may still run on these machines")
        _forget(file)
        say(f"Ended: Ray on the machines of {file.name}")
        return
    ec2 = _Ec2(file)
    before = ec2.machines()
    code = _ray_down(file)
    if code:
        say(f"ray down ended with {code}; EC2 is asked for what is left")
    left = ec2.machines()
    for machine in left:
        say(f"ray down left {machine}; terminating it")
    ec2.terminate(left)
    ended = {machine.identity: machine for machine in (*before, *left)}
    for machine in ended.values():
        say(f"Ended: {machine}")
    keys = _keys_of_ray(file, ended.values())
    for name in sorted(keys):
        if users := ec2.users_of(name):
            say(f"Kept: key pair {name}, which {', '.join(users)} was started with")
            continue
        deleted, pem = ec2.delete_key(name), _delete_pem(name)
        if deleted or pem:
            say(f"Ended: key pair {name}{pem}")
    _forget(file)
    _forget_hosts(ended)
    where = f"; results stay in {file.storage}" if file.storage else ""
    say(f"Nothing of {file.name} is left in {file.region} that costs{where}")


def _ray_down(file: ClusterFile) -> int:
    """`ray down`, which speaks for itself; gives its exit code."""
    words = [sys.executable, "-m", "ray.scripts.scripts", "down", "-y", str(file.path)]
    return subprocess.run(words, check=False).returncode


class _Ec2:
    """What EC2 is asked, and told."""

    def __init__(self, file: ClusterFile) -> None:
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError, ClientError

        self._file = file
        self._errors = (BotoCoreError, ClientError)
        patient = Config(region_name=file.region or None, retries={"total_max_attempts": _ATTEMPTS})
        with self._told("does not say which machines run"):
            self._client = boto3.client("ec2", config=patient)

    @contextlib.contextmanager
    def _told(self, what: str) -> Iterator[None]:
        try:
            yield
        except self._errors as error:
            name, region = self._file.name, self._file.region
            see = f"aws ec2 describe-instances --region {region} --filters Name=tag:ray-cluster-name,Values={name}"
            raise ClusterError(f"{self._file.path}: AWS {what}: {error}; look what is left: {see}") from error

    def _find(self, filters: dict[str, list[str]]) -> list[dict[str, Any]]:
        wanted = [{"Name": key, "Values": values} for key, values in filters.items()]
        pages = self._client.get_paginator("describe_instances").paginate(Filters=wanted)
        return [one for page in pages for reservation in page["Reservations"] for one in reservation["Instances"]]

    def machines(self) -> list[Machine]:
        """Those of the cluster that cost something."""
        with self._told("does not say which machines run"):
            found = self._find({"tag:ray-cluster-name": [self._file.name], "instance-state-name": list(COSTLY)})
        return [_machine(one) for one in found]

    def terminate(self, machines: list[Machine]) -> None:
        """End machines, and wait until they are."""
        if not machines:
            return
        names = [machine.identity for machine in machines]
        with self._told("does not end machines"):
            self._client.terminate_instances(InstanceIds=names)
            waiter = self._client.get_waiter("instance_terminated")
            waiter.wait(
                InstanceIds=names,
                WaiterConfig={"Delay": _POLL_SECONDS, "MaxAttempts": GONE_SECONDS // _POLL_SECONDS},
            )

    def users_of(self, key: str) -> list[str]:
        """The machines, of whatever cluster, that were started with a key pair."""
        with self._told("does not say who uses a key pair"):
            return [one["InstanceId"] for one in self._find({"key-name": [key], "instance-state-name": list(COSTLY)})]

    def delete_key(self, name: str) -> bool:
        """Delete a key pair; gives whether there was one."""
        with self._told(f"does not delete the key pair {name}"):
            there = self._client.describe_key_pairs(Filters=[{"Name": "key-name", "Values": [name]}])["KeyPairs"]
            if there:
                self._client.delete_key_pair(KeyName=name)
        return bool(there)


def _machine(told: dict[str, Any]) -> Machine:
    tags = {tag["Key"]: tag["Value"] for tag in told.get("Tags", ())}
    return Machine(
        identity=told["InstanceId"],
        kind=told["InstanceType"],
        role=tags.get("ray-node-type", ""),
        state=told["State"]["Name"],
        key=told.get("KeyName", ""),
    )


def _keys_of_ray(file: ClusterFile, machines: Iterable[Machine]) -> set[str]:
    """Names of key pairs that Ray made for a cluster, going by the names that it gives; one of the user's is none."""
    used = {machine.key for machine in machines}
    for _, made in marks_of(file):
        for node in (made.get("available_node_types") or {}).values():
            used.add(str((node.get("node_config") or {}).get("KeyName") or ""))
    named = {str(node.get("node_config", {}).get("KeyName")) for node in file.node_types.values()}
    ours = re.compile(rf"ray-autoscaler_(\d+_)?{re.escape(file.region)}")
    return {name for name in used - named if ours.fullmatch(name)}


def _delete_pem(name: str) -> str:
    """Delete the private half of a key pair where Ray puts it; gives what to say of it."""
    path = Path(f"~/.ssh/{name}.pem")
    try:
        path.expanduser().unlink()
    except FileNotFoundError:
        return ""
    except OSError as error:
        return f" (but not {path}: {error.strerror})"
    return f" and {path}"


def _forget(file: ClusterFile) -> None:
    """Remove the marks of `ray up`, so that searches run on this machine again."""
    for path, _ in marks_of(file):
        path.unlink(missing_ok=True)


def _forget_hosts(names: Iterable[str]) -> None:
    """Remove the host keys of machines that are gone."""
    known = KNOWN_HOSTS.expanduser()
    for name in names:
        if known.exists():  # names may be hashed in there
            subprocess.run(["ssh-keygen", "-R", name, "-f", str(known)], check=False, capture_output=True)
            known.with_name(f"{known.name}.old").unlink(missing_ok=True)
