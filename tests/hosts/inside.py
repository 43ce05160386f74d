"""The first process of a host: makes its file system and network, starts sshd, and reaps whom nobody waits for.

Started by :mod:`hosts.lab` in namespaces of its own; takes a JSON object with the fields of ``Inside``. Nothing but the
standard library, and no import once the old root is gone that was not possible before.
"""

from __future__ import annotations

import glob
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TypedDict

READY = "HOST READY"
USERS = ("root", "ubuntu")
SSHD = """\
HostKey /etc/host_key
PidFile none
UsePAM no
PasswordAuthentication no
PermitRootLogin yes
StrictModes no
UseDNS no
MaxStartups 100
MaxSessions 100
Subsystem sftp /usr/lib/openssh/sftp-server
"""


class Inside(TypedDict):
    """What a host is told."""

    name: str
    address: str
    bits: int
    """Of the network in the address."""
    public: str
    """A second address, as machines of a cloud have one; empty: none."""
    folder: str
    """An empty one on the outside, on which this host's file system is built."""
    packages: str
    """Root below which sshd lies, if not where this machine has it."""
    venv: str
    """A virtual environment that the host has at the same path, and may write to."""
    keys: str
    """Public key that is let in."""
    files: dict[str, str]
    """Path below each home -> content."""
    shell: list[str]
    """Lines for each ``.bashrc``."""


def main() -> None:
    """Become a host."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    told: Inside = json.loads(sys.argv[1])
    _files(told)
    for user in USERS:
        _home(user, told)
    _writable(Path(told["venv"]))
    _address(told)
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "/etc/host_key")
    Path("/etc/sshd_of_host").write_text(SSHD)
    subprocess.Popen(["/usr/sbin/sshd", "-D", "-e", "-f", "/etc/sshd_of_host"])
    while socket.socket().connect_ex(("127.0.0.1", 22)):
        time.sleep(0.02)
    print(READY, flush=True)
    while True:
        try:
            os.wait()
        except ChildProcessError:
            time.sleep(1)


def run(*words: str | Path) -> None:
    """Run a command that has to succeed."""
    subprocess.run(words, check=True)


def _files(told: Inside) -> None:
    """The root is this machine's, with all changes in memory; so is the virtual environment."""
    below = Path(told["folder"])
    root, venv = below / "root", Path(told["venv"])
    run("mount", "--make-rprivate", "/")
    run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", below)
    _overlay(Path("/"), below / "of_root", root)
    if told["packages"]:
        run("cp", "-a", f"{told['packages']}/usr/.", root / "usr")
    for name in ("tmp", "run"):
        run("mount", "-t", "tmpfs", "-o", "mode=1777" if name == "tmp" else "mode=755", "tmpfs", root / name)
    (root / "run/sshd").mkdir()
    _overlay(venv, below / "of_venv", root / str(venv)[1:])
    run("mount", "--bind", "/dev", root / "dev")
    run("mount", "--bind", "/dev/pts", root / "dev/pts")
    run("mount", "-t", "tmpfs", "-o", "mode=1777", "tmpfs", root / "dev/shm")
    run("mount", "-t", "proc", "proc", root / "proc")
    run("mount", "-t", "sysfs", "-o", "ro", "sysfs", root / "sys")
    subprocess.run(["mount", "--bind", "/sys/fs/cgroup", root / "sys/fs/cgroup"], check=False, capture_output=True)
    (root / "oldroot").mkdir()
    os.chdir(root)
    run("pivot_root", ".", "oldroot")
    run("umount", "-l", "/oldroot")
    os.chdir("/")


def _overlay(lower: Path, kept: Path, at: Path) -> None:
    for folder in (kept / "up", kept / "work", at):
        folder.mkdir(parents=True, exist_ok=True)
    shutil.copystat(lower, kept / "up")  # the root of an overlay is its upper folder
    options = f"lowerdir={lower},upperdir={kept / 'up'},workdir={kept / 'work'}"
    run("mount", "-t", "overlay", "overlay", "-o", options, at)


def _home(user: str, told: Inside) -> None:
    try:
        pwd.getpwnam(user)
    except KeyError:
        run("useradd", "-m", "-s", "/bin/bash", user)
    run("usermod", "-p", "*", user)  # no password, and not locked
    home = Path(pwd.getpwnam(user).pw_dir)
    home.chmod(0o755)
    for name in (".ssh", ".aws", ".ray", ".config"):  # nothing leaks in from the real machine
        shutil.rmtree(home / name, ignore_errors=True)
    files = {".ssh/authorized_keys": told["keys"] + "\n", **told["files"]}
    for name, content in files.items():
        path = home / name
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.write_text(content)
        path.chmod(0o600)
        shutil.chown(path.parent, user, user)
        shutil.chown(path, user, user)
    with (home / ".bashrc").open("a") as file:
        file.write("\n".join([f'export PATH="{told["venv"]}/bin:$PATH"', *told["shell"], ""]))
    shutil.chown(home / ".bashrc", user, user)
    (home / "venv").symlink_to(told["venv"])


def _writable(venv: Path) -> None:
    """Whoever logs in may install tunelab anew."""
    python = Path(sys.executable).resolve()
    for folder in (*venv.parents, *python.parents):
        if folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o055)
    packages = next(venv.glob("lib/python3*/site-packages"))
    for folder in (venv / "bin", packages):
        folder.chmod(0o777)
    ours = [Path(name) for pattern in ("tunelab*", "_tunelab*") for name in glob.glob(f"{packages}/{pattern}")]
    for path in ours:
        run("chown", "-R", "ubuntu:", path)


def _address(told: Inside) -> None:
    run("hostname", told["name"])
    Path("/etc/hosts").write_text(f"127.0.0.1 localhost\n{told['address']} {told['name']}\n")
    Path("/etc/resolv.conf").write_text("")
    try:
        pwd.getpwnam("sshd")
    except KeyError:
        run("useradd", "-r", "-d", "/run/sshd", "-s", "/usr/sbin/nologin", "sshd")
    while not Path("/sys/class/net/eth0").exists():  # it is plugged in from the outside
        time.sleep(0.02)
    run("ip", "link", "set", "lo", "up")
    run("ip", "addr", "add", f"{told['address']}/{told['bits']}", "dev", "eth0")
    if told["public"]:
        run("ip", "addr", "add", f"{told['public']}/32", "dev", "eth0")
    run("ip", "link", "set", "eth0", "up")
    run("ip", "route", "add", "default", "dev", "eth0", "src", told["address"])  # by which Ray finds its own address


if __name__ == "__main__":
    main()
