"""The trials that a plan leads one to expect, and what they cost; no model is built but to compare a checkpoint."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tunelab.data.synthetic import SyntheticSettings, write_folder
from tunelab.errors import SpaceError
from tunelab.expected import (
    FEWEST,
    SAMPLES,
    UNLIMITED,
    Expected,
    Sized,
    checkpoint_bytes,
    expected,
    sized,
    structures,
)
from tunelab.models import cost_of, normalise
from tunelab.search import planned
from tunelab.tuning.plan import Plan

SPACE = """
epochs: {max: 7}
shared:
  learning_rate: {loguniform: [1e-3, 1e-2]}
  dropout: {uniform: [0, 0.4]}
  l2: 1e-4
families:
  simple_rnn: {units: {choice: [[6], [8]]}}
  dense_rnn: {dense: {choice: [[6], [8, 6]]}, units: [6], l2: {loguniform: [1e-6, 1e-3]}}
start_from:
  - {name: one, family: dense_rnn, dense: [6], units: [6], learning_rate: 0.005, dropout: 0.1, l2: 1e-4}
  - {name: two, family: dense_rnn, dense: [8, 6], units: [6], learning_rate: 0.005, dropout: 0.1, l2: 1e-4}
"""


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("expected") / "scans"
    write_folder(SyntheticSettings(scans=24, traces=20, samples=64, shortest=0.6, seed=3), folder)
    return folder


@pytest.fixture
def plan(scans: Path, tmp_path: Path) -> Callable[..., Plan]:
    def make(text: str = SPACE, **given: Any) -> Plan:
        (tmp_path / "space.yaml").write_text(text)
        return planned(tmp_path / "space.yaml", 0.0, Console(file=io.StringIO()), data=scans, **given)

    return make


def by_family(found: list[Expected]) -> dict[str, Expected]:
    return {one.family: one for one in found}


def test_configurations_to_try_first_come_before_what_is_shared_evenly(plan: Callable[..., Plan]) -> None:
    found = by_family(expected(plan(trials=12)))
    assert {name: (one.trials, one.dimensions, one.max_epochs) for name, one in found.items()} == {
        "simple_rnn": (5.0, 3, 7),
        "dense_rnn": (7.0, 4, 7),
    }
    assert [name for name, _ in found["dense_rnn"].first] == ["one", "two"]
    assert all(len(one.drawn) == SAMPLES // 2 for one in found.values())
    assert sum(one.trials for one in expected(plan(trials=1))) == 1
    assert [len(one.first) for one in expected(plan(trials=1))] == [0, 1]
    assert sum(one.trials for one in expected(plan(time_budget=9.0))) == UNLIMITED


def test_a_seed_draws_the_same_again_and_another_one_others(plan: Callable[..., Plan]) -> None:
    drawn = [[one.drawn for one in expected(plan(seed=seed))] for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_fixed_configurations_are_families_without_dimensions(plan: Callable[..., Plan]) -> None:
    fixed = SPACE[: SPACE.index("shared:")] + SPACE[SPACE.index("start_from:") :]
    (one,) = expected(plan(fixed, trials=9))
    assert (one.family, one.trials, one.dimensions, one.drawn) == ("dense_rnn", 2, 0, [])


def test_shard_after_shard_a_training_has_as_many_epochs_as_shards(plan: Callable[..., Plan]) -> None:
    many = SPACE.replace("max: 7", "max: 50").replace("  l2: 1e-4\n", "  l2: 1e-4\n  protocol: incremental\n")
    made = plan(many.replace("l2: 1e-4}", "l2: 1e-4, protocol: incremental}"))
    shards = len(set(made.data.part("train").shards.tolist()))
    assert {one.max_epochs for one in expected(made)} == {min(50, shards)} != {50}


def test_of_many_families_some_are_drawn_each(plan: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunelab.expected.SAMPLES", 2)
    assert {len(one.drawn) for one in expected(plan())} == {FEWEST}


WIDE = "  conv_rnn:\n    convolutions: [{filters: 2, kernel: 65, stride: 1}]\n    reduce: flatten\n    units: [4]\n"
WIDE += "    dense: {units: 4, activation: relu}\n"


def test_what_never_fits_is_left_out_and_a_space_of_nothing_else_refused(plan: Callable[..., Plan]) -> None:
    both = SPACE.replace("families:\n", "families:\n" + WIDE)
    assert set(by_family(expected(plan(both)))) == {"simple_rnn", "dense_rnn"}
    with pytest.raises(SpaceError, match=r"100 proposals in a row do not fit the data; the last: conv.*kernel: 65"):
        expected(plan(f"shared: {{l2: 0, dropout: 0}}\nfamilies:\n{WIDE}"))


def test_sizes_are_those_of_the_models_the_cheapest_first(plan: Callable[..., Plan]) -> None:
    made = plan()
    params = [one for family in expected(made) for one in family.params]
    sizes = sized(made, params)
    assert len(sizes) == len(params)
    assert sizes == sorted(sizes, key=lambda one: one.cost.multiplications)
    assert all(one.cost == cost_of(one.params, 64) for one in sizes)


def test_a_process_meets_each_structure_once(plan: Callable[..., Plan]) -> None:
    families = expected(plan())
    assert structures(families, places=1, trials=1, seed=0) == {"dense_rnn": 1}
    assert structures(families, places=1, trials=2, seed=0) == {"dense_rnn": 2}
    assert structures(families, places=2, trials=2, seed=0) == {"dense_rnn": 2}
    assert structures(families, places=1, trials=SAMPLES, seed=0) == {"dense_rnn": 2, "simple_rnn": 2}
    assert structures(families, places=3, trials=SAMPLES, seed=0) == {"dense_rnn": 6, "simple_rnn": 6}
    few = structures(families, places=SAMPLES, trials=10, seed=0)
    assert few.total() == 10, "each has its own process"


@pytest.mark.tf
@pytest.mark.parametrize("kind", ["adam", "adamw", "sgd"])
@pytest.mark.parametrize("averaging", [0.0, 0.5])
def test_a_checkpoint_takes_about_what_was_said(plan: Callable[..., Plan], kind: str, averaging: float) -> None:
    from tunelab.checkpoint import pack_checkpoint
    from tunelab.training import Schedule, Training

    raw = {"family": "lstm", "units": [64], "l2": 0, "dropout": 0, "learning_rate": 0.001, "batch_size": 8}
    params = normalise({**raw, "optimizer": {"kind": kind}, "averaging": averaging})
    training = Training(params, plan().data, Schedule(max_epochs=3, patience=3, seed=0))
    training.run_epoch()
    cost = cost_of(params, 64)
    assert cost is not None
    size = len(pack_checkpoint(*training.save()))
    assert size == pytest.approx(checkpoint_bytes(Sized(params=params, cost=cost)), rel=0.15)
