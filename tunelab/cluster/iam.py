"""Least-privilege policies of AWS for the head, the workers and the laptop, filled in for one cluster.

As far as their documents go: no account has enforced them yet. Policies are what IAM takes, JSON as a mapping.
"""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass
from typing import Any

from tunelab.cluster.file import ClusterFile
from tunelab.errors import UsageError

Policy = dict[str, Any]

ACCOUNT = "ACCOUNT"
BUCKET = "BUCKET"
"""Placeholders, where nothing is known."""
_DEEP_LEARNING = "/aws/service/deeplearning/*"


@dataclass(frozen=True, kw_only=True, slots=True)
class Names:
    """What the policies are about."""

    bucket: str = BUCKET
    """The bucket of results."""
    prefix: str = "runs"
    """Below which they lie, without slashes at its ends; empty for the whole bucket."""
    account: str = ACCOUNT
    """The twelve digits of the account."""
    region: str = "us-west-2"
    """Of the machines."""
    cluster: str = "tunelab"
    """Name of the cluster, with which Ray tags every machine."""
    head: str = "tunelab-head"
    """Instance profile and role of the head."""
    workers: tuple[str, ...] = ("tunelab-worker",)
    """Instance profiles and roles of the workers."""
    images: tuple[str, ...] = (_DEEP_LEARNING,)
    """SSM parameters that name images."""

    @property
    def missing(self) -> tuple[str, ...]:
        """The options that would fill in what is a placeholder still."""
        found = (("--account", self.account == ACCOUNT), ("--bucket", self.bucket == BUCKET))
        return tuple(option for option, placeholder in found if placeholder)


@dataclass(frozen=True, kw_only=True, slots=True)
class Policies:
    """The policies of one cluster."""

    trust: Policy
    """Who may take the roles of head and workers: EC2's machines."""
    workers: Policy
    """Of the workers, and of the head as well: the bucket's prefix."""
    head: Policy
    """Of the head besides: starting, tagging and ending workers."""
    laptop: Policy
    """Of whoever types ``ray up`` and is no administrator."""


def names_of(file: ClusterFile | None = None, *, account: str | None = None, bucket: str | None = None) -> Names:
    """What the policies are about, from a cluster file; placeholders for what nobody says.

    Args:
        file: the cluster file.
        account: twelve digits.
        bucket: of results; goes before that of the file.

    Raises:
        UsageError: an account or bucket that can be none.
    """
    from tunelab.s3 import parse_s3  # with boto3, which takes its time

    known: dict[str, Any] = {}
    if account is not None:
        if not re.fullmatch(r"\d{12}", account):
            raise UsageError(f"--account: {account!r} is no account of AWS; write its twelve digits")
        known["account"] = account
    if bucket is not None:
        parse_s3(f"s3://{bucket}", "--bucket")
        known["bucket"] = bucket
    if file is None:
        return Names(**known)
    if file.storage:
        try:
            own, known["prefix"] = parse_s3(file.storage)
            known.setdefault("bucket", own)
        except UsageError:
            pass  # a placeholder stays one
    known |= {key: value for key, value in (("region", file.region), ("cluster", file.name)) if value}
    if head := profile_of(file, file.head):
        known["head"] = head
    if workers := dict.fromkeys(profile for name in file.workers if (profile := profile_of(file, name))):
        known["workers"] = tuple(workers)
    ids = [str(file.value("available_node_types", name, "node_config", "ImageId")) for name in file.node_types]
    parameters = [one.removeprefix("resolve:ssm:").split(":")[0] for one in ids if one.startswith("resolve:ssm:/")]
    if parameters:
        known["images"] = tuple(dict.fromkeys(parameters))
    return Names(**known)


def profile_of(file: ClusterFile, name: str) -> str:
    """Name of the instance profile of a node type; empty where there is none.

    Args:
        file: the cluster file.
        name: of the node type.
    """
    profile = file.mapping("available_node_types", name, "node_config", "IamInstanceProfile")
    return str(profile.get("Name") or str(profile.get("Arn") or "").rpartition("/")[2])


