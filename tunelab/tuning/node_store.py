"""The run's folder as trials on other machines see it: through a small actor on the driver's machine.

Whatever a trial keeps goes to the driver's disk, and from there to S3 with everything else: trials need no rights on
the bucket, no shared file system, and do not notice when the bucket is away. Not used on one machine, where trials
write into the folder themselves.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from tunelab.lease import FencedStore

THREADS = 4
"""Requests that the actor serves at once; they wait for the disk."""


class NodeStore:
    """A store below a folder of the driver's machine; may be sent to any process of the cluster.

    Args:
        root: the run's folder, on the machine of the caller.
        fence: of the caller's lease on it.
    """

    def __init__(self, root: Path, fence: int) -> None:
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        options = {"num_cpus": 0, "max_concurrency": THREADS, "scheduling_strategy": here}
        self._actor: Any = ray.remote(FencedStore).options(**options).remote(root, fence)
        self._root = root

    @property
    def url(self) -> str:
        """The folder's path on the driver's machine."""
        return str(self._root)

    def put(self, key: str, data: bytes) -> None:
        """See :meth:`~tunelab.storage.Store.put`."""
        ray.get(self._actor.put.remote(key, data))

    def get(self, key: str) -> bytes:
        """See :meth:`~tunelab.storage.Store.get`."""
        return bytes(ray.get(self._actor.get.remote(key)))

    def list(self, prefix: str = "") -> list[str]:
        """See :meth:`~tunelab.storage.Store.list`."""
        return list(ray.get(self._actor.list.remote(prefix)))

    def delete(self, key: str) -> None:
        """See :meth:`~tunelab.storage.Store.delete`."""
        ray.get(self._actor.delete.remote(key))
