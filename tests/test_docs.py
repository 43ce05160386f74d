"""The documents say what the code does: generated pages are fresh, commands parse, paths exist, examples run."""

from __future__ import annotations

import importlib.util
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from tunelab import cli
from tunelab.archive import MANIFEST
from tunelab.models import build_model, check_space, examples, open_space
from tunelab.report import FILES
from tunelab.report.front import FOLDER
from tunelab.tuning import optuna_log
from tunelab.tuning.retention import CHECKPOINTS, WEIGHTS
from tunelab.tuning.trainable import LOGS

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
PAGES = [README, ROOT / "CHANGELOG.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").glob("*.md"))]
SET_UP = "python3 -m venv .venv && .venv/bin/pip install -c constraints.txt"
COMMAND = re.compile(
    r"(?:^|[;&|'\"(])\s*(?:\w+=\S* )*(?:[\w./]*/)?(tunelab(?= )|python -m tunelab\.search\b)([^'\";&|\n]*)"
)
PATH = re.compile(
    r"(?<![\w./~-])((?:docs|tunelab|search_spaces|tests|benchmarks|\.ci)/[\w./-]*\w"
    r"|(?:[A-Z]{4,}\.md|LICENSE|constraints\.txt|cluster\.yaml|pyproject\.toml)\b)"
)


def named(pages: list[Path]) -> list:
    return [pytest.param(page, id=page.name) for page in pages]


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    spec = importlib.util.spec_from_file_location("reference", ROOT / "docs" / "reference.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def blocks(text: str, language: str | None = None) -> list[str]:
    """The fenced blocks of a page, those of one language or all."""
    found = re.findall(r"^( *)```(\w*)\n(.*?)^\1```$", text, flags=re.MULTILINE | re.DOTALL)
    return [body for _, word, body in found if language is None or word == language]


def table(text: str, heading: str) -> dict[str, str]:
    """The first two columns of the table below a heading."""
    rows = text.split(f"\n## {heading}\n")[1].split("\n## ")[0].strip().splitlines()
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows if row.startswith("|")]
    return {row[0]: row[1] for row in cells[2:]}


def parses(words: list[str]) -> bool:
    try:
        cli.parser().parse_args(words)
    except SystemExit as end:
        return end.code == 0  # --help
    return True


def commands_of(text: str) -> Iterator[str]:
    """What is given to tunelab in fenced blocks, the subcommand first."""
    for block in blocks(text):
        for line in block.replace("\\\n", " ").splitlines():
            for match in COMMAND.finditer(line):
                yield f"search {match[2]}" if match[1].endswith(".search") else match[2].strip()


def test_generated_pages_are_fresh(reference):
    for path, text in reference.pages().items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name} is stale: run python docs/reference.py"


def test_every_argument_and_command_has_a_help_text_and_an_example(reference):
    commands = dict(reference.commands(cli.parser()))
    assert "tunelab data check" in commands
    for name, parser in commands.items():
        for action in reference.arguments(parser):
            assert action.help, f"{name}: {action.option_strings or action.dest} has no help text"
        assert (parser.epilog or "").startswith(f"example: {name} "), f"{name}: no example"
        assert parses(shlex.split(parser.epilog.removeprefix("example: tunelab "))), parser.epilog


def test_every_key_of_a_space_and_of_a_family_has_a_meaning(reference):
    section = reference.spaces_section()
    rows = [row for row in section.splitlines() if row.startswith("| `")]
    assert len(rows) > 40
    assert [row for row in rows if row.endswith("|  |")] == []
    assert set(reference.MEANINGS) <= {row.split("`")[1] for row in rows}


@pytest.mark.parametrize("page", named(PAGES))
def test_commands_parse(page):
    text = page.read_text(encoding="utf-8")
    for command in commands_of(text):
        assert parses(shlex.split(command)), f"{page.name}: tunelab {command}"
    for inline in re.findall(r"(?<!`)`tunelab ([^`]+)`(?!`)", re.sub(r"```.*?```", "", text, flags=re.DOTALL)):
        words = shlex.split(inline)
        bare = not any(word.startswith("-") for word in words)  # --help would hide an unknown option
        assert parses(words) or (bare and parses([*words, "--help"])), f"{page.name}: `tunelab {inline}`"


