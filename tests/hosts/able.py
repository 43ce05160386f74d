"""Whether a machine can start hosts, found out by doing what starting one takes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from hosts.packages import there

COMMANDS = {
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "setpriv": "util-linux",
    "pivot_root": "util-linux",
    "mount": "mount",
    "ip": "iproute2",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "useradd": "passwd",
}
"""What is called, and Debian's package of it."""
FOLDER = "/var/tmp"
"""Where labs keep what all their hosts see."""
GIB = 5
_TRY = """
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs "$0"
mkdir "$0/up" "$0/work" "$0/root" "$0/venv"
mount -t overlay overlay -o "lowerdir=/,upperdir=$0/up,workdir=$0/work" "$0/root"
mkdir "$0/up2" "$0/work2"
mount -t overlay overlay -o "lowerdir=$1,upperdir=$0/up2,workdir=$0/work2" "$0/venv"
mount -t proc proc "$0/root/proc"
ip link add br0 type bridge
ip link add v0 type veth peer name v1
mkdir "$0/root/oldroot"
cd "$0/root"
pivot_root . oldroot
"""


def why_not() -> str:
    """Why this machine cannot start hosts; empty when it can."""
    if sys.platform != "linux":
        return f"{sys.platform} has no namespaces"
    if os.geteuid() != 0:
        return "only root may make namespaces and mounts"
    for name, package in COMMANDS.items():
        if shutil.which(name) is None:
            return f"{name} is not installed (apt-get install {package})"
    if not there() and shutil.which("apt-get") is None:
        return "sshd and rsync are not installed, and there is no apt-get to fetch them with"
    for path in (sys.base_prefix, FOLDER):
        if os.stat(path).st_dev != os.stat("/").st_dev:
            return f"{path} is mounted, and hosts would not see it"
    if (free := _free_gib()) < GIB:
        return f"{free:.1f} GiB of memory are free, and a cluster of four machines takes {GIB}"
    with tempfile.TemporaryDirectory(prefix="tunelab-able-", dir=FOLDER) as folder:
        tried = subprocess.run(
            ["unshare", "--mount", "--uts", "--ipc", "--net", "--pid", "--fork", "sh", "-c", _TRY, folder, sys.prefix],
            capture_output=True,
            text=True,
            check=False,
        )
    return "" if tried.returncode == 0 else (tried.stderr.strip().splitlines() or ["unshare fails"])[-1]


def _free_gib() -> float:
    found = re.search(r"^MemAvailable: +(\d+) kB$", Path("/proc/meminfo").read_text(), re.MULTILINE)
    assert found
    return int(found[1]) / 2**20
