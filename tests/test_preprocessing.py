"""The words of a chain: what is refused and how, which chains are equal, what they are called."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tunelab.faults import explain
from tunelab.preprocessing import Preprocessing

RAW = st.fixed_dictionaries(
    {},
    optional={
        "dewow": st.floats(0.01, 100),
        "window": st.tuples(st.floats(0, 10), st.floats(10.5, 100)).map(list),
        "samples": st.integers(2, 65_536),
        "background": st.sampled_from(["none", "scan", 3, 31]),
        "gain": st.floats(0, 10),
        "compression": st.floats(0, 1e6),
    },
)


def test_nothing_named_changes_nothing():
    chain = Preprocessing()
    assert chain.is_identity
    assert chain.describe() == "as recorded"
    assert chain.canonical() == "{}"
    assert Preprocessing(background="none", gain=0, window=None).is_identity
    assert not Preprocessing(gain=1).is_identity
    assert not Preprocessing(compression=20).is_identity


def test_a_chain_in_words():
    chain = Preprocessing(dewow=4, samples=212, background="scan", gain=1.5)
    assert chain.describe() == "dewow 4 ns, 212 samples, background scan, gain 1.5"
    chain = Preprocessing(gain=1, rate=5.25, window=(2, 30), background=31, compression=20)
    assert chain.describe() == "window 2 to 30 ns, at most 5.25 GHz, background 31 traces, gain 1, compression 20"


def test_equal_chains_have_one_canonical_form_however_they_were_written():
    one = Preprocessing.model_validate({"gain": 1, "samples": 212, "window": [0, 20]})
    other = Preprocessing.model_validate({"window": [0.0, 20.0], "background": "none", "samples": 212, "gain": 1.0})
    assert one == other
    assert hash(one) == hash(other)
    assert one.canonical() == other.canonical() == '{"gain":1.0,"samples":212,"window":[0.0,20.0]}'


@given(RAW, RAW)
def test_canonical_names_exactly_one_chain_and_leads_back_to_it(one, other):
    first, second = Preprocessing.model_validate(one), Preprocessing.model_validate(other)
    assert Preprocessing.model_validate(json.loads(first.canonical())) == first
    assert Preprocessing.model_validate(first.model_dump(mode="json")) == first
    assert (first.canonical() == second.canonical()) == (first == second)
    assert first.is_identity == (first.canonical() == "{}") == (first.describe() == "as recorded")


def test_nothing_changes_after_it_was_checked():
    with pytest.raises(ValidationError, match="frozen"):
        Preprocessing().gain = 2.0  # type: ignore[misc]


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"samples": 212, "rate": 5}, "samples 212 and rate 5 both say how far to decimate; keep one"),
        ({"window": [9, 3]}, "window starts at 9 ns and ends at 3 ns; write [start, end]"),
        ({"window": [3, 3]}, "window starts at 3 ns and ends at 3 ns; write [start, end]"),
        ({"window": [-1, 3]}, "window.0: Input should be greater than or equal to 0, not -1"),
        ({"window": [1]}, "window.1: missing; write a value"),
        ({"window": [1, 2, 3]}, "window: Tuple should have at most 2 items after validation, not 3"),
        ({"window": 20}, "window: Input should be a valid tuple, not 20"),
        ({"background": "mean"}, "background: must be none, scan, or an odd number of traces from 3, not 'mean'"),
        ({"background": 30}, "background: must be none, scan, or an odd number of traces from 3, not 30"),
        ({"background": 1}, "background: must be none, scan, or an odd number of traces from 3, not 1"),
        ({"background": True}, "background: must be none, scan, or an odd number of traces from 3, not True"),
        ({"background": 31.0}, "background: must be none, scan, or an odd number of traces from 3, not 31.0"),
        ({"background": None}, "background: must be none, scan, or an odd number of traces from 3, not None"),
        ({"dewow": 0}, "dewow: Input should be greater than 0, not 0"),
        ({"dewow": "4"}, "dewow: Input should be a valid number, not '4'"),
        ({"dewow": float("nan")}, "dewow: Input should be"),
        ({"samples": 1}, "samples: Input should be greater than or equal to 2, not 1"),
        ({"samples": 65_537}, "samples: Input should be less than or equal to 65536, not 65537"),
        ({"samples": 212.0}, "samples: Input should be a valid integer, not 212.0"),
        ({"samples": True}, "samples: Input should be a valid integer, not True"),
        ({"rate": 0}, "rate: Input should be greater than 0, not 0"),
        ({"gain": -1}, "gain: Input should be greater than or equal to 0, not -1"),
        ({"compression": -1}, "compression: Input should be greater than or equal to 0, not -1"),
        ({"gain": 11}, "gain: Input should be less than or equal to 10, not 11"),
        ({"gian": 1}, "gian: no such key; did you mean 'gain'?"),
        (None, "null is no chain; write {} for scans as recorded, not None"),
    ],
)
def test_what_is_no_chain_is_refused_with_key_value_and_rule(raw, message):
    with pytest.raises(ValidationError) as caught:
        Preprocessing.model_validate(raw)
    assert explain(caught.value, Preprocessing).startswith(message)
