"""The policies: what they allow and, above all, what they do not, by a small reading of IAM's rules."""

from __future__ import annotations

import fnmatch
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cluster_files import GOOD

from tunelab.cli import main
from tunelab.cluster.file import load_cluster_file
from tunelab.cluster.iam import Names, Policies, names_of, policies, script
from tunelab.errors import UsageError

ACCOUNT = "123456789012"
EC2 = f"arn:aws:ec2:us-west-2:{ACCOUNT}"
TAG = "ray-cluster-name"


@pytest.fixture
def names(tmp_path: Path) -> Names:
    path = tmp_path / "c.yaml"
    path.write_text(GOOD)
    return names_of(load_cluster_file(path), account=ACCOUNT)


@pytest.fixture
def made(names: Names) -> Policies:
    return policies(names)


def listed(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


def matches(patterns: Any, value: str) -> bool:
    return any(fnmatch.fnmatchcase(value, pattern) for pattern in listed(patterns))


def allows(policy: dict[str, Any], action: str, resource: str, **context: str) -> bool:
    """Whether one statement allows it; keys of the context are written with __ for : and _ for / and -."""
    known = {re.sub(r"[:/-]", "_", key.replace(":", "__")): value for key, value in context.items()}

    def holds(operator: str, key: str, wanted: Any) -> bool:
        value = known.get(re.sub(r"[/-]", "_", key.replace(":", "__")))
        if value is None:
            return operator.endswith("IfExists")
        return value in listed(wanted) if operator.startswith("StringEquals") else matches(wanted, value)

    return any(
        statement["Effect"] == "Allow"
        and matches(statement["Action"], action)
        and matches(statement["Resource"], resource)
        and all(
            holds(operator, key, wanted)
            for operator, keys in statement.get("Condition", {}).items()
            for key, wanted in keys.items()
        )
        for statement in policy["Statement"]
    )


def test_the_reader_of_policies_reads() -> None:
    statement = {"Effect": "Allow", "Action": "a:B", "Resource": "r/*", "Condition": {"StringEquals": {"x:y/z-1": "v"}}}
    policy = {"Statement": [statement]}
    assert allows(policy, "a:B", "r/1", x__y_z_1="v")
    assert not allows(policy, "a:B", "r/1", x__y_z_1="w")
    assert not allows(policy, "a:B", "r/1")
    assert not allows(policy, "a:C", "r/1", x__y_z_1="v")
    assert not allows(policy, "a:B", "q/1", x__y_z_1="v")


def test_workers_reach_the_prefix_and_nothing_else(made: Policies) -> None:
    for action in ("s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"):
        assert allows(made.workers, action, "arn:aws:s3:::lab-radar/runs/quick/journal.jsonl")
        assert not allows(made.workers, action, "arn:aws:s3:::lab-radar/private/x")
        assert not allows(made.workers, action, "arn:aws:s3:::lab-radar/runs2/x")
        assert not allows(made.workers, action, "arn:aws:s3:::lab-radar-2/runs/x")
    bucket = "arn:aws:s3:::lab-radar"
    assert allows(made.workers, "s3:ListBucket", bucket, s3__prefix="runs/quick/")
    assert not allows(made.workers, "s3:ListBucket", bucket, s3__prefix="private/")
    assert allows(made.workers, "s3:ListBucket", bucket)  # what S3 asks of a GET: a missing key is a 404 then
    assert not allows(made.workers, "s3:DeleteBucket", bucket)
    assert {s.split(":")[0] for statement in made.workers["Statement"] for s in listed(statement["Action"])} == {"s3"}


def test_without_a_prefix_the_whole_bucket() -> None:
    made = policies(Names(bucket="lab", prefix=""))
    assert allows(made.workers, "s3:PutObject", "arn:aws:s3:::lab/x")
    assert allows(made.workers, "s3:ListBucket", "arn:aws:s3:::lab", s3__prefix="anything")


def test_the_head_ends_and_tags_only_machines_of_its_cluster(made: Policies) -> None:
    machine = f"{EC2}:instance/i-1"
    for action in ("ec2:TerminateInstances", "ec2:CreateTags"):
        assert allows(made.head, action, machine, aws__ResourceTag_ray_cluster_name="lab")
        assert not allows(made.head, action, machine, aws__ResourceTag_ray_cluster_name="other")
        assert not allows(made.head, action, machine)
    assert not allows(made.head, "ec2:StopInstances", machine, aws__ResourceTag_ray_cluster_name="lab")


def test_the_head_starts_only_what_has_the_tag_of_its_cluster(made: Policies) -> None:
    machine = f"{EC2}:instance/*"
    assert allows(made.head, "ec2:RunInstances", machine, aws__RequestTag_ray_cluster_name="lab")
    assert not allows(made.head, "ec2:RunInstances", machine, aws__RequestTag_ray_cluster_name="other")
    assert not allows(made.head, "ec2:RunInstances", machine)
    east = f"arn:aws:ec2:us-east-1:{ACCOUNT}:instance/*"
    assert not allows(made.head, "ec2:RunInstances", east, aws__RequestTag_ray_cluster_name="lab")
    for other in ("subnet/s", "volume/*", "network-interface/*", "security-group/g", "key-pair/lab", "image/ami-1"):
        assert allows(made.head, "ec2:RunInstances", f"{EC2}:{other}"), other
    assert allows(made.head, "ec2:RunInstances", "arn:aws:ec2:us-west-2::image/ami-1")
    tagged = {"ec2__CreateAction": "RunInstances", "aws__RequestTag_ray_cluster_name": "lab"}
    assert allows(made.head, "ec2:CreateTags", machine, **tagged)
    assert not allows(made.head, "ec2:CreateTags", machine, **(tagged | {"ec2__CreateAction": "CreateVolume"}))


def test_the_head_passes_on_the_workers_role_alone(made: Policies) -> None:
    def passes(policy: dict[str, Any], role: str, service: str = "ec2.amazonaws.com") -> bool:
        return allows(policy, "iam:PassRole", f"arn:aws:iam::{ACCOUNT}:role/{role}", iam__PassedToService=service)

    assert passes(made.head, "lab-worker")
    assert not passes(made.head, "lab-head")
    assert not passes(made.head, "admin")
    assert not passes(made.head, "lab-worker", "lambda.amazonaws.com")
    assert passes(made.laptop, "lab-head")
    assert not passes(made.laptop, "admin")


def test_the_head_reads_the_parameter_of_the_image_alone(made: Policies) -> None:
    below = "arn:aws:ssm:us-west-2::parameter/aws/service/deeplearning/ami/x86_64/"
    image = f"{below}base-oss-nvidia-driver-gpu-ubuntu-24.04/latest/ami-id"
    assert allows(made.head, "ssm:GetParameters", image)
    assert not allows(made.head, "ssm:GetParameters", f"{below}other/latest/ami-id")
    assert not allows(made.head, "ssm:GetParameters", f"arn:aws:ssm:us-west-2:{ACCOUNT}:parameter/password")
    own = policies(Names(account=ACCOUNT, images=("/lab/image",)))
    assert allows(own.head, "ssm:GetParameters", f"arn:aws:ssm:us-west-2:{ACCOUNT}:parameter/lab/image")


def test_no_policy_has_a_wildcard_where_none_is_needed(made: Policies) -> None:
    for policy in (made.workers, made.head, made.laptop):
        for statement in policy["Statement"]:
            assert not any("*" in action for action in listed(statement["Action"]))
            if statement["Resource"] == "*":
                actions = listed(statement["Action"])
                assert all(a.startswith("ec2:Describe") or a == "servicequotas:GetServiceQuota" for a in actions)


def test_only_ec2_takes_the_roles(made: Policies) -> None:
    (statement,) = made.trust["Statement"]
    assert statement["Principal"] == {"Service": "ec2.amazonaws.com"}
    assert statement["Action"] == "sts:AssumeRole"


def test_names_come_from_the_file_and_options_go_before(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(GOOD.replace("{Name: lab-head}", f"{{Arn: 'arn:aws:iam::{ACCOUNT}:instance-profile/of/boss'}}"))
    names = names_of(load_cluster_file(path), bucket="other-bucket")
    assert (names.bucket, names.prefix, names.region, names.cluster) == ("other-bucket", "runs", "us-west-2", "lab")
    assert (names.head, names.workers, names.account) == ("boss", ("lab-worker",), "ACCOUNT")
    assert names.missing == ("--account",)
    path.write_text(GOOD.replace("s3://lab-radar/runs", "s3://BUCKET/runs"))
    assert names_of(load_cluster_file(path), account=ACCOUNT).missing == ("--bucket",)
    assert names_of().missing == ("--account", "--bucket")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"account": "12"}, "--account: '12' is no account of AWS; write its twelve digits"),
        ({"bucket": "A_B"}, "--bucket: 's3://A_B': 'A_B' is no bucket name"),
    ],
)
def test_names_that_can_be_none(given: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        names_of(**given)
    assert str(caught.value).startswith(message)


def test_the_script_runs_and_writes_the_policies(names: Names, tmp_path: Path) -> None:
    aws = tmp_path / "bin" / "aws"
    aws.parent.mkdir()
    aws.write_text('#!/bin/sh\necho "$@"\n')
    aws.chmod(0o755)
    environment = {"PATH": f"{aws.parent}:/usr/bin:/bin"}
    done = subprocess.run(
        ["sh", "-eu"], input=script(names), text=True, capture_output=True, cwd=tmp_path, env=environment, timeout=30
    )
    assert (done.returncode, done.stderr) == (0, "")
    made = policies(names)
    for name in ("trust", "head", "laptop"):
        assert json.loads((tmp_path / f"{name}.json").read_text()) == getattr(made, name)
    assert json.loads((tmp_path / "worker.json").read_text()) == made.workers
    said = done.stdout.splitlines()
    assert [line.split()[1] for line in said].count("create-instance-profile") == 2
    assert "iam put-role-policy --role-name lab-head --policy-name workers --policy-document file://head.json" in said
    assert all((tmp_path / name).exists() for name in re.findall(r"file://(\S+)", done.stdout))


def test_policies_are_within_what_iam_takes(made: Policies) -> None:
    def letters(policy: dict[str, Any]) -> int:
        return len(json.dumps(policy, separators=(",", ":")))

    assert letters(made.workers) + letters(made.head) < 10_240  # all inline policies of a role
    assert letters(made.laptop) < 6_144  # a managed policy


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(GOOD)
    assert main(["cluster", "iam", str(path), "--account", ACCOUNT]) == 0
    done = capsys.readouterr()
    assert '"arn:aws:s3:::lab-radar/runs/*"' in done.out
    assert done.err == ""
    assert main(["cluster", "iam", "--bucket", "lab-radar"]) == 0
    done = capsys.readouterr()
    assert done.err == "placeholders are left; give --account\n"
    assert "arn:aws:iam::ACCOUNT:role/tunelab-worker" in done.out
