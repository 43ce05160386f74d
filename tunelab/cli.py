"""The command line: ``tunelab COMMAND``, and ``python -m tunelab.search`` for the first of them.

Parses words into values, calls the rooms that do the work, and turns errors into a few lines and an exit code.
"""

from __future__ import annotations

import argparse
import math
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from tunelab import __version__
from tunelab.errors import EXIT_INTERRUPTED, TunelabError, UsageError

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # of the framework's notices
    args = parser().parse_args(argv)
    try:
        code: int = args.run(args)
    except TunelabError as error:
        if args.debug:
            raise
        print(f"tunelab: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except Exception as error:
        if args.debug:
            raise
        print(f"tunelab: unexpected {type(error).__name__}: {error}; --debug shows where", file=sys.stderr)
        return 1
    return code


def parser() -> argparse.ArgumentParser:
    """The whole command line, from which docs/cli.md is made."""
    top = argparse.ArgumentParser(
        prog="tunelab", description="Hyperparameter search for Keras models on wide sequences."
    )
    top.epilog = "example: tunelab search search_spaces/families.yaml --data scans --time-budget 30m"
    top.add_argument("--version", action="version", version=f"tunelab {__version__}")
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    search = _command(
        commands,
        "search",
        "search a space of models",
        "tunelab search search_spaces/families.yaml --data scans --time-budget 30m",
    )
    search.add_argument("space", nargs="?", metavar="SPACE.yaml", help="what to search (default: the quick space)")
    search.add_argument("--data", metavar="PATH", help="folder of scans (default: an embedded synthetic data set)")
    search.add_argument(
        "--storage", default="runs", metavar="DIR|s3://BUCKET/PREFIX", help="where runs are kept (default: runs)"
    )
    search.add_argument("--name", help="of the run (default: the space's name and the time)")
    search.add_argument(
        "--trials", type=int, metavar="N", help="how many (default: the space's, or no limit with --time-budget)"
    )
    search.add_argument(
        "--time-budget",
        type=_seconds,
        metavar="TIME",
        help="such as 90s, 30m, 1h30m: start no trial and train no longer after it",
    )
    search.add_argument("--max-epochs", type=int, metavar="N", help="epochs of a trial at most (default: the space's)")
    search.add_argument(
        "--concurrent", type=int, metavar="N", help="trials at once (default: as many as the machine carries)"
    )
    search.add_argument("--cpus-per-trial", type=_positive, metavar="X", help="cores of a trial (default: the space's)")
    search.add_argument(
        "--gpus-per-trial",
        type=_share,
        metavar="X",
        help="GPUs of a trial, a fraction shares one (default: one where there are any)",
    )
    search.add_argument(
        "--seed", type=int, default=0, metavar="N", help="fixes splits, proposals and trainings (default: 0)"
    )
    where = search.add_mutually_exclusive_group()
    where.add_argument(
        "--address",
        metavar="ADDR",
        help="a running Ray, such as auto or HOST:PORT (default: RAY_ADDRESS, else this machine)",
    )
    where.add_argument("--local", action="store_true", help="this machine, whatever RAY_ADDRESS says")
    search.set_defaults(run=_search)

    models = _command(
        commands,
        "models",
        "list the models of a space and their sizes",
        "tunelab models search_spaces/seed.yaml --samples 10057",
    )
    models.add_argument(
        "space", metavar="SPACE.yaml", help="a line for each fixed configuration, or an example of each family"
    )
    models.add_argument("--samples", type=int, default=10057, metavar="N", help="samples of a trace (default: 10057)")
    models.set_defaults(run=_models)

    train = _command(
        commands, "train", "train one configuration", "tunelab train runs/quick/best_config.yaml --data scans"
    )
    train.add_argument("config", metavar="CONFIG.yaml", help="as a search exports it")
    train.add_argument("--data", metavar="PATH", help="folder of scans (default: the embedded data set)")
    train.add_argument("--max-epochs", type=int, metavar="N", help="epochs at most (default: the configuration's)")
    train.add_argument("--output", metavar="FILE.keras", help="save the model with the weights of its best epoch")
    train.set_defaults(run=_train)

    data = commands.add_parser(
        "data",
        help="make and check data sets",
        description="Make and check data sets.",
        epilog="example: tunelab data check scans",
    )
    kinds = data.add_subparsers(required=True, metavar="COMMAND")
    synth = _command(
        kinds,
        "synth",
        "write synthetic scans with labels",
        "tunelab data synth scans --scans 60 --traces 80 --samples 512 --seed 1 --noise 20",
    )
    synth.add_argument("folder", metavar="DIR", help="where to; must be new or empty")
    synth.add_argument("--scans", type=int, default=60, metavar="N", help="how many (default: 60)")
    synth.add_argument("--traces", type=int, default=80, metavar="T", help="traces of the longest scan (default: 80)")
    synth.add_argument("--samples", type=int, default=512, metavar="S", help="samples of a trace (default: 512)")
    synth.add_argument("--seed", type=int, default=0, metavar="K", help="fixes every byte (default: 0)")
    synth.add_argument(
        "--noise",
        type=float,
        default=20.0,
        metavar="DB",
        help="a strong target's peak over the noise, in dB (default: 20)",
    )
    synth.set_defaults(run=_synth)
    check = _command(kinds, "check", "read a data set and say what is in it", "tunelab data check scans --resample 512")
    check.add_argument("path", metavar="PATH", help="folder of scans")
    check.add_argument("--resample", type=int, metavar="N", help="bring every scan to N samples")
    check.add_argument("--seed", type=int, default=0, metavar="N", help="of the splits (default: 0)")
    check.set_defaults(run=_check)

    report = _command(commands, "report", "write a run's report again", "tunelab report runs/quick")
    report.add_argument("folder", metavar="RUN", help="a run's folder")
    report.set_defaults(run=_report)
    return top


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, what: str, example: str
) -> argparse.ArgumentParser:
    made = commands.add_parser(
        name,
        help=what,
        description=f"{what[0].upper()}{what[1:]}.",
        epilog=f"example: {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--debug", action="store_true", help="show tracebacks")
    return made


