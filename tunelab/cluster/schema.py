"""What Ray's own validation says of a cluster file, with places and in words. What it misses is not looked for here."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import logging
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from tunelab.cluster.findings import Notes
from tunelab.errors import did_you_mean

_TYPES = {
    "object": "a mapping",
    "array": "a list",
    "string": "a text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
}


_ABOUT = {"docker": "docker", "container": "docker", "provider": "provider", "auth": "auth"}
"""Words of Ray's messages -> the key that they are about."""


def check_schema(notes: Notes) -> bool:
    """Note what Ray's launcher would refuse.

    Args:
        notes: of the file.

    Returns:
        Whether the file has the form that other checks rely on: a mapping is where one belongs, and so on.
    """
    file = notes.file
    if not _schema(notes):
        return False
    _node_types(notes)
    if file.provider == "local":
        _own_machines(notes)
    if not any(finding.severity == "error" for finding in notes.found):
        _ray(notes)
    return True


def _schema(notes: Notes) -> bool:
    import jsonschema
    import ray.autoscaler

    schema = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text(encoding="utf-8"))
    formed = True
    problems = jsonschema.Draft7Validator(schema).iter_errors(notes.file.document)
    for problem in sorted(problems, key=lambda problem: [str(key) for key in problem.absolute_path]):
        where = tuple(problem.absolute_path)
        if problem.validator == "additionalProperties":
            known = set(problem.schema.get("properties", {}))
            if notes.file.provider == "local" and not where:
                known.add("min_workers")  # taken out before Ray validates
            for key in sorted(set(problem.instance) - known, key=str):
                notes.error((*where, key), "unknown key, which Ray refuses", _hint(str(key), known))
        elif problem.validator == "required":
            for key in problem.validator_value:
                if key not in problem.instance and key != "resources":  # Ray asks EC2 for those
                    notes.error((*where, key), "missing", f"add {key}")
                    formed = formed and key != "provider"
        elif problem.validator == "type":
            wanted = problem.validator_value
            kinds = [wanted] if isinstance(wanted, str) else list(wanted)
            formed = False
            said = " or ".join(_TYPES.get(kind, kind) for kind in kinds)
            notes.error(where, f"{problem.instance!r:.60} is not {said}", f"write {said}")
        else:
            notes.error(where, problem.message[:200], "correct the value")
    return formed


def _hint(key: str, known: set[str]) -> str:
    hint = did_you_mean(key, known).removeprefix("; ")
    return hint if hint.startswith("did") else f"remove it; {hint}"


def _node_types(notes: Notes) -> None:
    file = notes.file
    types = file.node_types
    if "available_node_types" not in file.document:
        if file.provider != "local":
            notes.error(
                ("available_node_types",), "missing, so Ray takes machines of its own choice", "start from cluster.yaml"
            )
        return
    if "head_node_type" not in file.document:
        notes.error(("head_node_type",), "missing", f"name one of {', '.join(sorted(types))}")
    elif file.head not in types:
        hint = did_you_mean(file.head, types).removeprefix("; ")
        notes.error(("head_node_type",), f"{file.head!r} is none of the node types", hint or "add that type")
    least = sum(file.least_of(name) for name in file.workers)
    if least > file.max_workers:
        notes.error(
            ("max_workers",),
            f"{file.max_workers} is less than the min_workers of all types together, {least}",
            f"write {least} or more, or lower min_workers",
        )


def _own_machines(notes: Notes) -> None:
    provider = notes.file.mapping("provider")
    if "coordinator_address" not in provider:
        for key in ("head_ip", "worker_ips"):
            if key not in provider:
                notes.error(("provider", key), "missing", f"add {key}: where your machines are")
    for key in ("available_node_types", "head_node", "worker_nodes"):
        if notes.file.value(key):
            notes.error((key,), "Ray does not take it for machines of one's own", "remove it")


def _ray(notes: Notes) -> None:
    """Ray's launcher itself, for what is in its code and not in its schema."""
    document = copy.deepcopy(dict(notes.file.document))
    for node_type in document.get("available_node_types", {}).values():
        node_type.setdefault("resources", {})  # as `ray up` does, from EC2
    from ray.autoscaler._private.util import prepare_config, validate_config

    try:
        with _silence():
            validate_config(prepare_config(document))
    except Exception as problem:  # noqa: BLE001 - whatever the launcher raises, it is what `ray up` would say
        said = str(problem).splitlines()[0] if str(problem) else type(problem).__name__
        key = next((key for word, key in _ABOUT.items() if word in said.lower()), "")
        notes.error((key,) if key else (), f"Ray refuses it: {said[:300]}", "correct what it names")


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Without what the launcher says on the way."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(before)


def check_parameters(notes: Notes, name: str, node: Mapping[str, Any]) -> None:
    """Note what EC2 would refuse in a ``node_config``: Ray hands every key of it on.

    Args:
        notes: of the file.
        name: of the node type.
        node: its ``node_config``.
    """

    from botocore.validate import ParamValidator

    filled = {**node, "MinCount": 1, "MaxCount": 1}
    filled.pop("SubnetIds", None)  # Ray's own
    where: tuple[str | int, ...] = ("available_node_types", name, "node_config")
    for line in ParamValidator().validate(filled, _run_instances()).generate_report().splitlines():
        unknown = re.match(r'Unknown parameter in (\S+): "(.*)", must be one of: (.*)', line)
        if unknown:
            below = [] if unknown[1] == "input" else _steps(unknown[1])
            hint = _hint(unknown[2], set(unknown[3].split(", ")))
            notes.error((*where, *below, unknown[2]), "no parameter of EC2's RunInstances", hint)
        else:
            key = re.search(r"(?:parameter|in|for) ([A-Z][\w.\[\]]*)[:,]", line)
            notes.error((*where, *(_steps(key[1]) if key else ())), line[:200], "correct the value")


@cache
def _run_instances() -> Any:
    """The parameters of EC2's RunInstances."""
    import botocore.session

    return botocore.session.get_session().get_service_model("ec2").operation_model("RunInstances").input_shape


def _steps(path: str) -> list[str | int]:
    """``Disks[0].Ebs`` -> Disks, 0, Ebs."""

    return [int(part) if part.isdigit() else part for part in re.findall(r"[^.\[\]]+", path)]
