"""What a lease says: whose it is, and for how long. Where it is kept, and who may take it, is :mod:`tunelab.lease`."""

from __future__ import annotations

import os
import secrets
import socket
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError


class Owner(BaseModel):
    """A process that holds, or held, a lease."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    host: str = Field(max_length=255)
    pid: int = Field(gt=0)
    started: str = Field(max_length=40)
    """When it took the lease, by its own clock; for people."""
    numbers: str = Field(default="", max_length=200)
    """What the process id is counted in: a boot of a machine, and a namespace of processes there."""

    @classmethod
    def this(cls) -> Owner:
        """This process."""
        now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        return cls(host=socket.gethostname(), pid=os.getpid(), started=now, numbers=_numbers())

    def is_of_this_host(self) -> bool:
        """Whether it runs, or ran, on a machine of this name."""
        return self.host == socket.gethostname()

    def is_dead(self) -> bool:
        """Whether the process can be seen from here to be gone; False when it cannot be told."""
        if not (self.is_of_this_host() and self.numbers and self.numbers == _numbers()):
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except OSError:  # it is another user's
            pass
        return False

    def __str__(self) -> str:
        return f"process {self.pid} on {ascii(self.host)[1:-1]}"


class Terms(BaseModel):
    """The content of a lease's file."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    owner: Owner
    fence: int = Field(ge=0)
    token: str = Field(max_length=100)
    """Drawn by the owner: tells its lease from all others."""
    renewed: int = Field(default=0, ge=0)
    """How often."""
    seconds: float = Field(gt=0, le=3600)
    """Without a renewal for so long, the lease ends."""
    released: bool = False

    @classmethod
    def first(cls, seconds: float) -> Terms:
        """Those of this process, without a fence yet."""
        return cls(owner=Owner.this(), fence=0, token=secrets.token_hex(16), seconds=seconds)

    @classmethod
    def read(cls, raw: bytes | None) -> Terms | None:
        """The content of a file; None when there is none, or it means nothing."""
        try:
            return None if raw is None else cls.model_validate_json(raw)
        except ValidationError:
            return None

    def written(self) -> bytes:
        """As a file's content."""
        return self.model_dump_json(indent=1).encode()

    def but(self, **changes: object) -> Terms:
        """The same with other values."""
        return self.model_copy(update=changes)


def _numbers() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # a system that does not tell
        return ""
