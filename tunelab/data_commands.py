"""The commands about data sets: ``tunelab data COMMAND``."""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tunelab.command import command, seconds, size
from tunelab.errors import UsageError

if TYPE_CHECKING:
    from tunelab.data.prepared import CacheOptions, Prepared


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the commands."""
    data = commands.add_parser(
        "data",
        help="make, check and prepare data sets",
        description="Make, check and prepare data sets.",
        epilog="example: tunelab data check scans",
    )
    kinds = data.add_subparsers(required=True, metavar="COMMAND")
    synth = command(
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

    prepare = command(
        kinds,
        "prepare",
        "read, check and preprocess scans once, for all trials of this machine",
        "tunelab data prepare s3://bucket/scans --space search_spaces/families.yaml",
    )
    prepare.add_argument("source", metavar="SRC", help="folder or s3:// prefix of scans")
    prepare.add_argument(
        "dest", nargs="?", metavar="DEST", help="the cache to prepare them in (default: that of --cache)"
    )
    _add_options(prepare)
    add_cache(prepare, reading=True)
    prepare.set_defaults(run=_prepare)

    check = command(
        kinds, "check", "read a data set and say what is in it", "tunelab data check scans --plot scans.png"
    )
    check.add_argument(
        "source", metavar="PATH", help="folder or s3:// prefix of scans, or the folder of a prepared data set"
    )
    check.add_argument("--plot", metavar="FILE.png", help="draw scans with their labels")
    _add_options(check)
    add_cache(check, reading=True)
    check.set_defaults(run=_check)

    listed = command(kinds, "list", "list the prepared data sets of this machine", "tunelab data list --cache scratch")
    add_cache(listed)
    listed.set_defaults(run=_list)

    prune = command(
        kinds, "prune", "remove prepared data sets that are not in use", "tunelab data prune --older-than 30d"
    )
    prune.add_argument("names", nargs="*", metavar="NAME", help="entries, as tunelab data list names them")
    prune.add_argument("--all", action="store_true", help="every one")
    prune.add_argument("--older-than", type=seconds, metavar="TIME", help="those not used for that long, such as 30d")
    prune.add_argument(
        "--keep", type=size, metavar="SIZE", help="the longest unused, until no more than this is left, such as 50GB"
    )
    add_cache(prune)
    prune.set_defaults(run=_prune)


def add_cache(made: argparse.ArgumentParser, *, reading: bool = False) -> None:
    """Declare the options about the cache.

    Args:
        made: the command.
        reading: whether it may have to prepare scans.
    """
    made.add_argument(
        "--cache",
        metavar="DIR",
        help="where prepared data sets are kept (default: TUNELAB_CACHE, else the user's cache folder)",
    )
    if not reading:
        return
    made.add_argument("--cache-limit", type=size, metavar="SIZE", help="all of them together, such as 50GB")
    made.add_argument("--workers", type=int, metavar="N", help="processes that read scans (default: one a core)")
    made.add_argument(
        "--max-bad",
        type=int,
        default=0,
        metavar="N",
        help="scans that may be left out because they cannot be used (default: 0)",
    )


def cache_options(args: argparse.Namespace) -> CacheOptions:
    """What :func:`add_cache` declared, as given."""
    from tunelab.data.prepared import CacheOptions

    return CacheOptions(cache=args.cache, workers=args.workers, max_bad=args.max_bad, limit=args.cache_limit)


def _add_options(made: argparse.ArgumentParser) -> None:
    made.add_argument("--space", metavar="SPACE.yaml", help="take data options and preprocessing from a space")
    made.add_argument("--resample", type=int, metavar="N", help="bring every scan to N samples")
    made.add_argument("--dtype", choices=("float32", "float16"), help="how samples are stored (default: float32)")
    made.add_argument(
        "--component", action="append", metavar="RX/E", help="of gprMax files, such as rx1/Ez; several are joined"
    )
    made.add_argument(
        "--seed", type=int, metavar="N", help="of the splits (default: 0, or that of what is prepared already)"
    )


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


def _prepare(args: argparse.Namespace) -> int:
    from tunelab.data.prepare import prepare
    from tunelab.data.prepared import open_prepared
    from tunelab.progress import progress_console, shown

    if args.dest is not None and args.cache is not None:
        raise UsageError(f"DEST {args.dest} and --cache {args.cache} both say where to; give one")
    args.cache = args.dest if args.dest is not None else args.cache
    request = _access(args).request()
    with shown(progress_console()) as progress:
        places = prepare(request, progress)
    notes: dict[str, None] = {}
    for chain, path in places.items():
        dataset = open_prepared(path, request.seed)
        print(
            f"{path}: {dataset.n_scans} scans, {dataset.n_traces:,} traces of {dataset.n_samples:,} samples, "
            f"{chain.describe()}; {dataset.dealt}"
        )
        notes |= dict.fromkeys(dataset.notes)
    for note in notes:
        print(f"note: {note}")
    return 0


def _check(args: argparse.Namespace) -> int:
    from tunelab.data.check import describe
    from tunelab.data.manifest import NAME, read_manifest
    from tunelab.data.prepared import open_prepared
    from tunelab.data.shards import Sharded
    from tunelab.progress import progress_console, shown

    if args.plot and not args.plot.lower().endswith(".png"):
        raise UsageError(f"--plot: {args.plot}: write a file name that ends with .png")
    if (Path(args.source) / NAME).exists():
        entry = Path(args.source).absolute()
        odd = [f"--{name}" for name in ("space", "resample", "dtype", "component") if getattr(args, name)]
        if odd:
            raise UsageError(f"{', '.join(odd)}: {args.source} is prepared already; check the scans it was made from")
        seed = args.seed if args.seed is not None else read_manifest(entry).seed
        datasets = [open_prepared(entry, seed)]
    else:
        with shown(progress_console()) as progress:
            datasets = list(_access(args).ready(progress).datasets.values())
    for dataset in datasets:
        if isinstance(dataset.samples, Sharded):
            dataset.samples.verify()
        print(describe(dataset))
    if args.plot:
        from tunelab.data.contact_sheet import draw

        draw(datasets[0], Path(args.plot))
        print(f"drawn: {args.plot}")
    return 0


def _list(args: argparse.Namespace) -> int:
    from tunelab.data.inventory import entries
    from tunelab.files import size_text
    from tunelab.preprocessing import chain_in

    cache = _cache(args)
    there = entries(cache)
    for entry in there:
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.used))
        what = ""
        if entry.manifest is not None:
            chain = chain_in(entry.manifest.preprocessing)
            scans = len(entry.manifest.scans.scan)
            what = f"{scans} scans x {entry.manifest.samples:,} {entry.manifest.dtype}, {chain.describe()}"
            what += f": {entry.manifest.source}"
        print(f"{entry.name:<58} {size_text(entry.bytes):>9}  {entry.state:<10}  used {used}  {what}".rstrip())
    print(f"{len(there)} entries, {size_text(sum(entry.bytes for entry in there))}, in {cache}")
    return 0


def _prune(args: argparse.Namespace) -> int:
    from tunelab.data.inventory import prune
    from tunelab.files import size_text

    if not (args.names or args.all or args.older_than is not None or args.keep is not None):
        raise UsageError("data prune: say what to remove: names, --older-than, --keep or --all")
    gone = prune(_cache(args), names=args.names, everything=args.all, older_than=args.older_than, keep=args.keep)
    for entry in gone:
        print(f"removed {entry.name}, {size_text(entry.bytes)}")
    print(f"{len(gone)} removed, {size_text(sum(entry.bytes for entry in gone))} freed")
    return 0


def _cache(args: argparse.Namespace) -> Path:
    from tunelab.data.cache import default_cache

    return Path(args.cache).expanduser().absolute() if args.cache is not None else default_cache()


def _access(args: argparse.Namespace) -> Prepared:
    from tunelab.data.prepared import AS_RECORDED, prepared_from
    from tunelab.models import chains, check_space, open_space
    from tunelab.sections import DataOptions

    options, wanted = DataOptions(), [AS_RECORDED]
    if args.space is not None:
        space = open_space(Path(args.space))
        check_space(space)
        options, wanted = space.data, chains(space)
    given = {"resample": args.resample, "dtype": args.dtype, "components": tuple(args.component or ()) or None}
    return prepared_from(
        args.source,
        options=options.model_copy(update={key: value for key, value in given.items() if value is not None}),
        chains=wanted,
        seed=args.seed or 0,
        cache=cache_options(args),
    )
