"""Compiled models that are kept: equal to those of a new process, given to one training at a time, and let go."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from small_models import small
from timeless import timeless

from tunelab import compiled
from tunelab.compiled import clear
from tunelab.data.dataset import Dataset
from tunelab.data.synthetic import SyntheticSettings, synthesize
from tunelab.models import FAMILIES, normalise, structure
from tunelab.training import Schedule, Training, digest, pack

pytestmark = pytest.mark.tf

CHANGED = {
    "l2": 0.003,
    "dropout": 0.4,
    "learning_rate": 0.02,
    "class_weight": 4.0,
    "batch_size": 3,
    "batch_norm_momentum": 0.7,
}
"""What may differ between two trials of one step."""


@pytest.fixture(autouse=True)
def _nothing_kept() -> Iterator[None]:
    clear()
    yield
    clear()


def data() -> Dataset:
    """24 scans of 12 to 20 traces x 64 samples."""
    return synthesize(SyntheticSettings(scans=24, traces=20, samples=64, shortest=0.6, seed=3))


def begin(params: dict[str, Any], seed: int = 1, given: Dataset | None = None) -> Training:
    return Training(params, given or data(), Schedule(max_epochs=3, patience=9, seed=seed))


def course(params: dict[str, Any], seed: int) -> dict[str, Any]:
    """All that a training comes to, as JSON."""
    one = begin(params, seed)
    told = [timeless(one.run_epoch().metrics) for _ in range(2)]
    arrays, state = one.save()
    sums = {name: digest(pack(some)) for name, some in arrays.items()}
    del state["seconds"]
    result: dict[str, Any] = json.loads(json.dumps([told, sums, state], default=float))
    return result


def changed(family: str) -> dict[str, Any]:
    """Another trial of the same structure: every number that may differ does."""
    params = small(family)
    extra = {"normalisation": "per_sample"}
    changes = {**CHANGED, "l2": {"convolution": 0.002, "rest": 0.004}} if family == "conv_rnn" else CHANGED
    if family == "conv_rnn":
        params["convolutions"][1]["dropout"] = 0.3
    return normalise({**params, **changes, **extra})


def objective(loss: str, number: float, **optimizer: Any) -> dict[str, Any]:
    """Params whose loss has this number wherever it may, which every structure here has in common."""
    wanted = {"kind": loss, "focus": 4 * number, "cross_entropy_share": number, "edge_smoothing": number / 4}
    if loss == "cross_entropy":
        wanted["edge_smoothing"] = 0.0
    return {"loss": wanted, "optimizer": optimizer}


VARIANTS = {
    "focal": (objective("focal", 0.2), objective("focal", 0.9)),
    "soft_f1": (objective("soft_f1", 0.9), objective("soft_f1", 0.2)),
    "adamw": (
        objective("cross_entropy", 0.2, kind="adamw", weight_decay=0.001, clip_norm=0.5),
        objective("cross_entropy", 0.9, kind="adamw", weight_decay=2.0, momentum=0.3, clip_norm=0.5),
    ),
    "sgd": (
        objective("focal", 0.2, kind="sgd", momentum=0.5),
        objective("focal", 0.3, kind="sgd", momentum=0.5, weight_decay=1.0)
        | {"averaging": 0.6, "rate_schedule": {"kind": "one_cycle"}},
    ),
}


PLAIN = small("simple_rnn", plain=True)


def questions() -> dict[str, tuple[dict[str, Any], int]]:
    """Params and seed of every training here that a new process has to repeat; each is of another structure."""
    return {
        **{family: (changed(family), 7) for family in FAMILIES},
        **{name: (small("simple_rnn", **after, learning_rate=0.02), 7) for name, (_, after) in VARIANTS.items()},
        "plain": ({**PLAIN, "learning_rate": 0.01}, 4),
    }


@pytest.fixture(scope="module")
def fresh() -> dict[str, Any]:
    """What these trainings come to in a process that keeps no model of their structures."""
    code = (
        "import json\n"
        "from tunelab.backend import configure\n"
        "configure(1, 0)\n"
        "from test_compiled import clear, course, questions\n"
        "told = {}\n"
        "for name, (params, seed) in questions().items():\n"
        "    told[name] = course(params, seed)\n"
        "    clear()\n"
        "print(json.dumps(told))\n"
    )
    here = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(here), str(here.parent)])}
    ended = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=600, check=True
    )
    told: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return told


def test_no_training_of_the_new_process_finds_a_model_of_another() -> None:
    kinds = [structure(params) for params, _ in questions().values()]
    assert len(set(kinds)) == len(kinds)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_trial_in_a_kept_model_equals_one_in_a_new_process(family: str, fresh: dict[str, Any]) -> None:
    params = changed(family)
    first = begin(small(family, normalisation="per_sample"))
    first.run_epoch()
    model = first.model
    del first
    gc.collect()
    second = begin(params, seed=7)
    assert second.model is model
    del second
    gc.collect()
    here = course(params, 7)
    assert here == fresh[family]
    assert here != course(params, 8)


@pytest.mark.parametrize("name", VARIANTS)
def test_a_kept_loss_and_optimizer_equal_those_of_a_new_process(name: str, fresh: dict[str, Any]) -> None:
    before, after = VARIANTS[name]
    first = begin(small("simple_rnn", **before))
    first.run_epoch()
    model = first.model
    del first
    params = small("simple_rnn", **after, learning_rate=0.02)
    second = begin(params, seed=7)
    assert second.model is model
    del second
    here = course(params, 7)
    assert here == fresh[name]
    other = {**before, "averaging": params["averaging"], "rate_schedule": params["rate_schedule"]}
    assert here != course(small("simple_rnn", **other, learning_rate=0.02), 7)


def test_a_model_is_traced_once_for_all_trials_of_its_structure(monkeypatch: pytest.MonkeyPatch) -> None:
    one = begin(small("lstm"))
    traces: list[Any] = []
    call = one.model.call

    def counted(inputs: Any, **kwargs: Any) -> Any:
        traces.append(inputs)
        return call(inputs, **kwargs)

    monkeypatch.setattr(one.model, "call", counted)
    one.run_epoch()
    assert len(traces) == 2  # training and answering
    del one
    for number in range(4):
        another = begin(small("lstm", dropout=0.1 + 0.1 * number, l2=10.0**-number, learning_rate=0.001 * (number + 1)))
        another.run_epoch()
        del another
    assert len(traces) == 2


def test_a_model_in_use_is_given_to_no_other() -> None:
    one, other = begin(small("simple_rnn")), begin(small("simple_rnn"))
    assert one.model is not other.model
    models = {id(one.model), id(other.model)}
    del one, other
    third = begin(small("simple_rnn"))
    assert id(third.model) in models


@pytest.mark.parametrize(
    "changes",
    [
        {"units": [7]},
        {"units": [6, 6]},
        {"dropout": 0.0},
        {"l2": 0.0},
        {"plain": True},
        {"normalisation": "global"},
        {"precision": "mixed_bfloat16"},
        {"loss": {"kind": "focal"}},
        {"loss": {"kind": "soft_f1"}},
        {"loss": {"edge_smoothing": 0.1}},
        {"optimizer": {"kind": "adamw"}},
        {"optimizer": {"kind": "sgd"}},
        {"optimizer": {"clip_norm": 1.0}},
    ],
    ids=str,
)
def test_another_structure_has_a_model_of_its_own(changes: dict[str, Any]) -> None:
    assert structure(small("simple_rnn", **changes)) != structure(small("simple_rnn"))


def test_what_no_model_depends_on_is_no_part_of_the_structure() -> None:
    numbers = {key: value for key, value in CHANGED.items() if key not in ("l2", "dropout")}
    other = {**numbers, "preprocessing": {"samples": 20}, "protocol": "incremental", "shard_epochs": 2}
    other |= {"averaging": 0.5, "rate_schedule": {"kind": "one_cycle"}, "augmentation": {"mirror": 0.5}}
    other |= {"loss": {"focus": 1.0, "cross_entropy_share": 0.5}, "optimizer": {"weight_decay": 0.5, "momentum": 0.1}}
    assert structure(small("simple_rnn", **other)) == structure(small("simple_rnn"))


def test_numbers_of_a_loss_or_an_optimizer_split_structures_only_where_they_must() -> None:
    def of(loss: dict[str, Any], optimizer: dict[str, Any], **more: Any) -> str:
        return structure(small("simple_rnn", loss=loss, optimizer=optimizer, **more))

    focal, soft = {"kind": "focal", "focus": 1.0}, {"kind": "soft_f1", "cross_entropy_share": 0.3}
    adamw, sgd = {"kind": "adamw"}, {"kind": "sgd"}
    assert of(focal, adamw) == of({**focal, "focus": 5.0}, {**adamw, "weight_decay": 0.3})
    assert of(soft, sgd) == of({**soft, "cross_entropy_share": 0.6, "focus": 0.0}, {**sgd, "weight_decay": 0.0})
    assert of({**soft, "edge_smoothing": 0.1}, sgd) == of({**soft, "edge_smoothing": 0.2}, sgd)
    assert of(soft, sgd) != of({**soft, "cross_entropy_share": 0.0}, sgd)
    assert of(soft, sgd) != of({**soft, "edge_smoothing": 0.1}, sgd)
    assert of(soft, sgd) != of(soft, {**sgd, "momentum": 0.5})
    assert of(soft, adamw) == of(soft, {**adamw, "momentum": 0.5})
    assert of(soft, {**adamw, "clip_norm": 1.0}) != of(soft, {**adamw, "clip_norm": 2.0})
    assert of(focal, adamw, plain=True) != of({**focal, "focus": 5.0}, adamw, plain=True)
    assert of(focal, adamw, plain=True) == of({**focal, "cross_entropy_share": 1.0}, adamw, plain=True)


def test_numbers_of_plain_layers_are_part_of_their_step(fresh: dict[str, Any]) -> None:
    plain = PLAIN
    assert structure(plain) != structure({**plain, "l2": 0.5})
    assert structure(plain) == structure({**plain, "learning_rate": 0.5, "class_weight": 3.0})
    one = begin(plain)
    one.run_epoch()
    kept = one.model
    del one
    again = begin({**plain, "learning_rate": 0.5}, seed=4)
    assert again.model is kept
    del again
    assert course(*questions()["plain"]) == fresh["plain"]


def test_constants_of_plain_layers_are_not_taken_for_those_of_another_fold() -> None:
    plain = small("simple_rnn", plain=True, normalisation="per_sample")
    scans = data()
    one = begin(plain, given=scans)
    model = one.model
    del one
    splits = list(scans.splits)
    moved = scans.with_splits(
        ["train" if split == "tune" else "tune" if split == "train" else split for split in splits]
    )
    other = begin(plain, given=moved)
    assert other.model is not model
    del other
    assert begin(plain, given=scans).model is model


def test_few_models_are_kept_and_none_that_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    def kept() -> int:
        gc.collect()
        return sum(map(len, compiled._shelf.values()))

    for units in range(3, 3 + compiled.MOST + 3):
        begin(small("simple_rnn", units=[units]))
    assert kept() == compiled.MOST
    assert structure(small("simple_rnn", units=[3])) not in "".join(compiled._shelf)
    assert structure(small("simple_rnn", units=[compiled.MOST + 5])) in "".join(compiled._shelf)
    size = compiled._size()
    monkeypatch.setattr(compiled, "MOST_BYTES", size // 2)
    begin(small("simple_rnn", units=[3]))
    assert 0 < kept() < compiled.MOST
    assert compiled._size() <= size // 2
    monkeypatch.setattr(compiled, "MOST_BYTES", 10)
    begin(small("simple_rnn", units=[4]))
    assert kept() == 0
