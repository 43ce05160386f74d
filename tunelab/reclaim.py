"""Whether the spot machine below is about to be taken back: AWS gives two minutes' notice, to those who ask.

The instance's metadata service is asked every few seconds, with a session as IMDSv2 wants it, and only on a machine of
EC2's or where ``AWS_EC2_METADATA_SERVICE_ENDPOINT`` names a service; never with ``AWS_EC2_METADATA_DISABLED=true``.
https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html
"""

from __future__ import annotations

import json
import os
import threading
import time
import urllib.request
from pathlib import Path

ENDPOINT = "http://169.254.169.254"
POLL_SECONDS = 5.0
_VENDOR = Path("/sys/devices/virtual/dmi/id/sys_vendor")
_TIMEOUT = 2.0
_SESSION_SECONDS = 3600


class Notice:
    """Asks in a thread of its own, from :meth:`watch` on.

    Args:
        endpoint: of the metadata service; empty: there is none.
        poll: seconds between two questions.
    """

    def __init__(self, endpoint: str, poll: float = POLL_SECONDS) -> None:
        self._endpoint = endpoint.rstrip("/")
        self._poll = poll
        self._token = ("", 0.0)
        self._said = ""

    @property
    def said(self) -> str:
        """What was said, such as ``terminate at 2026-01-02T03:04:05Z``; empty while nothing was."""
        return self._said

    def watch(self) -> None:
        """Begin to ask, if there is anybody."""
        if self._endpoint:
            threading.Thread(target=self._ask_on, name="reclaim", daemon=True).start()

    def _ask_on(self) -> None:
        while not self._said:
            self._said = self.ask()
            time.sleep(self._poll)

    def ask(self) -> str:
        """Ask once; empty when there is no notice, or no answer."""
        try:
            answer = json.loads(self._get("/latest/meta-data/spot/instance-action"))
            return f"{answer['action']} at {answer['time']}"
        except (OSError, ValueError, KeyError, TypeError):  # without a notice the answer is 404
            return ""

    def _get(self, path: str) -> bytes:
        token, until = self._token
        if time.monotonic() >= until:
            wanted = {"X-aws-ec2-metadata-token-ttl-seconds": str(_SESSION_SECONDS)}
            address = f"{self._endpoint}/latest/api/token"
            asked = urllib.request.Request(address, method="PUT", headers=wanted)  # noqa: S310 - the machine's own
            token = self._open(asked).decode()
            self._token = (token, time.monotonic() + _SESSION_SECONDS / 2)
        session = {"X-aws-ec2-metadata-token": token}
        return self._open(urllib.request.Request(f"{self._endpoint}{path}", headers=session))  # noqa: S310

    def _open(self, request: urllib.request.Request) -> bytes:
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:  # noqa: S310
            return bytes(answer.read())


def endpoint() -> str:
    """The metadata service of this machine; empty where there is none."""
    if os.environ.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true":
        return ""
    if said := os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT"):
        return said
    try:
        return ENDPOINT if _VENDOR.read_text().startswith("Amazon EC2") else ""
    except OSError:
        return ""
