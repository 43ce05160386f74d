"""What is wrong with a cluster file: Ray's own validation, and everything that it misses. Asks nobody but this machine.

:mod:`tunelab.cluster.live` asks AWS.
"""

from __future__ import annotations

import re

from tunelab.cluster.commands import check_commands
from tunelab.cluster.file import ClusterFile
from tunelab.cluster.findings import Finding, Notes
from tunelab.cluster.nodes import check_nodes
from tunelab.cluster.prices import check_prices
from tunelab.cluster.schema import check_schema
from tunelab.errors import UsageError, did_you_mean

__all__ = ["Finding", "check"]

OUR_KEYS = frozenset({"storage", "prices"})
"""What tunelab reads under ``provider``, which Ray leaves open."""
_EVERY = {"type", "worker_liveness_check", "disable_node_updaters", "disable_launch_config_check"}
_EVERY |= {"foreground_node_launch", "use_internal_ips", "use_external_head_ip"}
PROVIDER_KEYS = {
    "aws": _EVERY
    | {"region", "availability_zone", "cache_stopped_nodes", "security_group", "key_pair", "cloudwatch"}
    | OUR_KEYS,
    "local": _EVERY | {"head_ip", "worker_ips", "external_head_ip", "coordinator_address"} | OUR_KEYS,
}
"""What Ray 2.60 and tunelab read there."""
_PLACEHOLDER = re.compile(r"s3://(<[^/]*|[^/]*BUCKET[^/]*|bucket|(my|your|example)[-_.]?(bucket|name))(/.*)?")
_REGION = re.compile(r"[a-z]{2,3}(-[a-z]+)+-\d")


def check(file: ClusterFile) -> list[Finding]:
    """What is wrong with a cluster file, in the order of its lines.

    Args:
        file: as :func:`tunelab.cluster.file.load_cluster_file` reads it.
    """
    notes = Notes(file)
    if check_schema(notes):
        _provider(notes)
        _bucket(notes)
        check_prices(notes)
        if file.provider == "aws":
            check_nodes(notes)
        if file.provider in PROVIDER_KEYS:
            check_commands(notes)
    unique = dict.fromkeys(notes.found)
    return sorted(unique, key=lambda finding: finding.line)


def _provider(notes: Notes) -> None:
    file = notes.file
    known = PROVIDER_KEYS.get(file.provider)
    if known is None:
        return  # of a provider that is not known here
    given = file.mapping("provider")
    for key in given:
        if key == "aws_credentials":
            what = "credentials in a file that is copied to the head"
            notes.error(("provider", key), what, "remove them, and set AWS_PROFILE")
        elif key not in known:
            hint = did_you_mean(str(key), known).removeprefix("; ")
            notes.error(("provider", key), "unknown key, which Ray passes over", hint)
    if file.provider != "aws":
        return
    if not _REGION.fullmatch(file.region):
        what = f"{file.region!r} is no region of AWS" if file.region else "missing"
        notes.error(("provider", "region"), what, "write one, such as us-west-2")
    if given.get("cache_stopped_nodes", True) is not False:
        what = "`ray down` stops machines instead of ending them, and their disks are billed from then on"
        notes.warn(("provider", "cache_stopped_nodes"), what, "write cache_stopped_nodes: false")


def _bucket(notes: Notes) -> None:
    from tunelab.s3 import parse_s3  # with boto3, which takes its time

    at = ("provider", "storage")
    storage = notes.file.storage
    if not storage:
        notes.error(at, "no bucket is named, so that results end with the machines", "add storage: s3://BUCKET/runs")
    elif _PLACEHOLDER.fullmatch(storage):
        remedy = "put your bucket's name; aws s3 mb s3://NAME makes one"
        notes.error(at, f"{storage!r} is a placeholder", remedy)
    else:
        try:
            parse_s3(storage, "storage")
        except UsageError as problem:
            what, _, remedy = str(problem).removeprefix("storage: ").rpartition("; ")
            notes.error(at, what, remedy)
