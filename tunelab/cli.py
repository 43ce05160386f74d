"""The command line: ``tunelab COMMAND``, and ``python -m tunelab.search`` for the first of them.

Parses words into values, calls the rooms that do the work, and turns errors into a few lines and an exit code.
"""

from __future__ import annotations

import argparse
import os
import select
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunelab import __version__, cluster_commands, data_commands, job_commands, resume_command, run_commands
from tunelab.command import add_s3, command, dollars, hours, positive, s3_options, seconds, share
from tunelab.errors import EXIT_INTERRUPTED, EXIT_UNREAD, TunelabError, UsageError

if TYPE_CHECKING:
    from tunelab.cluster.where import Cluster

_LONGEST = 4000
"""Letters of a message."""
_OUTPUT = 1
"""Descriptor of standard output."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # of the framework's notices
    words = sys.argv[1:] if argv is None else list(argv)
    args = parser().parse_args(words)
    args.words = words[1:]
    try:
        code: int = args.run(args)
        sys.stdout.flush()
    except TunelabError as error:
        if args.debug:
            raise
        print(f"tunelab: {_inert(error)}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _unread():
            return EXIT_UNREAD
        if args.debug:
            raise
        print(f"tunelab: unexpected {type(error).__name__}: {_inert(error)}; --debug shows where", file=sys.stderr)
        return 1
    return code


def _unread() -> bool:
    """Whether nobody reads the output any more, as after ``| head``; what is left of it then goes nowhere."""
    poll = select.poll()
    poll.register(_OUTPUT, 0)  # errors are told unasked
    if unread := bool(poll.poll(0)):
        os.dup2(os.open(os.devnull, os.O_WRONLY), _OUTPUT)
    return unread


def _inert(error: Exception) -> str:
    """A message without what could steer a terminal: it may quote files that others made."""
    shown = "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in str(error))
    return shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]}..."


def parser() -> argparse.ArgumentParser:
    """The whole command line, from which docs/cli.md is made."""
    top = argparse.ArgumentParser(
        prog="tunelab", description="Hyperparameter search for Keras models on wide sequences."
    )
    top.epilog = "example: tunelab search search_spaces/families.yaml --data scans --time-budget 30m"
    top.add_argument("--version", action="version", version=f"tunelab {__version__}")
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    search = command(
        commands,
        "search",
        "search a space of models",
        "tunelab search search_spaces/families.yaml --data scans --time-budget 30m",
    )
    search.add_argument("space", nargs="?", metavar="SPACE.yaml", help="what to search (default: the quick space)")
    search.add_argument(
        "--data", metavar="PATH|s3://...", help="folder or prefix of scans (default: an embedded synthetic data set)"
    )
    search.add_argument(
        "--storage",
        metavar="DIR|s3://BUCKET/PREFIX",
        help="where runs are kept (default: runs; on a cluster provider.storage of its file)",
    )
    search.add_argument("--name", help="of the run (default: the space's name and the time)")
    search.add_argument(
        "--trials",
        type=int,
        metavar="N",
        help="how many (default: the space's, or no limit with --time-budget, --gpu-hours or --max-cost)",
    )
    search.add_argument(
        "--time-budget",
        type=seconds,
        metavar="TIME",
        help="such as 90s, 30m, 1h30m: start no trial and train no longer after it",
    )
    search.add_argument(
        "--gpu-hours",
        type=hours,
        metavar="X",
        help="of all trials together, such as 2.5: start no trial and train no longer when they are used",
    )
    search.add_argument(
        "--max-cost",
        type=dollars,
        metavar="DOLLARS",
        help="of all machines of a cluster together, by the prices of `tunelab cluster price`: as --gpu-hours",
    )
    search.add_argument("--max-epochs", type=int, metavar="N", help="epochs of a trial at most (default: the space's)")
    search.add_argument(
        "--concurrent", type=int, metavar="N", help="trials at once (default: as many as the machine carries)"
    )
    search.add_argument("--cpus-per-trial", type=positive, metavar="X", help="cores of a trial (default: the space's)")
    search.add_argument(
        "--gpus-per-trial",
        type=share,
        metavar="X",
        help="GPUs of a trial, a fraction shares one (default: one where there are any)",
    )
    search.add_argument(
        "--seed", type=int, default=0, metavar="N", help="fixes splits, proposals and trainings (default: 0)"
    )
    data_commands.add_cache(search, reading=True)
    search.add_argument(
        "--keep",
        type=int,
        default=10,
        metavar="N",
        help="keep the weights of the N best trials, and of the front (default: 10)",
    )
    search.add_argument(
        "--dry-run",
        action="store_true",
        help="say what would be done, and how long it would take by a few epochs that are timed; no run is begun",
    )
    search.add_argument(
        "--probe",
        type=seconds,
        metavar="TIME",
        help="of --dry-run: time epochs no longer than this (default: 30s)",
    )
    run_commands.add_care(search, defaults=True)
    run_commands.add_where(search)
    add_s3(search)
    search.set_defaults(run=_search)

    models = command(
        commands,
        "models",
        "list the models of a space and their sizes",
        "tunelab models search_spaces/seed.yaml --samples 10057",
    )
    models.add_argument(
        "space", metavar="SPACE.yaml", help="a line for each fixed configuration, or an example of each family"
    )
    models.add_argument(
        "--samples", type=int, default=10057, metavar="N", help="samples of a trace as recorded (default: 10057)"
    )
    models.add_argument(
        "--dt", type=positive, metavar="PS", help="picoseconds between samples, for preprocessing given in ns or GHz"
    )
    models.set_defaults(run=_models)

    train = command(
        commands, "train", "train one configuration", "tunelab train runs/quick/best_config.yaml --data scans"
    )
    train.add_argument("config", metavar="CONFIG.yaml", help="as a search exports it")
    train.add_argument("--data", metavar="PATH|s3://...", help="folder of scans (default: the embedded data set)")
    train.add_argument("--max-epochs", type=int, metavar="N", help="epochs at most (default: the configuration's)")
    train.add_argument("--output", metavar="FILE.keras", help="save the model with the weights of its best epoch")
    data_commands.add_cache(train, reading=True)
    train.set_defaults(run=_train)

    data_commands.add(commands)

    resume_command.add(commands)
    run_commands.add(commands)

    cluster_commands.add(commands)
    job_commands.add(commands)
    return top


def _search(args: argparse.Namespace) -> int:
    from tunelab.cluster.where import place

    where = place(address=args.address, local=args.local, file=args.cluster, folder=Path.cwd())
    if where.cluster is not None:
        print(f"Where: {where.why}", flush=True)
        return _hand_over(where.cluster, args)
    from tunelab.naming import LOCAL_FOLDER
    from tunelab.search import SearchOptions, search

    given = SearchOptions(
        data=args.data,
        storage=args.storage or LOCAL_FOLDER,
        name=args.name,
        trials=args.trials,
        time_budget=args.time_budget,
        gpu_hours=args.gpu_hours,
        max_cost=args.max_cost,
        max_epochs=args.max_epochs,
        concurrent=args.concurrent,
        cpus_per_trial=args.cpus_per_trial,
        gpus_per_trial=args.gpus_per_trial,
        seed=args.seed,
        address=where.address,
        where=where.why,
        cache=data_commands.cache_options(args),
        sync_every=args.sync_every,
        s3=s3_options(args),
        max_failures=args.max_failures,
        step_timeout=args.step_timeout,
        keep=args.keep,
        debug=args.debug,
    )
    if args.dry_run:
        from tunelab.dry_run import PROBE_SECONDS, plan_search

        plan_search(args.space, probe=args.probe or PROBE_SECONDS, **given)
        return 0
    if args.probe is not None:
        raise UsageError("--probe: goes with --dry-run, which is not given; add it, or leave --probe out")
    return search(args.space, **given).exit_code


def _hand_over(cluster: Cluster, args: argparse.Namespace) -> int:
    from tunelab.cluster.remote import Asked, hand_over

    if args.dry_run:
        raise UsageError(
            "--dry-run: times epochs where it is run, which is not the cluster; add --local, or leave it out"
        )
    return hand_over(
        cluster,
        Asked(
            words=args.words,
            space=args.space,
            data=args.data,
            storage=args.storage,
            name=args.name,
            gpus=args.gpus_per_trial,
            time_budget=args.time_budget,
            max_cost=args.max_cost,
        ),
    )


def _models(args: argparse.Namespace) -> int:
    from tunelab.data.preprocess import outcome
    from tunelab.data.resample import resampled_dt
    from tunelab.errors import DataError, ModelError
    from tunelab.models import build_model, check_space, cost_of, examples, open_space, outline
    from tunelab.preprocessing import chain_of

    if args.samples < 1:
        raise UsageError(f"--samples: {args.samples} is less than one")
    space = open_space(Path(args.space))
    check_space(space)
    dt = None if args.dt is None else args.dt * 1e-12

    def samples(params: Mapping[str, Any]) -> int:
        channels = max(1, len(space.data.components))
        n = space.data.resample or args.samples
        spaced = resampled_dt(dt, args.samples, n) if dt is not None else None
        return outcome(n * channels, spaced, chain_of(params), channels=channels)[0]

    for name, params in examples(space, samples):
        try:
            cost = cost_of(params, samples(params))
            if cost is not None:
                size = f"{cost.parameters:,} parameters, {cost.multiplications:,} multiplications a trace"
            else:
                # what a trace is normalised by adds no parameter, and is known once there are scans
                built = build_model({**params, "normalisation": "none"}, samples(params))
                size = f"{built.count_params():,} parameters"
        except (ModelError, DataError) as error:
            size = f"does not fit: {error}"
        print(f"{name:<12} {params['family']:<12} {outline(params)}  {size}")
    return 0


def _train(args: argparse.Namespace) -> int:
    from tunelab.configuration import load_configuration
    from tunelab.data.prepared import access_to
    from tunelab.preprocessing import chain_of
    from tunelab.progress import progress_console, shown

    configuration = load_configuration(Path(args.config))
    if args.output and not args.output.endswith(".keras"):
        raise UsageError(f"--output: {args.output}: write a file name that ends with .keras")
    if args.max_epochs is not None and args.max_epochs < 1:
        raise UsageError(f"--max-epochs: {args.max_epochs} is less than one")
    chain = chain_of(configuration.params)
    access = access_to(
        args.data,
        options=configuration.options,
        chains=(chain,),
        seed=configuration.split_seed,
        cache=data_commands.cache_options(args),
    )
    with shown(progress_console()) as progress:
        data = access.ready(progress).datasets[chain]
    from tunelab.backend import configure
    from tunelab.training import Schedule, Training

    configure(os.cpu_count() or 1, 0)
    max_epochs = args.max_epochs or configuration.max_epochs
    schedule = Schedule(max_epochs=max_epochs, patience=configuration.patience, seed=configuration.seed)
    training = Training(configuration.params, data, schedule)
    chosen = None
    while True:
        outcome = training.run_epoch()
        if outcome.failed:
            raise UsageError(f"{args.config}: {outcome.failed}; lower learning_rate")
        values = outcome.metrics
        print(
            f"epoch {outcome.epoch}: loss {values['loss']:.4f}, tune average precision "
            f"{values['tune_average_precision']:.3f}, validation F1 {values['val_f1']:.3f} at threshold "
            f"{values['threshold']:.3f}{' *' if outcome.improved else ''}",
            flush=True,
        )
        chosen = outcome if outcome.improved else chosen
        if outcome.ended:
            break
    if chosen is not None:
        part = data.part("validation")
        print(
            f"{configuration.name}: validation F1 {chosen.metrics['val_f1']:.3f} at epoch {chosen.epoch}, on "
            f"{part.n_scans} scans, {part.n_traces} traces, {part.positives} positive"
        )
    if args.output:
        training.chosen().save(args.output)
        print(f"saved {args.output}")
    return 0
