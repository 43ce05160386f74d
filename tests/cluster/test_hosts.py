"""Hosts are machines of their own, and nothing is left of them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hosts.able import why_not
from hosts.host import Host, until
from hosts.lab import Image, Lab

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module", autouse=True)
def _can() -> None:
    if why := why_not():
        pytest.skip(f"no hosts on this machine: {why}")


def traces(lab: Lab) -> Iterator[str]:
    """What is there of a lab: its folder, mounts, and processes."""
    folder = str(lab.folder)
    if lab.folder.exists():
        yield folder
    yield from (line for line in Path("/proc/self/mounts").read_text().splitlines() if folder in line)
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().decode(errors="replace")
            mounts = (process / "mounts").read_text()
        except OSError:
            continue
        if folder in words or folder in mounts:
            yield f"{process.name}: {words}"


def test_hosts_are_machines_and_leave_nothing() -> None:
    image = Image(files={".greeting": "canary"}, shell=["export WHO=image"])
    spaces = set(os.listdir("/run/netns")) if Path("/run/netns").exists() else set()
    with Lab(image) as lab:
        one = lab.start("one", "172.31.0.5")
        key = one.run("ssh-keygen -q -t ed25519 -N '' -f ~/.ssh/id_ed25519 && cat ~/.ssh/id_ed25519.pub")
        two = lab.start("two", "172.31.0.6", public="54.1.2.3", keys=key)
        ssh = "ssh -o StrictHostKeyChecking=accept-new -o LogLevel=ERROR"
        said = one.run(f"{ssh} ubuntu@54.1.2.3 'hostname; whoami; cat ~/.greeting; ls /tmp'")
        assert said.split() == ["two", "ubuntu", "canary"]
        assert one.run("hostname; echo $WHO").split() == ["one", "image"]
        assert one.run("ls ~/.ray ~/.aws 2>&1 || true").count("No such file") == 2, "nothing leaks in"
        two.run("touch /opt/canary && rm -r $(python -c 'import pytest; print(pytest.__path__[0])')/mark* || true")
        assert not Path("/opt/canary").exists(), "a host's disk is its own"
        loop = one.type(f"{ssh} root@172.31.0.6 'echo there; sleep 1000'")
        loop.until("there", 20)
        two.unplug()
        assert not two.up
        typed = one.type("trap 'echo caught; exit 7' INT; echo on; while true; do sleep 0.1; done && :")
        assert typed.process.poll() is None
        assert list(traces(lab))
    assert list(traces(lab)) == []
    assert (set(os.listdir("/run/netns")) if Path("/run/netns").exists() else set()) == spaces
    with pytest.raises(RuntimeError, match="the lab is closed"):
        lab.start("three", "172.31.0.7")


def test_ctrl_c_reaches_what_was_typed() -> None:
    with Lab(Image()) as lab:
        host = lab.start("one", "172.31.0.5")
        code = "import time, sys\ntry:\n print(1, flush=True)\n time.sleep(99)\nexcept KeyboardInterrupt:\n sys.exit(7)"
        typed = host.type(f'true && python -c "{code}"')
        typed.until("^1$", 20)
        typed.interrupt()
        assert typed.wait(20) == 7


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_what_goes_wrong_ends_the_hosts_too(error: type[BaseException]) -> None:
    kept: list[tuple[Lab, Host]] = []

    def fail() -> None:
        with Lab(Image()) as lab:
            kept.append((lab, lab.start("one", "172.31.0.5")))
            raise error

    with pytest.raises(error):
        fail()
    lab, host = kept[0]
    assert not host.up
    assert list(traces(lab)) == []


def test_a_killed_test_leaves_no_process() -> None:
    code = """
import time
from hosts.lab import Lab
lab = Lab().__enter__()
lab.start('one', '172.31.0.5')
print(lab.folder, flush=True)
time.sleep(99)
"""
    tests = str(Path(__file__).parents[1])
    test = subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": tests},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert test.stdout
    lab = Lab()
    lab.folder = Path(test.stdout.readline().strip())
    assert len(list(traces(lab))) > 1
    test.kill()
    test.wait()
    test.stdout.close()
    until(lambda: list(traces(lab)) == [str(lab.folder)], 20, "the end of its hosts")
    shutil.rmtree(lab.folder)


def test_a_host_that_does_not_start_says_why() -> None:
    with Lab(Image()) as lab, pytest.raises(RuntimeError, match=r"one: does not start:\n[^$]*any valid prefix"):
        lab.start("one", "no address")


def test_until_names_what_did_not_come() -> None:
    with pytest.raises(TimeoutError, match=r"not within 0\.1 s: rain"):
        until(lambda: False, 0.1, "rain")