def test_commands_are_found_and_wrong_ones_refused():
    lines = [
        ".venv/bin/tunelab data check scans --nonsense",
        "ray exec x 'cd ~/tunelab && A=1 python -m tunelab.search --local' --name tunelab y",
    ]
    found = list(commands_of("\n".join(["```", *lines, "```", ""])))
    assert found == ["data check scans --nonsense", "search  --local"]
    assert [parses(shlex.split(command)) for command in found] == [False, True]
    assert len(list(commands_of(README.read_text(encoding="utf-8")))) >= 4


@pytest.mark.parametrize("page", named(PAGES))
def test_paths_exist(page):
    text = page.read_text(encoding="utf-8")
    targets = [target.partition("#")[0] for target in re.findall(r"\]\(([^)]+)\)", text) if "://" not in target]
    for path in PATH.findall(text):
        assert (ROOT / path).exists(), f"{page.name} names {path}"
    for target in filter(None, targets):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_set_up_is_two_commands_of_one_line():
    text = README.read_text(encoding="utf-8")
    first, second = (block for block in blocks(text) if "pip install" in block)
    assert first == f"{SET_UP} . && .venv/bin/python -m tunelab.search\n"
    assert second == f"{SET_UP} -e '.[test]' && .venv/bin/python -m pytest -n 2 --dist loadfile\n"
    assert f"\n<!-- tests -->\n```\n{second}```\n" in text


def test_every_dependency_has_a_reason():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = {re.split(r"[<>=~! ;]", entry)[0] for entry in project["dependencies"]}
    reasons = table(README.read_text(encoding="utf-8"), "Dependencies")
    assert set(reasons) == needed
    assert all(reasons.values())


def test_every_exit_code_is_told(reference):
    told = table(README.read_text(encoding="utf-8"), "Exit codes")
    assert [int(code) for cell in told for code in cell.split(",")] == list(reference.exit_codes())
    assert list(reference.exit_codes()) == [*range(9), 130, 141, 143]


def test_files_of_a_run_are_told():
    cells = table(README.read_text(encoding="utf-8"), "What a run leaves")
    told = {name.strip("` ") for cell in cells for name in cell.split(",")}
    kept = {"run.yaml", "space.yaml", "journal.jsonl", MANIFEST, CHECKPOINTS, WEIGHTS, LOGS, optuna_log.FILE}
    assert told == {*kept, *FILES, f"{FOLDER}/", "tensorboard/"}


def test_example_data_set_can_be_written_and_read(tmp_path, monkeypatch, load_folder):
    (code,) = blocks((ROOT / "docs" / "data.md").read_text(encoding="utf-8"), "python")
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "docs/data.md", "exec"), {})
    dataset = load_folder(tmp_path / "scans")
    assert (dataset.n_scans, dataset.n_traces, dataset.n_samples, dataset.dt) == (8, 320, 128, 1e-10)
    assert int(dataset.labels.sum()) == 40
    traces = np.concatenate([dataset.samples.read(i) for i in range(8)])
    echo = traces[dataset.labels == 1, 60:70].mean() - traces[dataset.labels == 0, 60:70].mean()
    assert echo == pytest.approx(3, abs=0.3)


def test_example_spaces_are_valid(tmp_path, monkeypatch):
    found = yaml_examples(tmp_path, monkeypatch)
    assert set(found) == {"chains", "compare", "example", "handheld", "mine", "objectives", "steps", "varied"}
    for space in found.values():
        check_space(space)
    assert list(found["example"].families) == ["lstm", "conv_rnn"]


@pytest.mark.tf
def test_example_family_builds_and_answers(tmp_path, monkeypatch):
    space = yaml_examples(tmp_path, monkeypatch)["mine"]
    ((_, params),) = examples(space, lambda _: 24)
    model = build_model(params, 24)
    traces = np.zeros((2, 5, 24), dtype=np.float32)
    answer = np.asarray(model({"traces": traces, "lengths": np.array([5, 3], dtype=np.int32)}))
    assert answer.shape == (2, 5, 2)
    np.testing.assert_allclose(answer.sum(axis=-1), 1, rtol=1e-5)


def yaml_examples(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict:
    """The spaces of docs/spaces.md by name, the module of its example family importable."""
    text = (ROOT / "docs" / "spaces.md").read_text(encoding="utf-8")
    (code,) = blocks(text, "python")
    (folder / "mine.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(folder)
    spaces = {}
    for i, block in enumerate(blocks(text, "yaml")):
        path = folder / f"{i}.yaml"
        path.write_text(block, encoding="utf-8")
        space = open_space(path)
        spaces[space.name] = space
    return spaces
