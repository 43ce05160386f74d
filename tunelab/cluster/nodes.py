"""What Ray's validation misses in the node types of a cluster on AWS: machines, images, rights, disks, markets."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from tunelab.cluster.findings import Notes
from tunelab.cluster.instances import instance_of
from tunelab.cluster.schema import check_parameters

RESOURCES = ("CPU", "GPU", "memory", "object_store_memory", "TPU", "neuron_cores")
"""What Ray itself counts; any other name is a resource of the user's own."""


def check_nodes(notes: Notes) -> None:
    """Note what is wrong with the node types of a file about AWS.

    Args:
        notes: of the file.
    """
    file = notes.file
    for name, node_type in file.node_types.items():
        node = node_type.get("node_config")
        node = node if isinstance(node, Mapping) else {}
        at = ("available_node_types", name)
        check_parameters(notes, name, node)
        _resources(notes, name, node_type, node)
        _image(notes, name, node)
        _profile(notes, name, node)
        _disks(notes, name, node)
        if _mapping(node.get("MetadataOptions")).get("HttpTokens") != "required":
            notes.error(
                (*at, "node_config", "MetadataOptions", "HttpTokens"),
                "the machine gives its credentials to unsigned requests too (IMDSv1)",
                "write MetadataOptions: {HttpTokens: required}",
            )
        if "KeyName" not in node and file.value("auth", "ssh_private_key"):
            notes.error((*at, "node_config", "KeyName"), "missing", "name the key pair of auth.ssh_private_key")
    _numbers(notes)
    _markets(notes)
    _reachable(notes)


def is_spot(node_type: Mapping[str, Any]) -> bool:
    """Whether machines of a node type may be taken away at any time."""
    market = _mapping(_mapping(node_type.get("node_config")).get("InstanceMarketOptions"))
    return market.get("MarketType") == "spot"


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _resources(notes: Notes, name: str, node_type: Mapping[str, Any], node: Mapping[str, Any]) -> None:
    at = ("available_node_types", name, "resources")
    given = _mapping(node_type.get("resources"))
    for key in given:
        if key in RESOURCES:
            continue
        lower = {known.lower(): known for known in RESOURCES}
        near = difflib.get_close_matches(str(key).lower(), lower, n=1, cutoff=0.8)
        if near:
            notes.error((*at, key), "no resource that trials ask for", f"did you mean {lower[near[0]]!r}?")
    for key in ("CPU", "GPU"):
        if key in given and (isinstance(given[key], bool) or not isinstance(given[key], int | float)):
            notes.error((*at, key), f"{given[key]!r} is no number", "write a number")
            return
    if name == notes.file.head:
        if given.get("CPU") != 0:
            said = f"CPU: {given['CPU']}" if "CPU" in given else "no CPU: 0, so Ray takes those of the machine"
            notes.error((*at, "CPU"), f"{said}: trials land beside the driver", "write resources: {CPU: 0}")
        if given.get("GPU", 0) != 0:
            notes.error((*at, "GPU"), f"GPU: {given['GPU']}: trials land beside the driver", "remove GPU")
        return
    kind = str(node.get("InstanceType", ""))
    if not kind:
        notes.error(("available_node_types", name, "node_config", "InstanceType"), "missing", "name one")
    instance = instance_of(kind)
    if instance is None or not given:
        return
    for key, there in (("CPU", instance.cpus), ("GPU", instance.gpus)):
        says = given.get(key, 0)
        if says > there:
            what = f"{key}: {says:g}, but a {kind} has {instance.describe()}"
            notes.error((*at, key), f"{what}: trials would wait for ever, or crowd it", f"write {key}: {there}")
        elif says < there:
            what = f"{key}: {says:g}, but a {kind} has {instance.describe()}: the rest is paid for and not used"
            notes.warn((*at, key), what, f"write {key}: {there}, or take a smaller type")


def _image(notes: Notes, name: str, node: Mapping[str, Any]) -> None:
    at = ("available_node_types", name, "node_config", "ImageId")
    remedy = (
        "write resolve:ssm:/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-24.04/latest/ami-id"
    )
    image = node.get("ImageId")
    if image is None:
        notes.error(at, "missing: Ray takes an Ubuntu 18.04, whose Python and CUDA are too old", remedy)
    elif not str(image).startswith(("ami-", "resolve:ssm:/")):
        notes.error(at, f"{image!r} is neither an id (ami-...) nor a parameter (resolve:ssm:/...)", remedy)


