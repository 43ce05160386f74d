"""The Ray that a search runs on: one of its own on this machine, or a running cluster."""

from __future__ import annotations

import logging
import math
import os
import socket
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tunelab.errors import ClusterError, UsageError

ANSWER_SECONDS = 5.0
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "300",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "TUNE_MAX_PENDING_TRIALS_PG": "16",
}
"""Set before Ray is imported: no usage statistics, no loggers and snapshots that nobody reads, our own
signals and our own table, and no check of metrics in raw results, since the scheduler judges the best so far, which
the driver knows."""


@contextmanager
def ray_session(address: str | None, *, debug: bool) -> Iterator[Mapping[str, float]]:
    """Connect to Ray, or start one on this machine; gives the resources that it has now.

    Args:
        address: of a running cluster (``auto``, host:port); None starts one of its own.
        debug: whether Ray may talk.

    Raises:
        ClusterError: no cluster answers at the address.
    """
    os.environ.update({name: os.environ.get(name, value) for name, value in _ENVIRONMENT.items()})
    _check_address(address)
    import ray

    options: dict[str, Any] = {"log_to_driver": debug, "logging_level": logging.INFO if debug else logging.ERROR}
    options["runtime_env"] = {"env_vars": trial_environment()}
    if address is None:
        options |= {"address": "local", "include_dashboard": False}
    else:
        options["address"] = address
    if not debug:
        logging.getLogger("ray").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Ray's notices of its own future changes
            ray.init(**options)
    except (ConnectionError, ValueError, RuntimeError) as error:
        where = address or "this machine"
        raise ClusterError(f"Ray at {where}: {error}; check --address and RAY_AUTH_MODE, or use --local") from error
    try:
        yield ray.cluster_resources()
    finally:
        ray.shutdown()


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


def check_resources(cpus: float, gpus: float, there: Mapping[str, float]) -> None:
    """Refuse on one machine what it can never give; a cluster may still grow.

    Raises:
        UsageError: says what was asked for and what there is.
    """
    for word, asked, option in (("CPU", cpus, "--cpus-per-trial"), ("GPU", gpus, "--gpus-per-trial")):
        if asked > there.get(word, 0):
            raise UsageError(
                f"{option}: a trial asks for {asked:g} {word}, this machine has {there.get(word, 0):g}; "
                "ask for less, or run on a cluster with --address"
            )


def places(cpus: float, gpus: float, there: Mapping[str, float]) -> int:
    """How many trials the resources carry at once."""
    return int(min(there["CPU"] // cpus, there["GPU"] // gpus if gpus else math.inf))