def policies(names: Names) -> Policies:
    """The policies of a cluster.

    Args:
        names: what they are about.
    """
    return Policies(
        trust=_policy({"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}),
        workers=_policy(*_bucket(names)),
        head=_policy(*_launching(names), _passing(names, names.workers)),
        laptop=_policy(
            *_launching(names),
            _passing(names, (names.head,)),
            {
                "Sid": "LookAround",
                "Effect": "Allow",
                "Action": [
                    "ec2:DescribeSubnets",
                    "ec2:DescribeSecurityGroups",
                    "ec2:DescribeImages",
                    "ec2:DescribeKeyPairs",
                    "servicequotas:GetServiceQuota",
                ],
                "Resource": "*",
            },
            {
                "Sid": "RaysSecurityGroup",
                "Effect": "Allow",
                "Action": ["ec2:CreateSecurityGroup", "ec2:AuthorizeSecurityGroupIngress"],
                "Resource": [_ec2(names, "security-group/*"), _ec2(names, "vpc/*")],
            },
            {
                "Sid": "RaysKeyPair",  # where the file names no key, Ray makes one of this name
                "Effect": "Allow",
                "Action": "ec2:CreateKeyPair",
                "Resource": _ec2(names, "key-pair/ray-autoscaler*"),
            },
            *_bucket(names),
        ),
    )


def script(names: Names) -> str:
    """The shell commands that make the roles and instance profiles, with their policies written out.

    Args:
        names: what they are about.
    """
    made = policies(names)
    files = {"trust": made.trust, "worker": made.workers, "head": made.head, "laptop": made.laptop}
    lines = [f"# Policies of the cluster {names.cluster}, and the commands that put them to use. Read, then run them."]
    if names.missing:
        lines.append(f"# Placeholders are left: give {' and '.join(names.missing)}.")
    for name, policy in files.items():
        lines += [f"cat > {name}.json <<'END'", json.dumps(policy, indent=2), "END"]
    for role in (names.head, *names.workers):
        one = shlex.quote(role)
        lines += [
            f"aws iam create-role --role-name {one} --assume-role-policy-document file://trust.json",
            f"aws iam put-role-policy --role-name {one} --policy-name bucket --policy-document file://worker.json",
            f"aws iam create-instance-profile --instance-profile-name {one}",
            f"aws iam add-role-to-instance-profile --instance-profile-name {one} --role-name {one}",
        ]
    head = shlex.quote(names.head)
    lines.append(f"aws iam put-role-policy --role-name {head} --policy-name workers --policy-document file://head.json")
    lines.append("# laptop.json is for whoever types `ray up` and is no administrator; attach it to that user or role.")
    return "\n".join(lines) + "\n"


def _policy(*statements: Policy) -> Policy:
    return {"Version": "2012-10-17", "Statement": list(statements)}


def _ec2(names: Names, resource: str) -> str:
    return f"arn:aws:ec2:{names.region}:{names.account}:{resource}"


def _bucket(names: Names) -> tuple[Policy, ...]:
    arn = f"arn:aws:s3:::{names.bucket}"
    listing: Policy = {"Sid": "List", "Effect": "Allow", "Action": "s3:ListBucket", "Resource": arn}
    if names.prefix:
        # IfExists: only whoever may list is told that a key is missing (404), and not that it is forbidden (403); S3
        # asks that of a GET too, which has no prefix. Names outside the prefix can so be listed, and nothing read.
        listing["Condition"] = {"StringLikeIfExists": {"s3:prefix": [names.prefix, f"{names.prefix}/*"]}}
    return (
        listing,
        {"Sid": "Where", "Effect": "Allow", "Action": "s3:GetBucketLocation", "Resource": arn},
        {
            "Sid": "Runs",
            "Effect": "Allow",
            "Action": ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"],
            "Resource": f"{arn}/{names.prefix}/*" if names.prefix else f"{arn}/*",
        },
    )


def _launching(names: Names) -> tuple[Policy, ...]:
    own = {"StringEquals": {"aws:ResourceTag/ray-cluster-name": names.cluster}}
    return (
        {
            "Sid": "Describe",  # EC2 knows no resources for these
            "Effect": "Allow",
            "Action": ["ec2:DescribeInstances", "ec2:DescribeInstanceTypes"],
            "Resource": "*",
        },
        {
            "Sid": "LaunchTagged",
            "Effect": "Allow",
            "Action": "ec2:RunInstances",
            "Resource": _ec2(names, "instance/*"),
            "Condition": {"StringEquals": {"aws:RequestTag/ray-cluster-name": names.cluster}},
        },
        {
            "Sid": "LaunchWith",
            "Effect": "Allow",
            "Action": "ec2:RunInstances",
            "Resource": [
                f"arn:aws:ec2:{names.region}::image/*",
                *(
                    _ec2(names, f"{kind}/*")
                    for kind in (
                        "image",
                        "key-pair",
                        "network-interface",
                        "security-group",
                        "spot-instances-request",
                        "subnet",
                        "volume",
                    )
                ),
            ],
        },
        {
            "Sid": "TagAtLaunch",
            "Effect": "Allow",
            "Action": "ec2:CreateTags",
            "Resource": _ec2(names, "instance/*"),
            "Condition": {
                "StringEquals": {
                    "ec2:CreateAction": "RunInstances",
                    "aws:RequestTag/ray-cluster-name": names.cluster,
                }
            },
        },
        {
            "Sid": "TagAndEnd",
            "Effect": "Allow",
            "Action": ["ec2:CreateTags", "ec2:TerminateInstances"],
            "Resource": _ec2(names, "instance/*"),
            "Condition": own,
        },
        {
            "Sid": "Image",
            "Effect": "Allow",
            "Action": "ssm:GetParameters",
            "Resource": [
                # those that AWS publishes belong to no account
                f"arn:aws:ssm:{names.region}:{'' if one.startswith('/aws/') else names.account}:parameter{one}"
                for one in names.images
            ],
        },
    )


def _passing(names: Names, roles: tuple[str, ...]) -> Policy:
    return {
        "Sid": "Pass",
        "Effect": "Allow",
        "Action": "iam:PassRole",
        "Resource": [f"arn:aws:iam::{names.account}:role/{role}" for role in roles],
        "Condition": {"StringEquals": {"iam:PassedToService": "ec2.amazonaws.com"}},
    }
