"""A host that is AWS: moto's server, and someone in the same place who asks it for the test."""

from __future__ import annotations

import json
import re
import subprocess
import threading
from typing import Any

from hosts.host import Host, until
from hosts.lab import Lab

ADDRESS = "172.31.255.2"
REGION = "us-west-2"
URL = f"http://{ADDRESS}:5000"
_ASKER = r"""
import boto3, json, sys
clients = {}
for line in sys.stdin:
    service, verb, words = json.loads(line)
    if service not in clients:
        clients[service] = boto3.client(service, endpoint_url="http://127.0.0.1:5000", region_name="us-west-2",
                                        aws_access_key_id="testing", aws_secret_access_key="testing")
    try:
        answer = getattr(clients[service], verb)(**words)
        if "Body" in answer:
            answer["Body"] = answer["Body"].read().decode()
    except Exception as error:
        answer = {"Failed": str(error)}
    print(json.dumps(answer, default=str), flush=True)
"""


class Aws:
    """AWS as its machines and users reach it, at :data:`URL`.

    Args:
        lab: on whose switch it is.
    """

    def __init__(self, lab: Lab) -> None:
        self.host = lab.start("aws", ADDRESS)
        self._lock = threading.Lock()
        self._server = self.host.type("moto_server -H 0.0.0.0 -p 5000")
        self._server.until("Running on", 120)
        self._asker = subprocess.Popen(
            self.host.entrance(f"exec python -c '{_ASKER}'"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, service: str, verb: str, **words: object) -> dict[str, Any]:
        """Call a client of boto3; what is no JSON comes back as text.

        Raises:
            LookupError: AWS says no.
            ConnectionError: it is over.
        """
        assert self._asker.stdin
        assert self._asker.stdout
        with self._lock:
            try:
                self._asker.stdin.write(json.dumps([service, verb, words]) + "\n")
                self._asker.stdin.flush()
            except BrokenPipeError as error:
                raise ConnectionError("aws is over") from error
            line = self._asker.stdout.readline()
        if not line:
            raise ConnectionError("aws is over")
        answer: dict[str, Any] = json.loads(line)
        if "Failed" in answer:
            raise LookupError(f"{service} {verb} {words}: {answer['Failed']}")
        return answer

    def requests_of(self, host: Host) -> list[str]:
        """What a host has asked, the first line of each request."""
        return re.findall(rf'^{re.escape(host.address)} - - \[.*?\] "(.*?)"', self._server.said, re.MULTILINE)

    def machines(self, *states: str) -> list[dict[str, Any]]:
        """EC2's machines in some states, or all."""
        answer = self.ask("ec2", "describe_instances")
        there = [one for reservation in answer["Reservations"] for one in reservation["Instances"]]
        return [one for one in there if not states or one["State"]["Name"] in states]

    def object(self, bucket: str, key: str) -> str:
        """An object of S3 as text."""
        return str(self.ask("s3", "get_object", Bucket=bucket, Key=key)["Body"])

    def close(self) -> None:
        """End what asks it; the server ends with its host."""
        assert self._asker.stdin
        assert self._asker.stdout
        self._asker.stdin.close()
        self._asker.stdout.close()
        self._asker.wait(10)


def prepare(aws: Aws, bucket: str, profiles: list[str]) -> None:
    """What an account has before its first cluster: a bucket, and profiles for its machines."""
    aws.ask("s3", "create_bucket", Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
    for name in profiles:
        aws.ask("iam", "create_role", RoleName=name, AssumeRolePolicyDocument="{}")
        aws.ask("iam", "create_instance_profile", InstanceProfileName=name)
        aws.ask("iam", "add_role_to_instance_profile", InstanceProfileName=name, RoleName=name)


def terminate(aws: Aws, machine: str) -> None:
    """EC2 takes a machine back, as it does with spot machines; whoever runs it pulls its plug."""
    aws.ask("ec2", "terminate_instances", InstanceIds=[machine])
    until(lambda: machine in [one["InstanceId"] for one in aws.machines("terminated", "shutting-down")], 10, "its end")
