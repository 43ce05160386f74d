"""``tunelab resume``: its options, and where it goes on. On a Ray or this machine, or handed over to a cluster."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from tunelab.command import add_s3, command, dollars, hours, positive, s3_options, seconds, share
from tunelab.run_commands import add_care, add_where

if TYPE_CHECKING:
    from tunelab.cluster.where import Cluster


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command."""
    from tunelab import data_commands

    resume = command(
        commands,
        "resume",
        "go on with a run that was interrupted or killed",
        "tunelab resume s3://bucket/runs/quick",
    )
    resume.add_argument("folder", metavar="RUN", help="a run's folder, its s3:// URL, or the name of one on a cluster")
    resume.add_argument("--space", metavar="SPACE.yaml", help="another space, or the same at another place")
    resume.add_argument("--data", metavar="PATH|s3://...", help="where the scans are now (default: where they were)")
    resume.add_argument("--seed", type=int, metavar="N", help="another seed of what is to come")
    resume.add_argument(
        "--accept-changes", action="store_true", help="go on although space, seed, epochs or backend changed"
    )
    resume.add_argument("--trials", type=int, metavar="N", help="how many, in all (default: as it was)")
    resume.add_argument(
        "--time-budget", type=seconds, metavar="TIME", help="in all, the time before included (default: as it was)"
    )
    resume.add_argument(
        "--gpu-hours",
        type=hours,
        metavar="X",
        help="of all trials together, those before included; 0: no limit any more (default: as it was)",
    )
    resume.add_argument(
        "--max-cost",
        type=dollars,
        metavar="DOLLARS",
        help="of all machines together, those before included; 0: no limit any more (default: as it was)",
    )
    resume.add_argument("--concurrent", type=int, metavar="N", help="trials at once (default: as it was)")
    resume.add_argument("--cpus-per-trial", type=positive, metavar="X", help="cores of a trial (default: as it was)")
    resume.add_argument(
        "--gpus-per-trial", type=share, metavar="X", help="GPUs of a trial, 0 for none (default: as it was)"
    )
    add_care(resume, defaults=False)
    data_commands.add_cache(resume, reading=True)
    add_where(resume)
    add_s3(resume)
    resume.set_defaults(run=_resume)


def _resume(args: argparse.Namespace) -> int:
    from tunelab.cluster.where import place
    from tunelab.resume_there import folder_here

    here = folder_here(args.folder)
    folder = Path.cwd() if here is None else None  # a cluster cannot read this machine's disk
    where = place(address=args.address, local=args.local, file=args.cluster, folder=folder)
    if where.cluster is not None:
        print(f"Where: {where.why}", flush=True)
        return _hand_over(where.cluster, args)
    from tunelab import data_commands
    from tunelab.resume import Changes, resume

    changes = Changes(
        space=args.space,
        data=args.data,
        seed=args.seed,
        trials=args.trials,
        time_budget=args.time_budget,
        gpu_hours=args.gpu_hours,
        max_cost=args.max_cost,
        concurrent=args.concurrent,
        cpus_per_trial=args.cpus_per_trial,
        gpus_per_trial=args.gpus_per_trial,
        sync_every=args.sync_every,
        max_failures=args.max_failures,
        step_timeout=args.step_timeout,
        accept=args.accept_changes,
    )
    result = resume(
        here or args.folder,
        changes=changes,
        address=where.address,
        where=where.why,
        cache=data_commands.cache_options(args),
        s3=s3_options(args),
        debug=args.debug,
    )
    return result.exit_code


def _hand_over(cluster: Cluster, args: argparse.Namespace) -> int:
    from tunelab.resume_there import Again, resume_there

    return resume_there(
        cluster,
        Again(
            words=args.words,
            run=args.folder,
            space=args.space,
            data=args.data,
            gpus=args.gpus_per_trial,
            time_budget=args.time_budget,
            max_cost=args.max_cost,
            s3=s3_options(args),
        ),
    )
