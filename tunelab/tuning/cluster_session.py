"""The Ray that a search runs on: one of its own on this machine, or a running cluster.

One of its own is closed to everybody else: it listens on the loopback only, asks for a token made for this session, and
keeps its files in a folder that only this user can enter and that is removed at the end. What the user has set
himself of RAY_AUTH_MODE, RAY_AUTH_TOKEN and RAY_AUTH_TOKEN_PATH wins. A cluster is taken as it is.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import math
import os
import secrets
import shutil
import socket
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from tunelab.errors import ClusterError, StorageError, UsageError
from tunelab.files import size_text

ANSWER_SECONDS = 5.0
OBJECT_STORE_BYTES = 256 * 1024**2
"""Trials share small things through it. What does not fit goes to a file of the session, as Ray does it."""
ROOM_BYTES = 16 * 1024**2
"""Less than this is refused at once; Ray would say after half a minute that it timed out."""
FOLDER_PREFIX = "tunelab-ray-"
_BELOW_FOLDER = len("/ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store")
LONGEST_BASE = (103 if sys.platform == "darwin" else 107) - _BELOW_FOLDER - len(f"/{FOLDER_PREFIX}abcdefgh")
"""Characters of the folder that the session's folder is made in: the path of a socket is short."""
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_ROTATION_MAX_BYTES": str(8 * 1024**2),
    "RAY_ROTATION_BACKUP_COUNT": "1",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "300",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "TUNE_MAX_PENDING_TRIALS_PG": "16",
}
"""Set before Ray is imported: no usage statistics, no loggers and snapshots that nobody reads, our own
signals and our own table, no check of metrics in raw results, since the scheduler judges the best so far, which the
driver knows, and 32 MiB at most of what a worker process prints."""
_AUTH = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG}


@contextmanager
def ray_session(address: str | None, *, debug: bool) -> Iterator[Mapping[str, float]]:
    """Connect to Ray, or start one on this machine; gives the resources that it has now.

    The environment is afterwards as it was before.

    Args:
        address: of a running cluster (``auto``, host:port); None starts one of its own.
        debug: whether Ray may talk; the files of one of its own then stay until the next is started.

    Raises:
        ClusterError: no cluster answers or takes the token, others can read it, or a Ray is in use here already.
        StorageError: there is no room for the files of a Ray on this machine.
        UsageError: RAY_TMPDIR is too long.
    """
    _check_token_file(address)
    _check_address(address)
    if not debug:
        logging.getLogger("ray").setLevel(logging.ERROR)
        # it prints a traceback for each process that is lost, which the leaderboard tells in a line
        logging.getLogger("ray.tune.execution.tune_controller").setLevel(logging.CRITICAL)
    with ExitStack() as stack:
        settings = {name: os.environ.get(name, value) for name, value in _ENVIRONMENT.items()}
        stack.enter_context(_environment(settings, also=("PYTHONBREAKPOINT",)))  # Ray sets this one
        import ray

        if ray.is_initialized():
            raise ClusterError("this process is connected to a Ray already; call ray.shutdown() before a search")
        options: dict[str, Any] = {"log_to_driver": debug, "logging_level": logging.INFO if debug else logging.ERROR}
        options |= {"address": address or "local", "runtime_env": {"env_vars": trial_environment()}}
        folder = stack.enter_context(_private_folder(keep=debug)) if address is None else None
        try:
            if folder is not None:
                stack.enter_context(_own_token(folder))
                stack.enter_context(_loopback())
                stack.enter_context(_without_dashboard())
                # Ray opens its folder to everybody (0777), so that one is inside ours
                options |= {"include_dashboard": False, "_temp_dir": str(folder / "ray")}
                options["object_store_memory"] = OBJECT_STORE_BYTES
            stack.callback(ray.shutdown)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Ray's notices of its own future changes
                ray.init(**options)
        except Exception as error:  # Ray raises plain ones as well
            if folder is not None and getattr(error, "errno", None) in _NO_ROOM:
                raise _no_room(folder.parent, os.strerror(error.errno)) from error  # type: ignore[attr-defined]
            cause: BaseException | None = error
            while cause is not None and "auth_token" not in str(cause):  # in all that Ray says of tokens
                cause = cause.__cause__
            say = "it asks for a token, and this one is missing or wrong" if cause else str(error)
            where = f"Ray at {address or 'this machine'}"
            raise ClusterError(f"{where}: {say}; check --address and RAY_AUTH_MODE, or use --local") from error
        yield ray.cluster_resources()


