"""What AWS says of a cluster file: would it launch, is there quota, does the image resolve, can the bucket be written?

Starts no machine: launches are dry runs. The bucket is written from here; from a worker: ``on_worker``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import boto3
from botocore.config import Config

from tunelab.cluster.bucket import write_from_here
from tunelab.cluster.file import ClusterFile
from tunelab.cluster.findings import Finding, Notes
from tunelab.cluster.instances import instance_of
from tunelab.cluster.nodes import is_spot
from tunelab.errors import ClusterError
from tunelab.s3 import FAILURES, code_of

QUOTAS = {
    ("standard", False): ("L-1216C47A", "Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances"),
    ("standard", True): ("L-34B43A08", "All Standard (A, C, D, H, I, M, R, T, Z) Spot Instance Requests"),
    ("g", False): ("L-DB2E81BA", "Running On-Demand G and VT instances"),
    ("g", True): ("L-3819A6DF", "All G and VT Spot Instance Requests"),
    ("p", False): ("L-417A185B", "Running On-Demand P instances"),
    ("p", True): ("L-7212CCBC", "All P4, P3 and P2 Spot Instance Requests"),
    ("p5", False): ("L-417A185B", "Running On-Demand P instances"),
    ("p5", True): ("L-C4BD4855", "All P5 Spot Instance Requests"),
}
"""(family, spot) -> code and name of the quota of EC2 that counts its virtual CPUs."""

_ATTEMPTS = 3
_TIMEOUT = 20.0


def check_live(file: ClusterFile) -> list[Finding]:
    """What AWS finds wrong with a cluster file, in the order of its lines; nothing for machines of one's own.

    Args:
        file: the cluster file.

    Raises:
        ClusterError: AWS cannot be asked at all: no credentials, no network.
    """
    notes = Notes(file)
    if file.provider == "aws":
        aws = _Aws(file.region)
        _identity(file, aws)
        for name in file.node_types:
            if _image(notes, name, aws):
                _launch(notes, name, aws)
        _quotas(notes, aws)
    write_from_here(notes)
    return sorted(dict.fromkeys(notes.found), key=lambda finding: finding.line)


class _Aws:
    """Clients of one session, each made once: a model of EC2 takes its time to load."""

    def __init__(self, region: str) -> None:
        self._session = boto3.session.Session(region_name=region or None)
        self._made: dict[str, Any] = {}

    def __call__(self, service: str) -> Any:
        if service not in self._made:
            config = Config(
                connect_timeout=_TIMEOUT / 4,
                read_timeout=_TIMEOUT,
                retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
            )
            self._made[service] = self._session.client(service, config=config)
        return self._made[service]


def _identity(file: ClusterFile, aws: _Aws) -> None:
    try:
        aws("sts").get_caller_identity()
    except FAILURES as problem:
        code = code_of(problem)
        said = f"AWS refuses the credentials ({code})" if code else f"{type(problem).__name__}: {problem}"
        raise ClusterError(
            f"{file.path}: --live: {said}; set AWS_PROFILE, or renew its credentials, and check the network"
        ) from problem


@contextmanager
def _asking(notes: Notes, keys: tuple[str | int, ...], action: str) -> Iterator[None]:
    """Turns what cannot be asked into a warning: it says nothing about the file."""
    try:
        yield
    except FAILURES as problem:
        said = code_of(problem) or type(problem).__name__
        notes.warn(keys, f"could not be looked up ({action}: {said})", f"allow {action} here, or look it up yourself")


def _image(notes: Notes, name: str, aws: _Aws) -> bool:
    """Whether a launch can be tried with the image of a node type."""
    at: tuple[str, ...] = ("available_node_types", name, "node_config", "ImageId")
    image = str(notes.file.value(*at) or "")
    region = notes.file.region
    if image.startswith("resolve:ssm:"):
        parameter = image.removeprefix("resolve:ssm:")
        found: Any = None
        with _asking(notes, at, "ssm:GetParameters"):
            found = aws("ssm").get_parameters(Names=[parameter])
        if found is None:
            return True
        values = [one["Value"] for one in found["Parameters"]]
        if not values:
            remedy = (
                "list what there is: aws ssm get-parameters-by-path --recursive --path /aws/service/deeplearning/ami"
            )
            notes.error(at, f"there is no parameter {parameter} in {region}", remedy)
            return False
        image = values[0]
    if not image:
        return False
    try:
        images = aws("ec2").describe_images(ImageIds=[image])["Images"]
    except FAILURES as problem:
        if code_of(problem).startswith("InvalidAMIID"):
            images = []
        else:
            said = code_of(problem) or type(problem).__name__
            remedy = "allow ec2:DescribeImages here, or look it up yourself"
            notes.warn(at, f"could not be looked up (ec2:DescribeImages: {said})", remedy)
            return True
    if not images:
        notes.error(at, f"there is no image {image} in {region}", "images belong to a region: take one of this region")
        return False
    root, disks = images[0].get("RootDeviceName"), notes.file.sequence(*at[:-1], "BlockDeviceMappings")
    names = [str(disk.get("DeviceName")) for disk in disks if isinstance(disk, dict)]
    if root and names and root not in names:
        what = f"the image starts from {root}, but {', '.join(names)} is described: its own disk stays as it is"
        notes.error((*at[:-1], "BlockDeviceMappings"), what, f"write DeviceName: {root}")
    return True


def _launch(notes: Notes, name: str, aws: _Aws) -> None:
    """A dry run of the request that Ray makes."""
    file = notes.file
    at: tuple[str, ...] = ("available_node_types", name, "node_config")
    request = {key: value for key, value in file.mapping(*at).items() if key != "SubnetIds"}
    tags = [{"Key": "ray-cluster-name", "Value": file.name}, {"Key": "Name", "Value": f"ray-{file.name}-{name}"}]
    request["TagSpecifications"] = [{"ResourceType": "instance", "Tags": tags}]
    try:
        aws("ec2").run_instances(**request, MinCount=1, MaxCount=1, DryRun=True)
    except FAILURES as problem:
        code = code_of(problem)
        if code == "DryRunOperation":
            return  # it would have launched
        said = _message(problem)
        key, remedy = _cause(code, said)
        notes.error((*at, key) if key else at, f"would not launch ({code or type(problem).__name__}): {said}", remedy)


def _cause(code: str, said: str) -> tuple[str, str]:
    """The key of the node_config that a refusal is about, and what to do."""
    if code == "UnauthorizedOperation" or code.startswith("AccessDenied"):
        return "", "`tunelab cluster iam` prints the rights that whoever types `ray up` needs"
    for start, key, remedy in (
        ("InvalidKeyPair", "KeyName", "make it in this region: aws ec2 create-key-pair --key-name NAME"),
        ("InvalidAMIID", "ImageId", "take an image of this region"),
        ("InvalidGroup", "SecurityGroupIds", "name a group of this region"),
        ("InvalidSecurityGroup", "SecurityGroupIds", "name a group of this region"),
        ("InvalidSubnet", "SubnetId", "name a subnet of this region"),
        ("InvalidInstanceType", "InstanceType", "take a type that this region has"),
        ("Unsupported", "InstanceType", "take a type that this region has"),
        ("VcpuLimitExceeded", "InstanceType", "ask for more: Service Quotas, EC2"),
        ("MaxSpotInstanceCountExceeded", "InstanceMarketOptions", "ask for more: Service Quotas, EC2"),
    ):
        if code.startswith(start):
            return key, remedy
    if "iamInstanceProfile" in said or "IAM Instance Profile" in said or "NoSuchEntity" in code:
        return "IamInstanceProfile", "make it: `tunelab cluster iam` prints the commands"
    if "instance type" in said.lower():
        return "InstanceType", "take a type that this region has"
    return "", "correct what it names"


def _message(problem: BaseException) -> str:
    said = str(getattr(problem, "response", {}).get("Error", {}).get("Message", "")) or str(problem)
    # AWS appends a long code that only its own service can read
    return re.sub(r"\s*Encoded authorization failure message:.*", "", said, flags=re.DOTALL)[:300].strip()


def family_of(kind: str) -> str | None:
    """The family by which EC2 counts virtual CPUs; None where it is none of :data:`QUOTAS`.

    Args:
        kind: such as ``g4dn.xlarge``.
    """
    letters = re.match(r"[a-z]+", kind)
    if kind.startswith("p5"):
        return "p5"
    if kind.startswith("p6"):
        return None  # of which the codes are not known for certain
    known = {"g": "g", "gr": "g", "vt": "g", "p": "p"} | dict.fromkeys("acdhimrtz", "standard")
    return known.get(letters[0]) if letters else None


def _quotas(notes: Notes, aws: _Aws) -> None:
    needed: dict[tuple[str, str], float] = {}
    said: dict[tuple[str, str], str] = {}
    file = notes.file
    for name, node_type in file.node_types.items():
        kind = str(file.value("available_node_types", name, "node_config", "InstanceType") or "")
        family = family_of(kind)
        cpus = _cpus(notes, name, kind, aws)
        if family is None or cpus is None:
            continue
        quota = QUOTAS[family, is_spot(node_type)]
        needed[quota] = needed.get(quota, 0) + cpus * file.most_of(name)
        said.setdefault(quota, name)
    for (code, title), total in needed.items():
        at = ("available_node_types", said[code, title], "node_config", "InstanceType")
        allowed = math.inf
        with _asking(notes, at, "servicequotas:GetServiceQuota"):
            answer = aws("service-quotas").get_service_quota(ServiceCode="ec2", QuotaCode=code)
            allowed = float(answer["Quota"]["Value"])
        if total > allowed:
            what = f"{total:g} virtual CPUs at most, but the quota {title!r} ({code}) of {file.region} is {allowed:g}"
            ask = f"aws service-quotas request-service-quota-increase --service-code ec2 --quota-code {code}"
            notes.error(at, what, f"lower max_workers, or ask: {ask} --desired-value {total:g} --region {file.region}")


def _cpus(notes: Notes, name: str, kind: str, aws: _Aws) -> int | None:
    """Virtual CPUs of an instance type, asked of EC2 where the table does not know; None where nobody does."""
    if (instance := instance_of(kind)) is not None or not kind:
        return instance.cpus if instance is not None else None
    at = ("available_node_types", name, "node_config", "InstanceType")
    found: list[Any] = []
    with _asking(notes, at, "ec2:DescribeInstanceTypes"):
        try:
            found = aws("ec2").describe_instance_types(InstanceTypes=[kind])["InstanceTypes"]
        except FAILURES as problem:
            if code_of(problem) != "InvalidInstanceType":
                raise
            notes.error(at, f"{kind} is no instance type of {notes.file.region}", "take a type that this region has")
    if not found:
        return None
    cpus = int(found[0]["VCpuInfo"]["DefaultVCpus"])
    gpus = sum(one["Count"] for one in found[0].get("GpuInfo", {}).get("Gpus", []))
    if name != notes.file.head:
        for key, there in (("CPU", cpus), ("GPU", gpus)):
            where = ("available_node_types", name, "resources", key)
            says = notes.file.value(*where)
            if isinstance(says, int | float) and says > there:
                notes.error(where, f"{key}: {says:g}, but a {kind} has {there}", f"write {key}: {there}")
    return cpus
