"""What makes EC2's machines real: a host for each one that moto believes in, and its end when moto ends it."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Any, Self

from hosts.aws import Aws
from hosts.lab import Lab

_POLL = 0.3


class Hypervisor:
    """Boots and powers off machines while it is entered.

    Args:
        lab: where they are.
        aws: that says which there are.
    """

    def __init__(self, lab: Lab, aws: Aws) -> None:
        self._lab = lab
        self._aws = aws
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="hypervisor", daemon=True)
        self.events: list[tuple[float, str]] = []
        """Of the machines: when (seconds since 1970), and what."""
        self.failed: BaseException | None = None
        """What ended it before its time."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join(90)

    def _watch(self) -> None:
        try:
            while not self._over.wait(_POLL):
                for machine in self._aws.machines():
                    self._look(machine)
        except BaseException as error:  # noqa: BLE001 - the test raises it
            self.failed = error

    def _look(self, machine: dict[str, Any]) -> None:
        name, state = machine["InstanceId"], machine["State"]["Name"]
        host = self._lab.hosts.get(name)
        if host is None and state in ("pending", "running"):
            pairs = self._aws.ask("ec2", "describe_key_pairs", KeyNames=[machine["KeyName"]], IncludePublicKey=True)
            key = pairs["KeyPairs"][0]["PublicKey"]
            public = machine.get("PublicIpAddress", "")
            self._lab.start(name, machine["PrivateIpAddress"], public=public, keys=key)
            market = machine.get("InstanceLifecycle", "on demand")
            self._tell(f"{name} boots: {machine['InstanceType']}, {market}")
        elif host is not None and host.up and state not in ("pending", "running"):
            host.unplug()
            self._tell(f"{name} is unplugged: {state}")

    def _tell(self, what: str) -> None:
        self.events.append((time.time(), what))
