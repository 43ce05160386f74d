"""The repository's cluster.yaml: what Ray makes of it, and that its commands do what they say. No AWS call leaves.

What a broken copy of such a file would be told is with :mod:`tunelab.cluster.check`, in tests/cluster/test_check.py.
"""

from __future__ import annotations

import copy
import os
import re
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import jsonschema
import pytest
import yaml
from moto import mock_aws
from ray.autoscaler._private.aws.config import bootstrap_aws
from ray.autoscaler._private.aws.node_provider import AWSNodeProvider
from ray.autoscaler._private.aws.utils import client_cache, resource_cache
from ray.autoscaler._private.command_runner import _with_interactive
from ray.autoscaler._private.util import prepare_config, validate_config, with_envs, with_head_node_ip
from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
from ray.autoscaler.v2.utils import ResourceRequestUtil

from tunelab.cluster.check import check
from tunelab.cluster.file import load_cluster_file
from tunelab.cluster.iam import Policies, names_of, policies
from tunelab.cluster.prices import price

Config = dict[str, Any]

ROOT = Path(__file__).resolve().parents[1]
CLUSTER = ROOT / "cluster.yaml"
DOCS = ROOT / "docs" / "cluster.md"
WORKERS = ("gpu_spot", "gpu_spot_bigger", "gpu_on_demand")
IMAGE = "resolve:ssm:/aws/service/deeplearning/ami/"
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
def aws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Moto in this process, and a session and home of its own. Ray caches its clients: dropped on both sides."""
    monkeypatch.setenv("HOME", str(tmp_path))  # Ray puts the key that it makes there
    (tmp_path / ".ssh").mkdir(mode=0o700)
    caches = (client_cache, resource_cache)
    for cached in caches:
        cached.cache_clear()
    with mock_aws():
        boto3.setup_default_session()
        yield
    boto3.DEFAULT_SESSION = None
    for cached in caches:
        cached.cache_clear()


@pytest.fixture
def resolved(aws: None, config: Config) -> Config:
    """What Ray makes of the file on AWS."""
    for profile in {node["node_config"]["IamInstanceProfile"]["Name"] for node in types(config).values()}:
        boto3.client("iam").create_instance_profile(InstanceProfileName=profile)
    filled = AWSNodeProvider.fillout_available_node_types_resources(prepare_config(config))
    validate_config(filled)
    return dict(bootstrap_aws(filled))


def types(config: Config) -> Config:
    return dict(config["available_node_types"])


@pytest.mark.usefixtures("no_network")
def test_ray_accepts_the_file(config: Config) -> None:
    before = copy.deepcopy(config)
    prepared = prepare_config(config)
    validate_config(prepared)
    assert config == before
    assert set(types(config)) == {"head", *WORKERS}
    assert not config.get("docker"), "fewer moving parts, faster boot"
    most = {name: types(prepared)[name]["max_workers"] for name in types(prepared)}
    assert most == {"head": 0, "gpu_spot": 4, "gpu_spot_bigger": 4, "gpu_on_demand": 1}
    assert all(node["min_workers"] == 0 for node in types(prepared).values()), "it scales to zero"


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize(
    ("breakage", "message"),
    [
        (lambda c: c.update(idle_timeout_minute=5), "idle_timeout_minute"),
        (lambda c: types(c)["head"].update(max_worker=1), "max_worker"),
        (lambda c: c["auth"].update(ssh_usr="ubuntu"), "ssh_usr"),
        (lambda c: c.update(head_node_type="haed"), "`head_node_type` must be one of"),
        (lambda c: types(c)["gpu_spot"].update(min_workers=99), "global `max_workers` is smaller"),
        (lambda c: types(c)["gpu_spot"].update(priority="first"), "'first' is not of type 'integer'"),
        (lambda c: types(c)["gpu_on_demand"].pop("resources"), "'resources' is a required property"),
    ],
)
def test_ray_refuses_broken_copies(config: Config, breakage: Callable[[Config], object], message: str) -> None:
    breakage(config)
    with pytest.raises((jsonschema.ValidationError, ValueError), match=re.escape(message)):
        validate_config(prepare_config(config))


def test_only_what_a_user_has_to_settle_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)
    monkeypatch.chdir(ROOT)
    found = check(load_cluster_file(CLUSTER))
    group = "available_node_types.head.node_config.SecurityGroupIds"
    assert [(one.severity, one.key) for one in found] == [
        ("error", "provider.storage"),
        ("warning", group),
        ("error", "file_mounts.~/.ray/auth_token"),
    ]
    assert "placeholder" in found[0].what
    assert "No such file" in found[2].what

    token = tmp_path / ".ray" / "auth_token"
    token.parent.mkdir()
    token.write_text("canary")
    token.chmod(0o600)
    settled = tmp_path / "cluster.yaml"
    text = CLUSTER.read_text()
    assert text.count("s3://BUCKET/runs") == 1, "the bucket is named once"
    text = text.replace("s3://BUCKET/runs", "s3://lab-radar/runs")
    settled.write_text(text.replace("# SecurityGroupIds: [sg-...]", "SecurityGroupIds: [sg-0123456789abcdef0]"))
    remaining = check(load_cluster_file(settled))
    assert [(one.key, one.line) for one in remaining] == [], "settled, nothing is left"
    assert load_cluster_file(settled).storage == "s3://lab-radar/runs"


def test_the_price_of_all_of_it_is_known() -> None:
    known = price(load_cluster_file(CLUSTER))
    assert known is not None
    assert known.unknown == ()
    assert {node.name for node in (known.head, *known.workers)} == {"head", *WORKERS}


# Moto resolves no SSM parameter, which is EC2's part; what matters is that Ray hands the text on unchanged.
@pytest.mark.filterwarnings("ignore:Could not find AMI:PendingDeprecationWarning")
def test_what_ray_makes_of_it_on_aws(config: Config, aws: None, tmp_path: Path) -> None:
    for profile in ("tunelab-head", "tunelab-worker"):
        boto3.client("iam").create_instance_profile(InstanceProfileName=profile)
    ec2 = boto3.client("ec2", region_name=config["provider"]["region"])
    called: set[str] = set()
    launches: list[dict[str, Any]] = []
    assert boto3.DEFAULT_SESSION is not None
    events = boto3.DEFAULT_SESSION.events
    events.register("before-call", lambda model, **_: called.add(f"ec2:{model.name}"))
    events.register("provide-client-params.ec2.RunInstances", lambda params, **_: launches.append(dict(params)))

    filled = AWSNodeProvider.fillout_available_node_types_resources(prepare_config(config))
    validate_config(filled)
    resolved = bootstrap_aws(filled)
    assert "ec2:CreateKeyPair" in called
    assert called <= actions(made_policies().laptop)
    key = Path(resolved["auth"]["ssh_private_key"])
    assert key.parent == tmp_path / ".ssh"
    assert key.stat().st_mode & 0o777 == 0o600
    called.clear()

    provider = AWSNodeProvider(resolved["provider"], resolved["cluster_name"])
    for name in ("head", *WORKERS):
        node = types(resolved)[name]["node_config"]
        kind = "head" if name == "head" else "worker"
        launched = provider.create_node(node, {"ray-node-kind": kind, "ray-user-node-type": name}, 1)
        assert set(launched) <= set(provider.non_terminated_nodes({}))
        provider.set_node_tags(next(iter(launched)), {"ray-node-status": "up-to-date"})
        (described,) = ec2.describe_instances(InstanceIds=list(launched))["Reservations"][0]["Instances"]
        written = types(config)[name]["node_config"]
        assert described["ImageId"] == written["ImageId"]
        assert described["ImageId"].startswith(IMAGE)
        assert described["IamInstanceProfile"]["Arn"].endswith("/tunelab-" + kind)
        assert described["InstanceType"] == written["InstanceType"]
        assert described["KeyName"] == node["KeyName"] == key.stem
        assert described.get("InstanceLifecycle") == ("spot" if "spot" in name else None)
        asked = launches[-1]  # moto keeps not all of it
        assert asked["MetadataOptions"] == {"HttpTokens": "required"}
        assert asked["InstanceInitiatedShutdownBehavior"] == "terminate"
        assert [disk["Ebs"]["Encrypted"] for disk in asked["BlockDeviceMappings"]] == [True]
        assert [disk["Ebs"]["DeleteOnTermination"] for disk in asked["BlockDeviceMappings"]] == [True]
    assert len(launches) == 4

    assert types(resolved)["head"]["resources"] == {"CPU": 0}
    for name in WORKERS:
        resources = types(resolved)[name]["resources"]
        assert (resources["CPU"], resources["GPU"]) == (4, 1)
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
    assert states == ["terminated"] * 4


def wanted(resolved: Config, trials: int, resources: dict[str, float], failed: tuple[str, ...] = ()) -> dict[str, int]:
    """Machines that Ray's scheduler would start for waiting trials, where some node types could not be had of late."""
    known = AutoscalingConfig(resolved, skip_content_hash=True)
    demands = [ResourceRequestUtil.make(resources) for _ in range(trials)]
    reply = ResourceDemandScheduler(None).schedule(
        SchedulingRequest(
            disable_launch_config_check=True,
            node_type_configs=known.get_node_type_configs(),
            max_num_nodes=known.get_max_num_nodes() - 1,  # the head is there, and counts as one
            resource_requests=ResourceRequestUtil.group_by_count(demands),
            recoverable_resource_availabilities=dict.fromkeys(failed, 0.0),
        )
    )
    return {one.instance_type: one.count for one in reply.to_launch if one.instance_type != resolved["head_node_type"]}


