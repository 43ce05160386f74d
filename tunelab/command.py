"""What the commands of the command line share: how one is declared, and how words become numbers."""

from __future__ import annotations

import argparse
import math
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tunelab.s3 import S3Options

_TIMES = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_SIZES = {"": 1, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}


def command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, what: str, example: str
) -> argparse.ArgumentParser:
    """A command with its description and an example, and ``--debug``."""
    made = commands.add_parser(
        name,
        help=what,
        description=f"{what[0].upper()}{what[1:]}.",
        epilog=f"example: {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--debug", action="store_true", help="show tracebacks")
    return made


def add_s3(parser: argparse.ArgumentParser) -> None:
    """The options of how a bucket is asked; keys are never among them."""
    parser.add_argument(
        "--s3-endpoint", default="", metavar="URL", help="of an S3 that is not AWS's (default: AWS_ENDPOINT_URL)"
    )
    parser.add_argument(
        "--s3-sse",
        default="",
        metavar="HOW",
        help="encryption of what is written: AES256 or aws:kms (default: the bucket's)",
    )
    parser.add_argument("--s3-kms-key", default="", metavar="ID", help="key of aws:kms (default: the account's)")


def s3_options(args: argparse.Namespace) -> S3Options:
    """What the options of :func:`add_s3` say."""
    from tunelab.s3 import S3Options  # with boto3, which takes its time

    return S3Options(endpoint=args.s3_endpoint, sse=args.s3_sse, kms_key=args.s3_kms_key)


def seconds(text: str) -> float:
    """``1h30m`` -> 5400."""
    parts = re.findall(r"(\d+(?:\.\d+)?)([smhd])", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise argparse.ArgumentTypeError(f"{text!r} is no time; write such as 90s, 30m or 1h30m")
    total = sum(float(number) * _TIMES[unit] for number, unit in parts)
    if total <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no time at all")
    return total


def hours(text: str) -> float:
    """GPU-hours, zero or more."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of GPU-hours; write such as 2 or 0.5")
    return value


def dollars(text: str) -> float:
    """US dollars, zero or more."""
    try:
        value = float(text.removeprefix("$"))
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of US dollars; write such as 20 or 2.5")
    return value


def size(text: str) -> int:
    """``50GB`` -> 50,000,000,000 bytes."""
    parts = re.fullmatch(r"(\d+(?:\.\d+)?) ?([kMGT]?)B?", text)
    if not parts:
        raise argparse.ArgumentTypeError(f"{text!r} is no size; write such as 500MB or 50GB")
    return int(float(parts[1]) * _SIZES[parts[2]])


def positive(text: str) -> float:
    """A number of resources above zero."""
    if (value := share(text)) == 0:
        raise argparse.ArgumentTypeError("0 is not above zero")
    return value


def share(text: str) -> float:
    """A number of resources, zero or more."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of resources")
    return value
