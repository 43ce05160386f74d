"""The Ray of one's own is closed, small, and gone at the end; seen from outside, through its sockets and files."""

from __future__ import annotations

import errno
import os
import re
import select
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import pytest
import ray

from tunelab.errors import ClusterError, StorageError, UsageError
from tunelab.tuning import cluster_session
from tunelab.tuning.cluster_session import FOLDER_PREFIX, LONGEST_BASE, check_resources, ray_session

pytestmark = [
    pytest.mark.ray,
    # Ray leaves sockets and log files to the garbage collector, and warns of its own future
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning", "ignore::DeprecationWarning"),
]

ASK = """
import sys
from ray._raylet import GcsClient
try:
    print(GcsClient(address=sys.argv[1]).internal_kv_get(b"session_name", b"session", timeout=10).decode())
except Exception as error:
    print(type(error).__name__)
"""
OF_RAY = str(Path(ray.__file__).parent)
JOIN = "import ray, sys; ray.init(sys.argv[1], log_to_driver=False); print(ray.get(ray.remote(lambda: 6 * 7).remote()))"
DRIVER = """
import sys
import ray
from tunelab.tuning.cluster_session import ray_session
with ray_session(None, debug=False):
    ray.get(ray.remote(lambda: 0).remote())
    print("ready", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def base(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a path short enough for Ray's sockets, that others may enter, and no settings of Ray's."""
    for name in [name for name in os.environ if name.startswith(("RAY_", "TUNE_"))]:
        monkeypatch.delenv(name)
    made = Path(tempfile.mkdtemp(prefix="tl", dir="/tmp"))
    made.chmod(0o755)
    monkeypatch.setenv("RAY_TMPDIR", str(made))
    yield made
    shutil.rmtree(made)


def mode(path: Path) -> str:
    return f"{stat.S_IMODE(path.stat().st_mode):o}"


def descendants(pid: int) -> dict[int, str]:
    """The processes below one, with their names; what Ray has started and not yet named is ``ray::``, as it will be."""
    found: dict[int, str] = {}
    with suppress(FileNotFoundError):  # it may end meanwhile
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                with suppress(FileNotFoundError):
                    words = Path(f"/proc/{child}/cmdline").read_text().split("\0")
                    unnamed = any(word.startswith(OF_RAY) for word in words[1:])
                    found[int(child)] = "ray::" if unnamed else words[0].rpartition("/")[2]
                    found |= descendants(int(child))
    return found


def listening(pids: Mapping[int, str]) -> dict[str, set[str]]:
    """Addresses that processes listen at, by the process's name; IPv4 as IPv6 writes it."""
    address_of: dict[str, str] = {}
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *rest = line.split()
            raw = b"".join(bytes.fromhex(local[i : i + 8])[::-1] for i in range(0, len(local.partition(":")[0]), 8))
            if state == "0A":
                address_of[f"socket:[{rest[5]}]"] = ".".join(map(str, raw)) if len(raw) == 4 else raw.hex()
    found: dict[str, set[str]] = {}
    for pid, name in pids.items():
        with suppress(FileNotFoundError):  # it may end meanwhile
            for descriptor in Path(f"/proc/{pid}/fd").iterdir():
                with suppress(FileNotFoundError):
                    target = os.readlink(descriptor)
                    if target in address_of:
                        found.setdefault(name, set()).add(address_of[target])
    return found


