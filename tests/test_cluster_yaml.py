"""cluster.yaml against Ray's own validation, EC2's parameters, and what neither of them notices. No AWS call leaves."""

from __future__ import annotations

import copy
import os
import re
import socket
import subprocess
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import boto3
import botocore.session
import jsonschema
import pytest
import yaml
from botocore.validate import ParamValidator
from moto import mock_aws
from ray.autoscaler._private.aws.config import bootstrap_aws
from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
from ray.autoscaler._private.aws.utils import client_cache, resource_cache
from ray.autoscaler._private.command_runner import _with_interactive
from ray.autoscaler._private.util import prepare_config, validate_config, with_head_node_ip

from tunelab.cluster.file import load_cluster_file
from tunelab.cluster.iam import Policies, names_of, policies

Config = dict[str, Any]

ROOT = Path(__file__).resolve().parents[1]
CLUSTER = ROOT / "cluster.yaml"
DOCS = ROOT / "docs" / "cluster.md"
# What ray/autoscaler/_private/aws reads under `provider`, without what would put credentials into the file, or would
# look the ImageId up as if it were an id (cloudwatch).
PROVIDER_KEYS = {"type", "region", "availability_zone", "cache_stopped_nodes", "use_internal_ips", "security_group"}
SECRETS = re.compile(
    r"AKIA[0-9A-Z]{16}|ASIA[0-9A-Z]{16}|aws_(secret_)?access_key|aws_credentials|-----BEGIN|RAY_AUTH_TOKEN=|\b[0-9a-f]{32,}\b"
)