def _search(args: argparse.Namespace) -> int:
    from tunelab.search import search

    address = None if args.local else args.address or os.environ.get("RAY_ADDRESS") or None
    result = search(
        args.space,
        data=args.data,
        storage=args.storage,
        name=args.name,
        trials=args.trials,
        time_budget=args.time_budget,
        max_epochs=args.max_epochs,
        concurrent=args.concurrent,
        cpus_per_trial=args.cpus_per_trial,
        gpus_per_trial=args.gpus_per_trial,
        seed=args.seed,
        address=address,
        debug=args.debug,
    )
    return result.exit_code


def _models(args: argparse.Namespace) -> int:
    from tunelab.errors import ModelError
    from tunelab.models import build_model, check_space, examples, outline
    from tunelab.space import load_space

    if args.samples < 1:
        raise UsageError(f"--samples: {args.samples} is less than one")
    space = load_space(Path(args.space))
    check_space(space)
    for name, params in examples(space, args.samples):
        try:
            size = str(build_model(params, args.samples).count_params())
        except ModelError as error:
            size = f"does not fit: {error}"
        print(f"{name:<12} {params['family']:<12} {outline(params)}  {size}")
    return 0


def _train(args: argparse.Namespace) -> int:
    from tunelab.configuration import load_configuration
    from tunelab.search import load

    configuration = load_configuration(Path(args.config))
    if args.output and not args.output.endswith(".keras"):
        raise UsageError(f"--output: {args.output}: write a file name that ends with .keras")
    data = load(args.data, resample=configuration.resample, seed=configuration.split_seed)
    from tunelab.training import Schedule, Training, configure

    configure(os.cpu_count() or 1, 0)
    if args.max_epochs is not None and args.max_epochs < 1:
        raise UsageError(f"--max-epochs: {args.max_epochs} is less than one")
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
        training.model.set_weights(training.best_weights)
        training.model.save(args.output)
        print(f"saved {args.output}")
    return 0


def _synth(args: argparse.Namespace) -> int:
    from tunelab.data.synthetic import SyntheticSettings, write_folder

    if not math.isfinite(args.noise):
        raise UsageError(f"--noise: {args.noise} is no number of decibels")
    settings = SyntheticSettings(
        scans=args.scans, traces=args.traces, samples=args.samples, seed=args.seed, noise_db=args.noise
    )
    write_folder(settings, Path(args.folder))
    print(f"wrote {args.scans} scans to {args.folder}; look at them with: tunelab data check {args.folder}")
    return 0


def _check(args: argparse.Namespace) -> int:
    from tunelab.data.check import describe
    from tunelab.data.folder import load_folder

    print(describe(load_folder(Path(args.path), resample=args.resample, seed=args.seed)))
    return 0


def _report(args: argparse.Namespace) -> int:
    from tunelab.report import FILES, write_report

    content = write_report(Path(args.folder))
    print(content["verdict"])
    print("wrote " + ", ".join(str(Path(args.folder) / name) for name in FILES if (Path(args.folder) / name).exists()))
    return 0


def _seconds(text: str) -> float:
    parts = re.findall(r"(\d+(?:\.\d+)?)([smhd])", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise argparse.ArgumentTypeError(f"{text!r} is no time; write such as 90s, 30m or 1h30m")
    seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if seconds <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no time at all")
    return seconds


def _positive(text: str) -> float:
    if (value := _share(text)) == 0:
        raise argparse.ArgumentTypeError("0 is not above zero")
    return value


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of resources")
    return value