def _no_room(base: Path, why: str | None) -> StorageError:
    say = f"Ray's files cannot be written: {why}; free space there, or name another folder in RAY_TMPDIR"
    return StorageError(f"{base}: {say}")


@contextmanager
def _environment(settings: Mapping[str, str], also: tuple[str, ...] = ()) -> Iterator[None]:
    """Set variables of this process, and put them and some others back as they were."""
    before = {name: os.environ.get(name) for name in (*settings, *also)}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _private_folder(*, keep: bool) -> Iterator[Path]:
    """A folder for this user alone, locked while this process lives, and removed at the end.

    Those of killed processes go first: Ray's processes end by themselves, the last after a minute; files stay.
    """
    base = _base()
    try:
        for path in sorted(base.glob(f"{FOLDER_PREFIX}*")):
            if (held := _lock(path)) is not None:
                shutil.rmtree(path, ignore_errors=True)
                os.close(held)
        if (free := shutil.disk_usage(base).free) < ROOM_BYTES:
            raise _no_room(base, f"{size_text(free)} are free, {size_text(ROOM_BYTES)} are needed")
        while True:
            folder = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX, dir=base))
            lock = _lock(folder)
            if lock is not None and folder.exists():  # another process may have taken it for one left behind
                break
    except OSError as error:
        raise _no_room(base, error.strerror) from error
    try:
        yield folder
    finally:
        if keep:
            logging.getLogger("ray").info("Ray's files stay in %s until the next search starts", folder)
        for _ in range(0 if keep else 10):  # processes that were just ended may still have made a file meanwhile
            if folder.exists():
                shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _base() -> Path:
    """Where Ray's files go: where the user says, else where temporary files go, if that is short enough.

    Raises:
        UsageError: RAY_TMPDIR is too long.
    """
    said = os.environ.get("RAY_TMPDIR")
    base = Path(said or tempfile.gettempdir()).absolute()
    if len(os.fsencode(base)) <= LONGEST_BASE:
        return base
    if said:
        rule = f"has {len(os.fsencode(base))} bytes, and paths of Ray's sockets leave {LONGEST_BASE}"
        raise UsageError(f"RAY_TMPDIR: {said} {rule}; name a shorter folder")
    return Path("/tmp")  # noqa: S108 - the folder made in it is private


