"""The command line's words, exit codes and help; what the commands do is tested where they do it."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tunelab import __version__, cli
from tunelab.cli import main, parser
from tunelab.errors import (
    ClusterError,
    DataError,
    NoTrialSucceededError,
    RunBusyError,
    StateError,
    StorageError,
    TunelabError,
    UsageError,
)


def commands(found: argparse.ArgumentParser, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The words of every command, groups of commands among them."""
    for action in found._actions:
        if isinstance(action, argparse._SubParsersAction):
            for word, below in action.choices.items():
                yield (*words, word)
                yield from commands(below, (*words, word))


COMMANDS = list(commands(parser()))
GROUPS = sorted({words[:-1] for words in COMMANDS if len(words) > 1})
SINGLE = [words for words in COMMANDS if words not in GROUPS]


def test_all_commands_are_found():
    assert {("search",), ("models",), ("train",), ("data",), ("data", "synth"), ("data", "check"), ("report",)} <= set(
        COMMANDS
    )


@pytest.mark.parametrize("words", SINGLE, ids=" ".join)
def test_every_command_has_help_with_an_example_of_itself_that_is_one(words, capsys):
    with pytest.raises(SystemExit) as caught:
        main([*words, "--help"])
    assert caught.value.code == 0
    told = capsys.readouterr().out
    example = re.search(r"^example: tunelab (.+)$", told, re.MULTILINE)
    assert example, told
    asked = example[1].split()
    assert tuple(asked[: len(words)]) == words
    assert callable(parser().parse_args(asked).run)


@pytest.mark.parametrize("words", [(), *GROUPS], ids=" ".join)
def test_help_on_a_group_of_commands_names_each_with_what_it_does(words, capsys):
    with pytest.raises(SystemExit) as caught:
        main([*words, "--help"])
    assert caught.value.code == 0
    told = capsys.readouterr().out
    below = [command[-1] for command in COMMANDS if command[:-1] == words]
    assert below
    for word in below:
        assert re.search(rf"^ +{word}\s+\w.+", told, re.MULTILINE), word  # of a long one on the line below


def test_every_option_is_explained():
    def without(found: argparse.ArgumentParser) -> Iterator[str]:
        for action in found._actions:
            if isinstance(action, argparse._SubParsersAction):
                for below in action.choices.values():
                    yield from without(below)
            elif not action.help:
                yield f"{found.prog} {action.dest}"

    assert list(without(parser())) == []


@pytest.mark.parametrize("words", SINGLE, ids=" ".join)
def test_every_command_takes_debug(words, capsys):
    with pytest.raises(SystemExit):
        main([*words, "--help"])
    assert "--debug" in capsys.readouterr().out


def test_the_version(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"tunelab {__version__}\n"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["serach"], "invalid choice: 'serach'"),
        (["data"], "the following arguments are required: COMMAND"),
        (["search", "--trails", "3"], "unrecognized arguments: --trails"),
        (["search", "--trials", "three"], "argument --trials: invalid int value: 'three'"),
        (["search", "--time-budget", "soon"], "argument --time-budget: 'soon' is no time; write such as 90s, 30m or"),
        (["search", "--gpu-hours", "2h"], "argument --gpu-hours: '2h' is no number of GPU-hours; write such as 2 or"),
        (["search", "--cpus-per-trial", "0"], "argument --cpus-per-trial: 0 is not above zero"),
        (["search", "--cpus-per-trial", "nan"], "argument --cpus-per-trial: 'nan' is no number of resources"),
        (["search", "--gpus-per-trial", "-1"], "argument --gpus-per-trial: '-1' is no number of resources"),
        (["search", "--gpus-per-trial", "inf"], "argument --gpus-per-trial: 'inf' is no number of resources"),
        (["search", "--local", "--address", "auto"], "argument --address: not allowed with argument --local"),
        (["train"], "the following arguments are required: CONFIG.yaml"),
        (["models"], "the following arguments are required: SPACE.yaml"),
        (["report"], "the following arguments are required: RUN"),
        (["data", "synth"], "the following arguments are required: DIR"),
    ],
)
def test_a_wrong_option_ends_with_2_and_the_way_to_write_it(argv, message, capsys):
    with pytest.raises(SystemExit) as caught:
        main(argv)
    assert caught.value.code == 2
    told = capsys.readouterr().err
    assert told.startswith("usage: tunelab")
    assert message in told


