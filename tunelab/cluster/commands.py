"""What Ray's validation misses in how nodes are set up and Ray is started: token, autoscaler, dashboard, files, key."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

from tunelab.cluster.findings import Notes

_LOOPBACK = {"127.0.0.1", "localhost", "::1"}
_ENDS_ITSELF = re.compile(
    r"\b(shutdown|poweroff|halt|terminate-instances)\b|tunelab\.cluster\.watch|"
    r"idle[-_. ]?(stop|shutdown|head|watch|end)"
)
_TOKEN_FILE = ".ray/auth_token"  # noqa: S105 - the place, not the token


def check_commands(notes: Notes) -> None:
    """Note what is wrong with the commands, files and keys of a cluster file.

    Args:
        notes: of the file.
    """
    _start(notes, "head")
    _start(notes, "worker")
    _token(notes)
    _mounts(notes)
    _key(notes)
    if notes.file.provider == "aws":
        _ends(notes)


def _start(notes: Notes, role: str) -> None:
    key = f"{role}_start_ray_commands"
    commands = [str(command) for command in notes.file.sequence(key)]
    found = next((index for index, command in enumerate(commands) if "ray start" in command), None)
    if found is None:
        what = "missing: Ray's own start asks for no token" if not commands else "no command holds `ray start`"
        notes.error((key,), what, "start from those of cluster.yaml")
        return
    at = (key, found)
    before, _, after = commands[found].partition("ray start")
    if not re.search(r"\bRAY_AUTH_MODE=[\"']?token\b", before):
        what = "Ray starts without a token: whoever reaches its ports runs code there"
        notes.error(at, what, "put `export RAY_AUTH_MODE=token;` before `ray start`, in the same command")
    if role == "worker":
        return
    if not re.search(r"--autoscaling-config[= ]\S", after):
        what = "no --autoscaling-config: no worker would ever start"
        notes.error(at, what, "add --autoscaling-config=~/ray_bootstrap_config.yaml to `ray start`")
    host = re.search(r"--dashboard-host[= ][\"']?([^\s\"']+)", after)  # Ray's own choice is loopback
    if host and host[1] not in _LOOPBACK:
        what = f"the dashboard listens on {host[1]}, where jobs are taken as well"
        notes.error(at, what, "write --dashboard-host=127.0.0.1; it is reached through a tunnel")
    if re.search(r"--include-dashboard[= ][\"']?(false|0)\b", after, re.IGNORECASE):
        notes.error(at, "no dashboard: it is what takes jobs", "remove --include-dashboard")
    if notes.file.provider == "local" and not re.search(r"--num-cpus[= ]\S", after):
        what = "the head takes trials on all its CPUs, beside the driver"
        notes.warn(at, what, "add --num-cpus=0 to `ray start`, or as many as trials may take there")


def _token(notes: Notes) -> None:
    mounts = notes.file.mapping("file_mounts")
    target = next((target for target in mounts if str(target).endswith(_TOKEN_FILE)), None)
    if target is None:
        what = f"no ~/{_TOKEN_FILE}: nodes that ask for a token and have none admit nobody"
        notes.error(("file_mounts",), what, f"add ~/{_TOKEN_FILE}: ~/{_TOKEN_FILE}")
    given = os.environ.get("RAY_AUTH_TOKEN_PATH") or f"~/{_TOKEN_FILE}"
    path = Path(str(mounts[target]) if target is not None else given).expanduser()
    at = ("file_mounts",) if target is None else ("file_mounts", target)
    private(notes, at, path, "ray get-auth-token --generate > /dev/null")


def private(notes: Notes, at: tuple[str, ...], path: Path, make: str) -> None:
    """Note a secret file that is missing, empty, or that others than its owner can read.

    Args:
        notes: of the file.
        at: the key that names it.
        path: the file.
        make: the command that makes it.
    """
    try:
        status = path.stat()
    except OSError as problem:
        notes.error(at, f"{path}: {problem.strerror}", f"make it: (umask 077 && {make})")
        return
    if not stat.S_ISREG(status.st_mode) or status.st_size == 0:
        notes.error(at, f"{path}: is no file with something in it", f"make it: (umask 077 && {make})")
    elif status.st_mode & 0o077:
        notes.error(at, f"{path}: others can read it (mode {status.st_mode & 0o777:o})", f"chmod 600 {path}")


def _mounts(notes: Notes) -> None:
    here, beside = Path.cwd(), notes.file.path.absolute().parent
    for target, source in notes.file.mapping("file_mounts").items():
        if str(target).endswith(_TOKEN_FILE):
            continue
        path = Path(str(source)).expanduser()
        if not any((folder / path).exists() for folder in (here, beside)):
            folders = "" if path.is_absolute() else f" in {beside}" + (f" or {here}" if here != beside else "")
            remedy = "correct the path, or remove the line"
            notes.error(("file_mounts", target), f"{source}: there is no such file or folder{folders}", remedy)


def _key(notes: Notes) -> None:
    key = notes.file.value("auth", "ssh_private_key")
    if not key:
        return  # Ray makes one
    path = Path(str(key)).expanduser()
    make = f"aws ec2 create-key-pair --key-name NAME --query KeyMaterial --output text > {path}"
    if notes.file.provider != "aws":
        make = f"ssh-keygen -t ed25519 -f {path}"
    private(notes, ("auth", "ssh_private_key"), path, make)


def _ends(notes: Notes) -> None:
    """The head on AWS, which costs until somebody ends it."""
    file = notes.file
    keys = ("setup_commands", "head_setup_commands", "head_start_ray_commands", "initialization_commands")
    found = [
        (key, index)
        for key in keys
        for index, command in enumerate(file.sequence(key))
        if _ENDS_ITSELF.search(str(command))
    ]
    node = ("available_node_types", file.head, "node_config")
    if not found:
        what = "nothing ends the head: a forgotten cluster costs money for ever"
        notes.warn(("head_setup_commands",), what, "add the idle shutdown of cluster.yaml, or mind `ray down`")
    elif file.value(*node, "InstanceInitiatedShutdownBehavior") is None:
        what = "the head's shutdown stops the machine only, and its disk is billed from then on"
        notes.warn(
            (*node, "InstanceInitiatedShutdownBehavior"), what, "write InstanceInitiatedShutdownBehavior: terminate"
        )