def _lock(folder: Path) -> int | None:
    """Lock a folder of this user; None when it is another's, a link, gone, or locked by a process that lives."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    if os.fstat(descriptor).st_uid == os.geteuid():
        with suppress(OSError):  # held
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
    os.close(descriptor)
    return None


@contextmanager
def _own_token(folder: Path) -> Iterator[None]:
    """Let Ray ask for a token that is made for this session, unless the user has brought one or wants none.

    Ray's core keeps both, so they are read anew; the mode first, lest a thread that still runs miss the file and abort.
    """
    from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]  # not in its stub

    mode, *own = (os.environ.get(name) for name in _AUTH)
    settings = {}
    if not any(own) and (mode or "token") == "token":
        path = folder / "token"
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_hex(32))
        settings = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(path)}
    try:
        with _environment(settings, also=_AUTH):  # Ray turns the mode on by itself where it is not set
            Config.initialize("")
            AuthenticationTokenLoader.instance().reset_cache()
            yield
    finally:
        Config.initialize("")
        AuthenticationTokenLoader.instance().reset_cache()


@contextmanager
def _loopback() -> Iterator[None]:
    """Let Ray listen on the loopback only, as it does on macOS; it takes every address where the node has another.

    Its processes read the variable, this one the constant made of it when Ray was imported. Given the loopback as
    ``_node_ip_address``, Ray replaces it by the address of the network.
    """
    from ray._private import ray_constants

    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        with _environment({ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR: "0"}):
            yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


@contextmanager
def _without_dashboard() -> Iterator[None]:
    """Let Ray leave out its dashboard's servers, which it starts on every node where ``ray[default]`` is installed.

    ``include_dashboard`` leaves out the head's alone.
    """
    from ray._private import utils

    before = utils.get_dashboard_dependency_error
    utils.get_dashboard_dependency_error = lambda: ImportError("not asked for")
    try:
        yield
    finally:
        utils.get_dashboard_dependency_error = before


def _check_token_file(address: str | None) -> None:
    """Refuse, as ssh does, a token in a file that others can read, where Ray would take it from there.

    Raises:
        ClusterError: names the file and the command.
    """
    mode, token, said = (os.environ.get(name) for name in _AUTH)
    by_itself = address == "auto" or (address is None and said is not None)  # where Ray turns the mode on
    asks = (mode == "token" and (address or said)) or (mode is None and by_itself)
    path = Path(said).expanduser() if said else Path.home() / ".ray" / "auth_token"
    if not asks or token or not path.is_file():
        return
    path = path.resolve()
    if path.stat().st_mode & 0o044 and all(above.stat().st_mode & 0o011 for above in path.parents):
        raise ClusterError(
            f"{path}: others can read this token (mode {path.stat().st_mode & 0o777:o}), and whoever has it runs code "
            f"on the cluster; run: chmod 600 {path}"
        )


def _check_address(address: str | None) -> None:
    """Ray itself asks an address that nobody listens at for ten minutes; five seconds tell.

    Raises:
        ClusterError: nothing answers at HOST:PORT.
    """
    host, colon, port = (address or "").rpartition(":")
    if not colon or "/" in host or not port.isdigit():
        return  # "auto" and the like, which Ray looks up at once
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_SECONDS).close()
    except (OSError, OverflowError) as error:
        say = "start Ray there, check --address, or use --local"
        raise ClusterError(f"--address: nothing answers at {address}: {error}; {say}") from error


def trial_environment() -> dict[str, str]:
    """Environment of trial processes: TensorFlow's notices off, GPU memory taken as needed."""
    return {
        "TF_CPP_MIN_LOG_LEVEL": os.environ.get("TF_CPP_MIN_LOG_LEVEL", "3"),
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",
    }


def gpus_of_a_trial(asked: float | None, there: Mapping[str, float]) -> float:
    """What a trial asks for: what the user said, else one where Ray sees GPUs."""
    return asked if asked is not None else 1.0 if there.get("GPU", 0) >= 1 else 0.0


def check_resources(cpus: float, gpus: float, there: Mapping[str, float], custom: Mapping[str, float]) -> None:
    """Refuse on one machine what it can never give; a cluster may still grow.

    Args:
        cpus: of a trial.
        gpus: likewise.
        there: what the machine has.
        custom: other resources that a trial takes.

    Raises:
        UsageError: says what was asked for and what there is.
    """
    others = [(name, amount, f"resources.custom.{name}") for name, amount in custom.items()]
    for word, asked, option in (("CPU", cpus, "--cpus-per-trial"), ("GPU", gpus, "--gpus-per-trial"), *others):
        if asked > there.get(word, 0):
            raise UsageError(
                f"{option}: a trial asks for {asked:g} {word}, this machine has {there.get(word, 0):g}; "
                "ask for less, or run on a cluster with --address"
            )


def places(cpus: float, gpus: float, there: Mapping[str, float]) -> int:
    """How many trials the resources carry at once."""
    return int(min(there["CPU"] // cpus, there["GPU"] // gpus if gpus else math.inf))