def other(code: str, *args: str, **environment: str) -> str:
    """What another process says that has none of this session's settings."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "TUNE_"))}
    words = [sys.executable, "-c", code, *args]
    done = subprocess.run(words, env=clean | environment, capture_output=True, text=True, timeout=60, check=False)
    return done.stdout.strip() or done.stderr


def address() -> str:
    return str(ray.get_runtime_context().gcs_address)


def test_a_session_of_ones_own_is_closed_to_everybody_else(base: Path) -> None:
    before = dict(os.environ)
    tokens = []
    for _ in range(2):  # Ray keeps mode and token in this process
        with ray_session(None, debug=False) as there:
            assert there["CPU"] >= 1
            (folder,) = base.iterdir()
            assert (mode(folder), mode(folder / "token")) == ("700", "600")
            tokens.append((folder / "token").read_text())
            where = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(folder / "token")}
            seen = ray.get(ray.remote(lambda: dict(os.environ)).remote())
            assert where.items() <= seen.items()
            assert tokens[-1] not in seen.values()

            session = Path(ray._private.worker._global_node.get_session_dir_path()).name
            assert other(ASK, address(), **where) == session
            assert other(ASK, address()) == "AuthenticationError"
            assert other(ASK, address(), RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="0" * 64) == "AuthenticationError"
            if len(tokens) == 1:  # nor does Ray find the loopback by itself
                assert other(JOIN, address(), RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER="0", **where) == "42"

            children = descendants(os.getpid())
            found = listening(children | {os.getpid(): "driver"})
            assert {"127.0.0.1", "0000000000000000" + "0000ffff7f000001"} == set.union(*found.values()), found
            kinds = {name.partition("::")[0] for name in found}
            assert kinds == {"driver", "gcs_server", "raylet", "ray"}, found

            with pytest.raises(ClusterError, match=r"connected to a Ray already; call ray\.shutdown\(\)"):
                ray_session(None, debug=False).__enter__()
            assert ray.is_initialized()
        assert not list(base.iterdir())
        assert dict(os.environ) == before
    assert tokens[0] != tokens[1]
    assert len(tokens[0]) == 64


@pytest.mark.parametrize(
    ("settings", "without"),
    [({"RAY_AUTH_MODE": "disabled"}, "session_"), ({"RAY_AUTH_TOKEN": "a" * 40}, "AuthenticationError")],
)
def test_what_the_user_has_set_of_the_token_wins(
    base: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], without: str
) -> None:
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    before = dict(os.environ)
    with ray_session(None, debug=False):
        assert [path.name for path in next(base.iterdir()).iterdir()] == ["ray"]
        assert other(ASK, address()).startswith(without)
        assert other(ASK, address(), **({"RAY_AUTH_MODE": "token"} | settings)).startswith("session_")
    assert dict(os.environ) == before


def test_a_ray_that_does_not_start_leaves_nothing_behind(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ROTATION_MAX_BYTES", "many")
    before = dict(os.environ)
    with pytest.raises(ClusterError, match=r"Ray at this machine: invalid literal .*'many'; check --address"):
        ray_session(None, debug=False).__enter__()
    assert dict(os.environ) == before
    assert not list(base.iterdir())
    assert ray._private.ray_constants.ENABLE_RAY_CLUSTER


def test_what_workers_print_is_capped_and_large_objects_find_a_place(base: Path) -> None:
    def flood() -> None:
        for _ in range(6):
            os.write(1, (b"x" * 99 + b"\n") * 100_000)
            os.write(2, (b"e" * 99 + b"\n") * 100_000)

    with ray_session(None, debug=False) as there:
        assert there["object_store_memory"] == cluster_session.OBJECT_STORE_BYTES
        ray.get(ray.remote(flood).remote())
        sizes = [path.stat().st_size for path in base.rglob("logs/worker-*") if path.stat().st_size > 1_000_000]
        assert 2 <= len(sizes) <= 4
        assert sum(sizes) < 4 * 9 * 1024**2
        stored = ray.put(bytes(cluster_session.OBJECT_STORE_BYTES + 10**6))
        assert ray.get(ray.remote(lambda it: len(it)).remote(stored)) == cluster_session.OBJECT_STORE_BYTES + 10**6


def test_what_a_killed_search_leaves_ends_or_is_removed_by_the_next(base: Path) -> None:
    words = [sys.executable, "-c", DRIVER]
    with (
        subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as killed,
        subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as alive,
    ):
        assert killed.stdout is not None
        assert alive.stdout is not None
        assert (killed.stdout.readline(), alive.stdout.readline()) == ("ready\n", "ready\n")
        ran = descendants(killed.pid)
        watched = [os.pidfd_open(pid) for pid, name in ran.items() if not name.endswith("Agent")]  # those take a minute
        assert {"gcs_server", "raylet"} < set(ran.values())
        killed.kill()
        for descriptor in watched:
            assert select.select([descriptor], [], [], 30)[0], ran
            os.close(descriptor)
        assert len(list(base.iterdir())) == 2
        foreign = base / "other"
        foreign.mkdir()
        (base / f"{FOLDER_PREFIX}link").symlink_to(foreign)
        with ray_session(None, debug=False):
            assert len([path for path in base.iterdir() if path.name.startswith(FOLDER_PREFIX)]) == 3  # with the link
        alive.communicate("")
    assert alive.returncode == 0
    assert {path.name for path in base.iterdir()} == {"other", f"{FOLDER_PREFIX}link"}


def test_for_debugging_the_files_stay_until_the_next_start(base: Path) -> None:
    with ray_session(None, debug=True):
        pass
    assert list(base.rglob("logs/gcs_server.out"))
    (first,) = base.iterdir()
    with ray_session(None, debug=False):
        assert not first.exists()
    assert not list(base.iterdir())


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
@pytest.mark.parametrize(
    ("options", "why"),
    [
        ("size=4m", r"4\.19 MB are free, 16\.8 MB are needed"),
        *[(f"size=64m,nr_inodes={n}", os.strerror(errno.ENOSPC)) for n in (1, 2, 4)],  # folder, token, Ray's own
        ("ro,size=64m", os.strerror(errno.EROFS)),
    ],
)
def test_a_full_disk_is_said(base: Path, options: str, why: str) -> None:
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(base)]
    if (done := subprocess.run(mount, capture_output=True, text=True, check=False)).returncode:
        pytest.skip(f"no mounting here: {done.stderr.strip()}")
    before = dict(os.environ)
    try:
        message = f"{base}: Ray's files cannot be written: {why}; free space there, or name another folder in RAY_TMP"
        with pytest.raises(StorageError, match=message):
            ray_session(None, debug=False).__enter__()
    finally:
        subprocess.run(["umount", "-l", str(base)], check=True)
    assert dict(os.environ) == before


def test_a_long_folder_for_temporary_files_is_not_for_sockets(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = base / "a-folder-with-a-long-name"
    long.mkdir()
    monkeypatch.setenv("RAY_TMPDIR", str(long))
    said = f"RAY_TMPDIR: {long} has {len(str(long))} bytes, and paths of Ray's sockets leave {LONGEST_BASE};"
    with pytest.raises(UsageError, match=re.escape(said)):
        ray_session(None, debug=False).__enter__()
    exact = base / ("x" * (LONGEST_BASE - len(str(base)) - 1))
    exact.mkdir()
    monkeypatch.setenv("RAY_TMPDIR", str(exact))
    with ray_session(None, debug=False):
        assert len(list(exact.iterdir())) == 1
    monkeypatch.delenv("RAY_TMPDIR")
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    with cluster_session._private_folder(keep=False) as folder:
        assert folder.parent == Path("/tmp")


def test_a_token_for_a_cluster_that_others_can_read_is_refused(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token = base / "token"
    token.write_text("b" * 64)
    token.chmod(0o644)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    open_to_others = rf"{token}: others can read this token \(mode 644\), .*; run: chmod 600 {token}"
    for where in ("127.0.0.1:9", "auto", None):
        with pytest.raises(ClusterError, match=open_to_others):
            ray_session(where, debug=False).__enter__()
    for folder, file, mode_of_ray in ((0o700, 0o644, "token"), (0o755, 0o600, "token"), (0o755, 0o644, "disabled")):
        base.chmod(folder)
        token.chmod(file)
        monkeypatch.setenv("RAY_AUTH_MODE", mode_of_ray)
        with pytest.raises(ClusterError, match=r"--address: nothing answers at 127\.0\.0\.1:9"):
            ray_session("127.0.0.1:9", debug=False).__enter__()


def test_a_session_with_a_wrong_token_does_not_join(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray tries for twenty seconds; what comes then is an error of ours, not a traceback."""
    refused = "it asks for a token, and this one is missing or wrong; check --address and RAY_AUTH_MODE, or use"
    code = (
        "import sys\nfrom tunelab.tuning.cluster_session import ray_session\n"
        "try: ray_session(sys.argv[1], debug=False).__enter__()\nexcept Exception as error: print(repr(error))"
    )
    with ray_session(None, debug=False):
        wrong = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
        said = other(code, address(), **wrong)
        assert f"ClusterError('Ray at {address()}: {refused}" in said
        home = {"RAY_AUTH_MODE": "token", "HOME": str(base), "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
        said = other(code, address(), **home)
        assert f"ClusterError('Ray at {address()}: {refused}" in said


def test_what_one_machine_can_never_give_is_refused() -> None:
    there = {"CPU": 2.0, "GPU": 1.0, "T4": 1.0}
    check_resources(2, 0.5, there, {"T4": 1.0})
    with pytest.raises(UsageError, match=r"--cpus-per-trial: a trial asks for 3 CPU, this machine has 2"):
        check_resources(3, 0, there, {})
    with pytest.raises(UsageError, match=r"resources\.custom\.A10G: a trial asks for 0\.5 A10G, this machine has 0"):
        check_resources(1, 0, there, {"A10G": 0.5})