@pytest.mark.parametrize(
    ("argv", "message", "code"),
    [
        (["search", "--trials", "0"], "--trials: 0 is less than one", 2),
        (["search", "--max-epochs", "-1"], "--max-epochs: -1 is less than one", 2),
        (["search", "--concurrent", "0"], "--concurrent: 0 is less than one", 2),
        (["search", "--seed", "-1"], "--seed: -1 is less than zero", 2),
        (["search", "--name", "../up"], "--name: '../up' must be 1 to 100 letters, digits, dots, dashes or under", 2),
        (["search", "--name", "x" * 10_000], f"--name: '{'x' * 60}' must be 1 to 100 letters", 2),
        (["search", "--name", "\x1b[31mred"], r"--name: '\x1b[31mred' must be", 2),
        (["search", "--storage", "ftp://host/x"], "--storage: ftp://host/x: write a folder or s3://bucket/prefix", 2),
        (["search", "none.yaml"], "none.yaml: cannot be read: No such file or directory; name a YAML file", 2),
        (["search", "--data", "none"], "none: no such folder; give the folder that holds labels.csv", 3),
        (["models", "none.yaml"], "none.yaml: cannot be read: No such file or directory; name a YAML file", 2),
        (["train", "none.yaml"], "none.yaml: cannot be read: No such file or directory; name a YAML file", 2),
        (["data", "check", "none"], "none: no such folder; give the folder that holds labels.csv", 3),
        (["data", "synth", "new", "--noise", "nan"], "--noise: nan is no number of decibels", 2),
        (["report", "none"], "none/run.yaml: cannot be read: No such file or directory; name the folder", 7),
    ],
)
def test_an_error_is_one_line_and_an_exit_code(argv, message, code, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(argv) == code
    told = capsys.readouterr()
    assert told.err.startswith("tunelab: ")
    assert message in told.err
    assert told.err.count("\n") == 1
    assert told.out == ""
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(TunelabError):
        main([*argv, "--debug"])


def raising(error: BaseException, debug: bool = False):
    def run(args):
        raise error

    return argparse.Namespace(run=run, debug=debug)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (TunelabError("why"), 1),
        (UsageError("why"), 2),
        (DataError("why"), 3),
        (NoTrialSucceededError("why"), 4),
        (StorageError("why"), 5),
        (RunBusyError("why"), 6),
        (StateError("why"), 7),
        (ClusterError("why"), 8),
    ],
)
def test_every_error_has_its_exit_code(error, code, monkeypatch, capsys):
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", lambda self, argv: raising(error))
    assert main([]) == code
    assert capsys.readouterr().err == "tunelab: why\n"


def test_an_unexpected_error_is_one_line_too_and_raised_under_debug(monkeypatch, capsys):
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", lambda self, argv: raising(ZeroDivisionError("by 0")))
    assert main([]) == 1
    assert capsys.readouterr().err == "tunelab: unexpected ZeroDivisionError: by 0; --debug shows where\n"
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", lambda self, argv: raising(ZeroDivisionError(), True))
    with pytest.raises(ZeroDivisionError):
        main([])


def test_ctrl_c_outside_a_search_ends_with_130(monkeypatch):
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", lambda self, argv: raising(KeyboardInterrupt()))
    assert main([]) == 130


def test_a_reader_that_leaves_early_is_no_error():
    """As ``| head`` does."""
    code = "import sys; from tunelab.cli import main; sys.exit(main(['models', 'search_spaces/seed.yaml']))"
    root = Path(cli.__file__).parents[1]
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=root
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(60) == 141


def test_a_broken_pipe_elsewhere_is_an_error(monkeypatch, capsys):
    def broken(args: argparse.Namespace) -> int:
        raise BrokenPipeError("to a bucket")

    monkeypatch.setattr(cli, "_models", broken)
    assert main(["models", "search_spaces/seed.yaml"]) == 1
    assert "unexpected BrokenPipeError: to a bucket" in capsys.readouterr().err


@pytest.mark.parametrize(
    "start", [["-m", "tunelab.search"], ["-c", "import sys; from tunelab.cli import main; sys.exit(main())", "search"]]
)
def test_both_ways_to_start_a_search_end_in_the_same_line_and_code(start, tmp_path):
    def ended(*options: str) -> subprocess.CompletedProcess[str]:
        root = Path(cli.__file__).parents[1]
        return subprocess.run(
            [sys.executable, *start, "none.yaml", *options],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(root)},
            timeout=120,
            check=False,
        )

    done = ended()
    assert done.returncode == 2
    assert done.stderr == "tunelab: none.yaml: cannot be read: No such file or directory; name a YAML file\n"
    assert done.stdout == ""
    debug = ended("--debug")
    assert debug.returncode == 1
    assert "Traceback" in debug.stderr
