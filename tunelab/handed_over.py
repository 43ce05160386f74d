"""On the head of a cluster: look whether what is installed there will do, then be the command line.

    python -m tunelab.handed_over search --address auto --storage s3://bucket/runs ...

Run by the job that :mod:`tunelab.cluster.remote` hands over, in the folder that was taken along. The packages here have
to meet what tunelab needs, and where they are others than on the side that handed it over, that is told.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from tunelab.cli import main as command
from tunelab.cluster.package import HERE, SPACES
from tunelab.cluster.tensorboard_there import RUNS
from tunelab.cluster.versions import ASKED, differences, missing
from tunelab.errors import ClusterError

FOLDER = Path(RUNS).parent
"""On the head; runs are made below it, in ``runs``."""


def main(argv: Sequence[str]) -> int:
    """Check, then run the command.

    Args:
        argv: of the command line; :data:`HERE` stands before the name of the space that was taken along.
    """
    said = json.loads(os.environ.pop(ASKED, "{}"))
    if lacking := missing(said.get("needs", ())):
        what = f"the cluster lacks what tunelab needs: {'; '.join(lacking)}"
        print(f"tunelab: {what}; install it on all its machines with: ray up cluster.yaml", file=sys.stderr)
        return ClusterError.exit_code
    for line in differences(said.get("versions", {})):
        print(f"Note: {line}; the cluster's computes.", flush=True)
    taken = Path(SPACES).absolute()
    folder = FOLDER.expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)  # what was taken along is removed when no job needs it any more
    return command([str(taken / word.removeprefix(HERE)) if word.startswith(HERE) else word for word in argv])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
