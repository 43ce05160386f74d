"""Dimensions that a user's own family brings from its module."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml

from tunelab.errors import SpaceError
from tunelab.models import check_space, normalise, open_space

MODULE = """
def wide(params, n_samples):
    raise AssertionError("not built here")

wide.dimensions = {"width": {"choice": [[8], [16, 8]]}, "l2": {"loguniform": [1e-6, 1e-3]}, "depth": 2}

def bare(params, n_samples):
    raise AssertionError("not built here")

def listed(params, n_samples):
    raise AssertionError("not built here")

listed.dimensions = ["width"]

def odd(params, n_samples):
    raise AssertionError("not built here")

odd.dimensions = {"width": {1, 2}}

def wrong(params, n_samples):
    raise AssertionError("not built here")

wrong.dimensions = {"width": {"uniform": [3, 1]}}
"""


@pytest.fixture
def space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "brought.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path / "space.yaml"
    sys.modules.pop("brought", None)


def test_a_family_without_dimensions_brings_its_own(space: Path) -> None:
    space.write_text("shared: {learning_rate: {loguniform: [1e-4, 1e-2]}, depth: 5}\nfamilies:\n  brought:wide:\n")
    opened = open_space(space)
    check_space(opened)
    assert opened.columns() == ["learning_rate", "width", "l2"]
    drawn = normalise(opened.sample(np.random.default_rng(0)))
    assert drawn["width"] in ([8], [16, 8])
    assert drawn["depth"] == 2  # its own goes before the shared one


def test_a_run_keeps_the_dimensions_with_which_it_began(space: Path) -> None:
    space.write_text("families: {'brought:wide': null}")
    document = open_space(space).document
    copy = space.parent / "copy.yaml"
    copy.write_text(yaml.safe_dump(dict(document)))
    sys.modules.pop("brought")
    (space.parent / "brought.py").write_text(MODULE.replace("[16, 8]", "[32]"))
    assert open_space(copy).families == open_space(copy).families
    assert [8] in open_space(copy).families["brought:wide"].children["width"].options  # type: ignore[union-attr]
    assert [32] not in open_space(copy).families["brought:wide"].children["width"].options  # type: ignore[union-attr]


def test_what_the_space_says_takes_their_place(space: Path) -> None:
    space.write_text("families: {'brought:wide': {width: [4], l2: {choice: [0, 1]}}}")
    assert open_space(space).columns() == ["l2"]


@pytest.mark.parametrize(
    ("family", "message"),
    [
        ("birnn", "families.birnn: has no dimensions; write them below it, as search_spaces/families.yaml does"),
        ("brought:bare", "nothing stands below it, and bare has no dimensions; write them below it, or set bare.dimen"),
        ("brought:listed", "listed has dimensions that are no dict but ['width']; write them below it"),
        ("brought:odd", "families.brought:odd: odd.dimensions: Object of type set is not JSON serializable; use what"),
        ("brought:wrong", "families.brought:wrong.width: low 3 is not below high 1"),
        ("brought:none", "module 'brought' has no attribute 'none'; put the module on PYTHONPATH"),
        ("brougth", "family: 'brougth' is none"),
    ],
)
def test_what_cannot_be_brought_is_refused_with_its_place(space: Path, family: str, message: str) -> None:
    space.write_text(f"families: {{'{family}': null}}")
    with pytest.raises(SpaceError) as caught:
        open_space(space)
    assert message in str(caught.value)
    assert str(space) in str(caught.value)
