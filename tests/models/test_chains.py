"""The chains of preprocessing that a space can come to, and the spaces that are refused for theirs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from tunelab.data.preprocess import outcome
from tunelab.data.synthetic import EMBEDDED
from tunelab.errors import SpaceError
from tunelab.models import chains, check_space, locate, normalise
from tunelab.preprocessing import Preprocessing
from tunelab.space import Space, load_space, shipped

RNN = "{units: [8], dropout: 0.1, l2: 0.01}"
AS_RECORDED = Preprocessing()


def load(folder: Path, text: str) -> Space:
    path = folder / "my.yaml"
    path.write_text(text)
    found = load_space(path)
    check_space(found)
    return found


def rnn(preprocessing: str) -> str:
    return f"families:\n  simple_rnn: {{units: [8], dropout: 0.1, l2: 0.01, preprocessing: {preprocessing}}}\n"


def test_the_sixteen_are_of_scans_as_recorded():
    assert chains(load_space(shipped("seed.yaml"))) == [AS_RECORDED]


def test_the_quick_space_has_one_chain_which_the_embedded_set_holds():
    (chain,) = chains(load_space(shipped("quick.yaml")))
    assert chain.background == "scan"
    assert outcome(EMBEDDED.samples, EMBEDDED.dt, chain)[0] <= EMBEDDED.samples


def test_the_space_of_all_families_offers_few_chains_and_the_scans_as_recorded_among_them():
    offered = chains(load_space(shipped("families.yaml")))
    assert AS_RECORDED in offered
    assert Preprocessing(background="scan", gain=1.5) in offered
    assert len(offered) <= 6
    for chain in offered:  # whatever is decimated keeps what a pulse of 900 MHz holds, up to 2.8 times that
        assert chain.rate is None or chain.rate > 2 * 2.8 * 0.9


def test_whole_mappings_in_one_choice(tmp_path):
    space = load(tmp_path, rnn("{choice: [{}, {samples: 212, background: scan}, {gain: 1.5}]}"))
    assert chains(space) == [AS_RECORDED, Preprocessing(samples=212, background="scan"), Preprocessing(gain=1.5)]


def test_choices_below_the_keys_null_among_them_and_fixed_values_beside(tmp_path):
    space = load(
        tmp_path, rnn("{samples: {choice: [null, 212]}, background: {choice: [none, 31]}, gain: 1, dewow: {fixed: 4}}")
    )
    assert [chain.describe() for chain in chains(space)] == [
        "dewow 4 ns, gain 1",
        "dewow 4 ns, background 31 traces, gain 1",
        "dewow 4 ns, 212 samples, gain 1",
        "dewow 4 ns, 212 samples, background 31 traces, gain 1",
    ]


def test_choices_of_windows(tmp_path):
    space = load(tmp_path, rnn("{window: {choice: [null, [2, 20]]}}"))
    assert chains(space) == [AS_RECORDED, Preprocessing(window=(2, 20))]


def test_families_of_their_own_share_and_replace(tmp_path):
    space = load(
        tmp_path,
        f"shared: {{preprocessing: {{choice: [{{}}, {{gain: 1}}]}}}}\n"
        f"families:\n  lstm: {RNN}\n"
        "  simple_rnn: {units: [8], dropout: 0.1, l2: 0.01, preprocessing: {gain: {choice: [1, 2]}}}\n",
    )
    assert [chain.gain for chain in chains(space)] == [0, 1, 2]  # each once, in the order of the file


def test_the_scans_as_recorded_are_there_only_where_they_can_occur(tmp_path):
    space = load(tmp_path, f"shared: {{preprocessing: {{samples: 212}}}}\nfamilies:\n  lstm: {RNN}\n")
    assert chains(space) == [Preprocessing(samples=212)]


def test_configurations_to_try_first_count_without_families(tmp_path):
    text = "start_from:\n" + "".join(
        f"  - {{name: s{i}, family: lstm, units: [8], dropout: 0.1, l2: 0, preprocessing: {{{steps}}}}}\n"
        for i, steps in enumerate(["gain: 2", "", "gain: 2.0, background: none", "samples: 64"])
    )
    assert chains(load(tmp_path, text)) == [Preprocessing(gain=2), AS_RECORDED, Preprocessing(samples=64)]


def test_every_draw_is_among_the_chains_and_every_chain_is_drawn(tmp_path):
    space = load(
        tmp_path,
        "shared: {preprocessing: {samples: {choice: [64, 128]}, gain: {choice: [0, 1]}}}\n"
        f"families:\n  lstm: {RNN}\n"
        "  simple_rnn: {units: [8], dropout: 0.1, l2: 0.01, preprocessing: {choice: [{}, {background: scan}]}}\n",
    )
    rng = np.random.default_rng(0)
    drawn = {Preprocessing.model_validate(normalise(space.sample(rng))["preprocessing"]) for _ in range(300)}
    assert drawn == set(chains(space))
    assert len(chains(space)) == 6


@pytest.mark.parametrize("written", ["{}", "{samples: 212, background: scan}", "{samples: 212}"])
def test_params_in_full_are_found_again_in_a_choice_of_mappings(tmp_path, written):
    options = [{}, {"samples": 212}, {"samples": 212, "background": "scan"}]
    space = load(tmp_path, rnn("{choice: [{}, {samples: 212}, {samples: 212, background: scan}]}"))
    params = normalise({"family": "simple_rnn", "units": [8], "dropout": 0.1, "l2": 0.01} | _yaml(written))
    point = locate(space, params)
    assert point["simple_rnn.preprocessing"] == _yaml(written)["preprocessing"]
    assert point["simple_rnn.preprocessing"] in options


def _yaml(written: str) -> dict:
    return {"preprocessing": yaml.safe_load(written)}


SIXTY_FIVE = "{choice: [" + ", ".join(f"{{gain: {i / 10}}}" for i in range(65)) + "]}"
FORTY = "{choice: [" + ", ".join(f"{{gain: {i / 10}}}" for i in range(40)) + "]}"
OTHER_FORTY = FORTY.replace("{gain", "{background: scan, gain")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            rnn("{gain: {uniform: [0, 2]}}"),
            "families.simple_rnn.preprocessing.gain: uniform [0, 2] has no end of chains, each of which is computed "
            "once and kept; write choice: [...]",
        ),
        (rnn("{rate: {loguniform: [1, 20]}}"), "families.simple_rnn.preprocessing.rate: loguniform [1, 20] has no end"),
        (rnn("{samples: {int: [64, 128]}}"), "families.simple_rnn.preprocessing.samples: int [64, 128] has no end"),
        (
            f"shared: {{preprocessing: {{samples: {{log_int: [64, 128]}}}}}}\nfamilies:\n  lstm: {RNN}\n",
            "shared.preprocessing.samples: log_int [64, 128] has no end of chains",
        ),
        (
            rnn("{samples: {choice: [null, 212]}, rate: {choice: [null, 5]}}"),
            "families.simple_rnn.preprocessing: samples 212 and rate 5 both say how far to decimate; keep one",
        ),
        (
            f"shared: {{preprocessing: {{choice: [{{}}, {{background: 30}}]}}}}\nfamilies:\n  lstm: {RNN}\n",
            "shared.preprocessing.background: must be none, scan, or an odd number of traces from 3, not 30",
        ),
        (
            rnn("{sampels: 212}"),
            "families.simple_rnn.preprocessing.sampels: no such key; did you mean 'samples'?",
        ),
        (
            rnn("{choice: [null, {samples: 212}]}"),
            "families.simple_rnn.preprocessing: null is no chain; write {} for scans as recorded",
        ),
        (rnn(SIXTY_FIVE), "families.simple_rnn.preprocessing: 65 = 65 chains are more than 64; offer fewer choices"),
        (
            rnn("{samples: {choice: [2, 3, 4, 5]}, gain: {choice: [0, 1, 2, 3, 4]}, dewow: {choice: [1, 2, 3, 4]}}"),
            "families.simple_rnn.preprocessing: 4 x 5 x 4 = 80 chains are more than 64; offer fewer choices, or whole",
        ),
        (
            f"families:\n  lstm: {RNN[:-1]}, preprocessing: {FORTY}}}\n"
            f"  simple_rnn: {RNN[:-1]}, preprocessing: {OTHER_FORTY}}}\n",
            "preprocessing: 40 of lstm + 40 of simple_rnn + 0 of start_from come to 80 different chains, more than 64;",
        ),
    ],
)
def test_spaces_whose_chains_cannot_be_are_refused_with_key_and_remedy(tmp_path, text, message):
    with pytest.raises(SpaceError) as caught:
        load(tmp_path, text)
    assert str(caught.value).startswith(f"{tmp_path / 'my.yaml'}: {message}")


def test_sixty_four_are_not_too_many(tmp_path):
    text = rnn("{samples: {choice: [2, 3, 4, 5]}, gain: {choice: [0, 1, 2, 3]}, dewow: {choice: [1, 2, 3, 4]}}")
    found = chains(load(tmp_path, text))
    assert len(found) == len(set(found)) == 64


def test_a_start_outside_the_chains_of_its_family_is_refused(tmp_path):
    text = (
        rnn("{samples: {choice: [64, 128]}}")
        + "start_from:\n  - {family: simple_rnn, units: [8], dropout: 0.1, l2: 0.01"
    )
    with pytest.raises(
        SpaceError, match=r"start_from\.0 \(start1\): outside the space: preprocessing\.samples: null is not"
    ):
        load(tmp_path, text + "}\n")
    found = load(tmp_path, text + ", preprocessing: {samples: 128}}\n")
    assert [chain.samples for chain in chains(found)] == [64, 128]