def test_spot_comes_first_and_what_is_on_demand_when_there_is_none(resolved: Config) -> None:
    gpu = {"CPU": 4, "GPU": 1}
    assert wanted(resolved, 1, gpu) == {"gpu_spot": 1}
    assert wanted(resolved, 9, gpu) == {"gpu_spot": 4}, "no more than max_workers of the cluster"
    assert wanted(resolved, 1, gpu, failed=("gpu_spot",)) == {"gpu_spot_bigger": 1}
    assert wanted(resolved, 1, gpu, failed=("gpu_spot", "gpu_spot_bigger")) == {"gpu_on_demand": 1}
    assert wanted(resolved, 1, {"CPU": 1, "GPU": 1, "A10G": 1}) == {"gpu_spot_bigger": 1}
    assert wanted(resolved, 8, {"CPU": 1, "GPU": 0.25}) == {"gpu_spot": 2}, "shares of a GPU share a machine"


def run_as_ray_does(command: str, home: Path) -> str:
    """Run one command as Ray's launcher has sshd run it; gives its output."""
    remote = " ".join(_with_interactive(command))
    environment = {"HOME": str(home), "PATH": os.environ["PATH"], "AWS_DEFAULT_REGION": "eu-west-3"}
    done = subprocess.run(["bash", "-c", remote], env=environment, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    return done.stdout


def stand_in(path: Path, script: str) -> None:
    """A program that stands where the venv would have it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def start_commands(config: Config, role: str) -> list[str]:
    """As Ray's launcher sends them, with what it puts in front of each."""
    commands = config[f"{role}_start_ray_commands"]
    if role == "worker":
        commands = with_head_node_ip(commands, "10.0.0.7")
    # the laptop's own choice of usage statistics goes before the head's commands, and OMP_NUM_THREADS before all
    return list(with_envs(commands, {"RAY_USAGE_STATS_ENABLED": "1", "OMP_NUM_THREADS": "1"}))


def test_the_nodes_end_up_with_token_and_environment(config: Config, tmp_path: Path) -> None:
    token = tmp_path / ".ray" / "auth_token"
    token.parent.mkdir(mode=0o775)
    token.write_text("canary")
    token.chmod(0o644)
    stand_in(tmp_path / "venv" / "bin" / "ray", 'echo "ARGS $*"\nenv')  # says what it was given
    prepare = [c for c in config["setup_commands"] if "chmod" in c or ".tunelab_env" in c]
    assert len(prepare) == 2
    for command in prepare * 2:
        run_as_ray_does(command, tmp_path)
    assert (token.stat().st_mode & 0o777, token.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert (tmp_path / ".bashrc").read_text().splitlines() == [". ~/.tunelab_env"]

    said = {"RAY_AUTH_MODE=token", "RAY_USAGE_STATS_ENABLED=0", "TF_FORCE_GPU_ALLOW_GROWTH=true"}
    shell = set(run_as_ray_does("env", tmp_path).splitlines())
    assert said | {"AWS_DEFAULT_REGION=eu-west-3"} <= shell
    for role in ("head", "worker"):
        stop, start, _ = start_commands(config, role)
        assert "ARGS stop" in run_as_ray_does(stop, tmp_path).splitlines()
        told = run_as_ray_does(start, tmp_path).splitlines()
        (arguments,) = [line for line in told if line.startswith("ARGS ")]
        if role == "head":
            assert arguments.startswith("ARGS start --head ")
            assert "--autoscaling-config=~/ray_bootstrap_config.yaml" in arguments  # Ray knows what ~ is
            assert "--dashboard-host=127.0.0.1" in arguments
        else:
            assert arguments.startswith("ARGS start --address=10.0.0.7:6379")
        assert said <= set(told)
        assert not any(line.startswith("OMP_NUM_THREADS=") for line in told)


@pytest.mark.parametrize(("role", "words"), [("head", "head --minutes 60"), ("worker", "worker --head 10.0.0.7 ")])
def test_each_machine_starts_its_watch_in_the_background(config: Config, tmp_path: Path, role: str, words: str) -> None:
    stand_in(tmp_path / "venv" / "bin" / "python", 'echo "ARGS $*"; sleep 2; echo over')
    before = time.monotonic()
    assert "ARGS" not in run_as_ray_does(start_commands(config, role)[-1], tmp_path), "it says nothing to the launcher"
    log = tmp_path / "tunelab_watch.log"
    while "over" not in (log.read_text() if log.exists() else ""):  # it lives on when the connection is over
        assert time.monotonic() < before + 30
        time.sleep(0.05)
    assert log.read_text().startswith(f"ARGS -m tunelab.cluster.watch {words}")


def test_every_command_is_one_that_bash_can_read(config: Config) -> None:
    keys = ("setup_commands", "worker_setup_commands", "head_start_ray_commands", "worker_start_ray_commands")
    for command in (command for key in keys for command in config[key]):
        done = subprocess.run(["bash", "-n"], input=command, capture_output=True, text=True, timeout=10)
        assert (done.returncode, done.stderr) == (0, ""), command


def test_tunelab_is_installed_under_its_constraints(config: Config) -> None:
    installs = [c for c in config["setup_commands"] + config["worker_setup_commands"] if "pip install" in c]
    assert len(installs) == 2
    assert all("-c constraints.txt" in command for command in installs)
    assert "'.[cluster]'" in installs[0]
    assert "~/tunelab/constraints.txt" in config["file_mounts"]
    assert {"~/tunelab/tunelab", "~/tunelab/search_spaces", "~/tunelab/pyproject.toml"} <= set(config["file_mounts"])


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
    profiles = {types(config)[name]["node_config"]["IamInstanceProfile"]["Name"] for name in WORKERS}
    assert passed == [f"arn:aws:iam::123456789012:role/{profile}" for profile in profiles]
    (ended,) = [
        s["Condition"]["StringEquals"] for s in made.head["Statement"] if "ec2:TerminateInstances" in s["Action"]
    ]
    assert ended == {"aws:ResourceTag/ray-cluster-name": config["cluster_name"]}