@pytest.fixture
def config() -> Config:
    loaded = yaml.safe_load(CLUSTER.read_text())
    assert isinstance(loaded, dict)
    return loaded


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: socket.socket, address: object) -> None:
        raise AssertionError(f"a connection to {address} was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture
def aws() -> Iterator[None]:
    """Moto in this process, and a session of its own. Ray caches its clients, so they are dropped on both sides."""
    caches = (client_cache, resource_cache)
    for cached in caches:
        cached.cache_clear()
    with mock_aws():
        boto3.setup_default_session()
        yield
    boto3.DEFAULT_SESSION = None
    for cached in caches:
        cached.cache_clear()


@pytest.fixture(scope="module")
def hardware() -> dict[str, tuple[int, int]]:
    """(CPUs, GPUs) of each EC2 instance type, from the table that moto carries."""
    with mock_aws():
        pages = boto3.client("ec2", region_name="us-west-2").get_paginator("describe_instance_types").paginate()
        types = [entry for page in pages for entry in page["InstanceTypes"]]
    return {
        entry["InstanceType"]: (
            entry["VCpuInfo"]["DefaultVCpus"],
            sum(gpu["Count"] for gpu in entry.get("GpuInfo", {}).get("Gpus", [])),
        )
        for entry in types
    }


@cache
def run_instances() -> Any:
    """The parameters of EC2's RunInstances, to which Ray hands every key of a node_config."""
    return botocore.session.get_session().get_service_model("ec2").operation_model("RunInstances").input_shape


def problems(config: Config, hardware: dict[str, tuple[int, int]]) -> list[str]:
    """What is wrong with a cluster file that Ray's validation takes."""
    found = [f"provider.{key}: unknown" for key in sorted(set(config["provider"]) - PROVIDER_KEYS)]
    if config["provider"].get("cache_stopped_nodes", True):
        found.append("provider.cache_stopped_nodes: `ray down` would leave a stopped, billed head")
    head, types = config["head_node_type"], config["available_node_types"]
    for name, node_type in types.items():
        node, resources = node_type["node_config"], node_type["resources"]
        launch = node | {"MinCount": 1, "MaxCount": 1}
        for line in ParamValidator().validate(launch, run_instances()).generate_report().splitlines():
            found.append(f"{name}.node_config: {line}")
        if not node.get("ImageId", "").startswith("resolve:ssm:/aws/service/deeplearning/ami/"):
            found.append(f"{name}.node_config.ImageId: not a Deep Learning image")
        if "Name" not in node.get("IamInstanceProfile", {}):
            found.append(f"{name}.node_config.IamInstanceProfile: missing")
        if node.get("MetadataOptions", {}).get("HttpTokens") != "required":
            found.append(f"{name}.node_config.MetadataOptions: IMDSv1 is answered")
        disks = [disk.get("Ebs", {}) for disk in node.get("BlockDeviceMappings", [])]
        if not disks or not all(disk.get("Encrypted") and disk.get("DeleteOnTermination") for disk in disks):
            found.append(f"{name}.node_config.BlockDeviceMappings: not encrypted, or left behind")
        spot = node.get("InstanceMarketOptions", {}).get("MarketType") == "spot"
        if spot == (name == head):
            found.append(f"{name}.node_config.InstanceMarketOptions: {'spot' if spot else 'on demand'}")
        if node_type.get("min_workers") != 0:
            found.append(f"{name}.min_workers: does not scale to zero")
        cpus, gpus = hardware[node["InstanceType"]]
        expected = {"CPU": 0} if name == head else {"CPU": cpus, "GPU": gpus}
        if resources != expected or (name != head and gpus == 0):
            found.append(f"{name}.resources: {resources} on {node['InstanceType']}, expected {expected}")
    if types[head].get("max_workers") != 0:
        found.append(f"{head}.max_workers: trials could start another head")
    maxima = [node_type.get("max_workers", config["max_workers"]) for node_type in types.values()]
    if sum(maxima) > config["max_workers"]:
        found.append(f"max_workers: the types' {maxima} exceed {config['max_workers']}")
    rules = config["provider"].get("security_group", {}).get("IpPermissions", [])
    found += [f"provider.security_group: opens {rule}" for rule in rules]
    for role in ("head", "worker"):
        start = " ".join(config[f"{role}_start_ray_commands"])
        before, _, after = start.partition("ray start")
        if "export RAY_AUTH_MODE=token" not in before:
            found.append(f"{role}_start_ray_commands: no token")
        if role == "head" and "--autoscaling-config=~/ray_bootstrap_config.yaml" not in after:
            found.append("head_start_ray_commands: no autoscaler")
        if role == "head" and "--dashboard-host=127.0.0.1" not in after:
            found.append("head_start_ray_commands: the dashboard is not on loopback")
    for source in config["file_mounts"].values():
        if source != "~/.ray/auth_token" and not (ROOT / source).exists():
            found.append(f"file_mounts: {source} is not in this checkout")
    if config.get("docker"):
        found.append("docker: set")
    return found


@pytest.mark.usefixtures("no_network")
def test_ray_accepts_the_file(config: Config) -> None:
    before = copy.deepcopy(config)
    prepared = prepare_config(config)
    validate_config(prepared)
    assert config == before
    assert prepared["available_node_types"]["gpu_worker"]["max_workers"] == config["max_workers"]


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize(
    ("breakage", "message"),
    [
        (lambda c: c.update(idle_timeout_minute=5), "idle_timeout_minute"),
        (lambda c: c["available_node_types"]["head"].update(max_worker=1), "max_worker"),
        (lambda c: c["auth"].update(ssh_usr="ubuntu"), "ssh_usr"),
        (lambda c: c.update(head_node_type="haed"), "`head_node_type` must be one of"),
        (lambda c: c["available_node_types"]["gpu_worker"].update(min_workers=99), "global `max_workers` is smaller"),
        (lambda c: c["available_node_types"]["gpu_worker"].pop("resources"), "'resources' is a required property"),
    ],
)
def test_ray_refuses_broken_copies(config: Config, breakage: Callable[[Config], object], message: str) -> None:
    breakage(config)
    with pytest.raises((jsonschema.ValidationError, ValueError), match=re.escape(message)):
        validate_config(prepare_config(config))


def test_nothing_is_wrong_that_ray_would_not_notice(config: Config, hardware: dict[str, tuple[int, int]]) -> None:
    assert problems(config, hardware) == []


def _node(name: str) -> Callable[[Config], Config]:
    return lambda c: c["available_node_types"][name]["node_config"]


HEAD, WORKER = _node("head"), _node("gpu_worker")


def _start(role: str, old: str, new: str) -> Callable[[Config], object]:
    def replace(config: Config) -> None:
        key = f"{role}_start_ray_commands"
        assert any(old in command for command in config[key])
        config[key] = [command.replace(old, new) for command in config[key]]

    return replace


@pytest.mark.parametrize(
    ("breakage", "problem"),
    [
        (lambda c: c["provider"].update(regoin="eu-west-1"), "provider.regoin: unknown"),
        (lambda c: c["provider"].pop("cache_stopped_nodes"), "stopped, billed head"),
        (lambda c: c["provider"].update(security_group={"IpPermissions": [{"FromPort": 8265}]}), "opens"),
        (lambda c: HEAD(c).update(InstanceTyp="m5.large"), "Unknown parameter in input"),
        (lambda c: WORKER(c).pop("ImageId"), "gpu_worker.node_config.ImageId"),
        (lambda c: WORKER(c).pop("IamInstanceProfile"), "gpu_worker.node_config.IamInstanceProfile"),
        (lambda c: HEAD(c).pop("MetadataOptions"), "head.node_config.MetadataOptions"),
        (lambda c: HEAD(c).pop("BlockDeviceMappings"), "head.node_config.BlockDeviceMappings"),
        (lambda c: WORKER(c).pop("InstanceMarketOptions"), "InstanceMarketOptions: on demand"),
        (lambda c: HEAD(c).update(InstanceMarketOptions={"MarketType": "spot"}), "InstanceMarketOptions: spot"),
        (lambda c: WORKER(c).update(InstanceType="g4dn.12xlarge"), "gpu_worker.resources"),
        (lambda c: WORKER(c).update(InstanceType="m5.xlarge"), "gpu_worker.resources"),
        (lambda c: c["available_node_types"]["gpu_worker"].update(resources={"CPU": 4, "gpu": 1}), "gpu_worker.res"),
        (lambda c: c["available_node_types"]["gpu_worker"].update(min_workers=1), "does not scale to zero"),
        (lambda c: c["available_node_types"]["gpu_worker"].update(max_workers=99), "exceed"),
        (lambda c: c["available_node_types"]["head"].update(resources={"CPU": 4}), "head.resources"),
        (lambda c: c["available_node_types"]["head"].pop("max_workers"), "another head"),
        (_start("head", "RAY_AUTH_MODE=token", ""), "head_start_ray_commands: no token"),
        (_start("worker", "RAY_AUTH_MODE=token", ""), "worker_start_ray_commands: no token"),
        (_start("head", "--autoscaling-config=~/ray_bootstrap_config.yaml", ""), "no autoscaler"),
        (_start("head", "127.0.0.1", "0.0.0.0"), "not on loopback"),
        (lambda c: c["file_mounts"].update({"~/tunelab/x": "no_such_folder"}), "no_such_folder is not in this"),
        (lambda c: c.update(docker={"image": "rayproject/ray"}), "docker: set"),
    ],
)
def test_what_ray_would_not_notice_is_noticed_here(
    config: Config, hardware: dict[str, tuple[int, int]], breakage: Callable[[Config], object], problem: str
) -> None:
    breakage(config)
    assert any(problem in line for line in problems(config, hardware)), problems(config, hardware)


@pytest.mark.usefixtures("aws")
# Moto resolves no SSM parameter, which is EC2's part; what matters is that Ray hands the text on unchanged.
@pytest.mark.filterwarnings("ignore:Could not find AMI:PendingDeprecationWarning")
def test_what_ray_makes_of_it_on_aws(config: Config) -> None:
    iam = boto3.client("iam")
    for node_type in config["available_node_types"].values():
        iam.create_instance_profile(InstanceProfileName=node_type["node_config"]["IamInstanceProfile"]["Name"])
    ec2 = boto3.client("ec2", region_name=config["provider"]["region"])
    ec2.create_key_pair(KeyName=config["metadata"]["key_name"])
    called: set[str] = set()
    assert boto3.DEFAULT_SESSION is not None
    boto3.DEFAULT_SESSION.events.register("before-call", lambda model, **_: called.add(f"ec2:{model.name}"))

    filled = AWSNodeProvider.fillout_available_node_types_resources(prepare_config(config))
    validate_config(filled)
    resolved = bootstrap_aws(filled)
    assert called
    assert called <= actions(made_policies().laptop)
    called.clear()
    provider = AWSNodeProvider(resolved["provider"], resolved["cluster_name"])
    for name, kind in (("head", "head"), ("gpu_worker", "worker")):
        node = resolved["available_node_types"][name]["node_config"]
        launched = provider.create_node(node, {"ray-node-kind": kind, "ray-user-node-type": name}, 1)
        assert set(launched) <= set(provider.non_terminated_nodes({}))
        provider.set_node_tags(next(iter(launched)), {"ray-node-status": "up-to-date"})
        (described,) = ec2.describe_instances(InstanceIds=list(launched))["Reservations"][0]["Instances"]
        written = config["available_node_types"][name]["node_config"]
        assert described["ImageId"] == written["ImageId"]
        assert described["IamInstanceProfile"]["Arn"].endswith("/" + written["IamInstanceProfile"]["Name"])
        assert described["InstanceType"] == written["InstanceType"]
        assert described.get("InstanceLifecycle") == (None if name == "head" else "spot")

    assert resolved["available_node_types"]["head"]["resources"] == {"CPU": 0}
    worker = resolved["available_node_types"]["gpu_worker"]["resources"]
    assert (worker["CPU"], worker["GPU"]) == (4, 1)
    groups = {g["GroupName"]: g for g in ec2.describe_security_groups()["SecurityGroups"]}
    group = groups["ray-autoscaler-" + config["cluster_name"]]
    from_outside = [rule for rule in group["IpPermissions"] if rule["IpRanges"] or rule["Ipv6Ranges"]]
    assert [(rule["FromPort"], rule["ToPort"]) for rule in from_outside] == [(22, 22)]
    within = [pair["GroupId"] for rule in group["IpPermissions"] for pair in rule["UserIdGroupPairs"]]
    assert within == [group["GroupId"]]

    provider.terminate_nodes(list(provider.non_terminated_nodes({})))
    # What the head does all day is what its policy grants.
    assert {"ec2:RunInstances", "ec2:TerminateInstances"} <= called <= actions(made_policies().head)
    states = [i["State"]["Name"] for r in ec2.describe_instances()["Reservations"] for i in r["Instances"]]
    assert states == ["terminated", "terminated"]


def run_as_ray_does(command: str, home: Path) -> str:
    """Run one command as Ray's launcher has sshd run it; gives its output."""
    remote = " ".join(_with_interactive(command))
    environment = {"HOME": str(home), "PATH": os.environ["PATH"], "AWS_DEFAULT_REGION": "eu-west-3"}
    done = subprocess.run(["bash", "-c", remote], env=environment, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_nodes_end_up_with_token_and_environment(config: Config, tmp_path: Path) -> None:
    token = tmp_path / ".ray" / "auth_token"
    token.parent.mkdir(mode=0o775)
    token.write_text("canary")
    token.chmod(0o644)
    ray = tmp_path / "venv" / "bin" / "ray"
    ray.parent.mkdir(parents=True)
    ray.write_text('#!/bin/sh\necho "ARGS $*"\nenv\n')  # stands where the venv puts it, and says what it was given
    ray.chmod(0o755)
    prepare = [c for c in config["setup_commands"] if "chmod" in c or ".tunelab_env" in c]
    assert len(prepare) == 2
    for command in prepare * 2:
        run_as_ray_does(command, tmp_path)
    assert (token.stat().st_mode & 0o777, token.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert (tmp_path / ".bashrc").read_text().splitlines() == [". ~/.tunelab_env"]

    wanted = {"RAY_AUTH_MODE=token", "RAY_USAGE_STATS_ENABLED=0", "TF_FORCE_GPU_ALLOW_GROWTH=true"}
    shell = set(run_as_ray_does("env", tmp_path).splitlines())
    assert wanted | {"AWS_DEFAULT_REGION=eu-west-3"} <= shell
    for role in ("head", "worker"):
        commands = config[f"{role}_start_ray_commands"]
        assert commands[0] == "ray stop"
        if role == "worker":
            commands = with_head_node_ip(commands, "10.0.0.7")
        # The launcher puts the laptop's own choice of usage statistics in front of the head's commands.
        said = run_as_ray_does("export RAY_USAGE_STATS_ENABLED=1; " + commands[-1], tmp_path).splitlines()
        (arguments,) = [line for line in said if line.startswith("ARGS ")]
        assert arguments.startswith("ARGS start " + ("--head" if role == "head" else "--address=10.0.0.7:6379"))
        assert wanted <= set(said)
        assert not any(line.startswith("OMP_NUM_THREADS=") for line in said)


def test_every_command_is_one_that_bash_can_read(config: Config) -> None:
    keys = ("setup_commands", "worker_setup_commands", "head_start_ray_commands", "worker_start_ray_commands")
    for command in (command for key in keys for command in config[key]):
        done = subprocess.run(["bash", "-n"], input=command, capture_output=True, text=True, timeout=10)
        assert (done.returncode, done.stderr) == (0, ""), command


def test_tunelab_is_installed_under_its_constraints(config: Config) -> None:
    installs = [c for c in config["setup_commands"] + config["worker_setup_commands"] if "pip install" in c]
    assert len(installs) == 2
    assert all("-c constraints.txt" in command for command in installs)
    assert "~/tunelab/constraints.txt" in config["file_mounts"]


def test_there_is_no_secret_in_the_file_or_its_page() -> None:
    for path in (CLUSTER, DOCS):
        assert SECRETS.search(path.read_text()) is None
    assert SECRETS.search("aws_secret_access_key: x")
    assert SECRETS.search("export RAY_AUTH_TOKEN=x")
    assert SECRETS.search("token: 0123456789abcdef0123456789abcdef")


def made_policies() -> Policies:
    """What `tunelab cluster iam cluster.yaml` prints."""
    return policies(names_of(load_cluster_file(CLUSTER), account="123456789012", bucket="lab-radar"))


def actions(policy: dict[str, Any]) -> set[str]:
    """Every action that a policy allows."""
    lists = [[s["Action"]] if isinstance(s["Action"], str) else s["Action"] for s in policy["Statement"]]
    return {action for listed in lists for action in listed}


def test_the_policies_fit_the_file(config: Config) -> None:
    made = made_policies()
    assert {"s3:ListBucket", "s3:GetObject", "s3:PutObject"} <= actions(made.workers)
    assert "ssm:GetParameters" in actions(made.head)
    (passed,) = [statement["Resource"] for statement in made.head["Statement"] if statement["Action"] == "iam:PassRole"]
    worker = config["available_node_types"]["gpu_worker"]["node_config"]
    assert passed == ["arn:aws:iam::123456789012:role/" + worker["IamInstanceProfile"]["Name"]]
    (ended,) = [
        s["Condition"]["StringEquals"] for s in made.head["Statement"] if "ec2:TerminateInstances" in s["Action"]
    ]
    assert ended == {"aws:ResourceTag/ray-cluster-name": config["cluster_name"]}