def _profile(notes: Notes, name: str, node: Mapping[str, Any]) -> None:
    profile = _mapping(node.get("IamInstanceProfile"))
    if profile.get("Name") or profile.get("Arn"):
        return
    if name == notes.file.head:
        what = "missing: Ray's own role may not pass the workers' role on, so that no worker starts"
    else:
        what = "missing: Ray gives workers none, so that a trial cannot write to the bucket"
    notes.error(
        ("available_node_types", name, "node_config", "IamInstanceProfile"),
        what,
        "name an instance profile; `tunelab cluster iam` prints what it needs",
    )


def _disks(notes: Notes, name: str, node: Mapping[str, Any]) -> None:
    at = ("available_node_types", name, "node_config", "BlockDeviceMappings")
    remedy = "write Ebs: {Encrypted: true, DeleteOnTermination: true} for each disk"
    disks = node.get("BlockDeviceMappings")
    if not isinstance(disks, list) or not disks:
        notes.error(at, "missing: the disk is not encrypted", remedy)
        return
    for index, disk in enumerate(disks):
        if not isinstance(_mapping(disk).get("Ebs"), Mapping):
            continue  # of the machine itself, which encrypts it
        if disk["Ebs"].get("Encrypted") is not True:
            notes.error((*at, index, "Ebs", "Encrypted"), "the disk is not encrypted", remedy)
        if disk["Ebs"].get("DeleteOnTermination", True) is not True:
            notes.warn((*at, index, "Ebs", "DeleteOnTermination"), "the disk stays, and is billed", remedy)


def _numbers(notes: Notes) -> None:
    file = notes.file
    for name, node_type in file.node_types.items():
        at = ("available_node_types", name)
        most, least = node_type.get("max_workers"), node_type.get("min_workers", 0)
        if name == file.head:
            if most not in (None, 0):
                notes.error((*at, "max_workers"), f"{most}: another head could start as a worker", "write 0")
            continue
        if isinstance(most, int) and most > file.max_workers:
            what = f"{most} of this type, but max_workers of the cluster is {file.max_workers}, which goes before"
            notes.error((*at, "max_workers"), what, "raise the cluster's max_workers, or lower this one")
        if isinstance(least, int) and least > 0:
            what = f"{least} machines run, and cost, whether trials wait or not"
            notes.warn((*at, "min_workers"), what, "write min_workers: 0")


def _markets(notes: Notes) -> None:
    file = notes.file
    head = file.node_types.get(file.head, {})
    if is_spot(head):
        notes.error(
            ("available_node_types", file.head, "node_config", "InstanceMarketOptions"),
            "the head on spot: whoever reclaims it ends the search",
            "remove InstanceMarketOptions",
        )
    fallbacks = [name for name, one in file.workers.items() if not is_spot(one) and file.most_of(name) > 0]
    for name, node_type in file.workers.items():
        if not is_spot(node_type) or file.most_of(name) == 0:
            continue
        asks = bool(_mapping(node_type.get("resources")).get("GPU"))
        if not any(not asks or _mapping(file.workers[other].get("resources")).get("GPU") for other in fallbacks):
            notes.warn(
                ("available_node_types", name, "node_config", "InstanceMarketOptions"),
                "spot without a type on demand to fall back on: with no spot capacity the search stands still",
                "add a worker type like it without InstanceMarketOptions",
            )


def _reachable(notes: Notes) -> None:
    file = notes.file
    remedy = "name a group of yours in SecurityGroupIds of every node type; docs/cluster.md has its rules"
    rules = ("provider", "security_group", "IpPermissions")
    for index, rule in enumerate(file.sequence(*rules)):
        ranges = [*_listed(rule, "IpRanges", "CidrIp"), *_listed(rule, "Ipv6Ranges", "CidrIpv6")]
        if {"0.0.0.0/0", "::/0"} & set(ranges):
            ports = f"{_mapping(rule).get('FromPort', 'every')} to {_mapping(rule).get('ToPort', 'every')}"
            notes.error((*rules, index), f"opens ports {ports} to the world", "give your own address instead")
    for name, node_type in file.node_types.items():
        node = _mapping(node_type.get("node_config"))
        cards = node.get("NetworkInterfaces")
        own = [card for card in cards if _mapping(card).get("Groups")] if isinstance(cards, list) else []
        if not node.get("SecurityGroupIds") and not own:
            what = "no security group is named, and that which Ray makes admits the world to port 22 (keys only)"
            notes.warn(("available_node_types", name, "node_config", "SecurityGroupIds"), what, remedy)
            return  # once is enough: it is one group for all of them


def _listed(rule: Any, name: str, key: str) -> list[str]:
    ranges = _mapping(rule).get(name)
    return [str(_mapping(one).get(key)) for one in ranges] if isinstance(ranges, list) else []
