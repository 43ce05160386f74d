"""What a space may say of fidelity, what a trial's own is called, and how a share and a thinned chain are opened."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunelab.errors import SpaceError
from tunelab.fidelity import Fidelity, checked, lessened, words
from tunelab.models import chains, open_space
from tunelab.preprocessing import Preprocessing, thinned
from tunelab.space import Space

FAMILY = "families:\n  simple_rnn: {units: [8], dropout: 0.1, l2: {loguniform: [1e-6, 1e-2]}}\n"


def space(folder: Path, text: str, family: str = FAMILY) -> Space:
    path = folder / "my.yaml"
    path.write_text(text + family)
    return open_space(path)


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("", []),
        ("fidelity: epochs\n", []),
        ("fidelity: {data: [0.1, 0.3]}\n", [{"data": 0.1}, {"data": 0.3}]),
        ("fidelity: {decimation: [4, 2]}\nearly_stopping: {reduction: 2}\n", [{"decimation": 4}, {"decimation": 2}]),
    ],
)
def test_steps_lead_up_to_the_full_fidelity(tmp_path: Path, text: str, steps: list[dict[str, float]]) -> None:
    read = space(tmp_path, text)
    fidelity = read.fidelity
    assert fidelity.steps == steps
    assert fidelity.first == (steps[0] if steps else {})
    assert [fidelity.number(at) for at in (*steps, {})] == list(range(len(steps) + 1))
    assert [fidelity.above(i) for i in range(len(steps) + 1)] == [*steps, {}]
    assert fidelity.number({"data": 0.7}) is None
    assert read.over_epochs.scheduler == ("none" if steps else "halving")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fidelity: epoch\n", "fidelity: is epochs, or steps such as"),
        ("fidelity:\n", "fidelity: is epochs, or steps such as"),
        ("fidelity: {share: [0.1]}\n", "fidelity.share: no such key; known are data, decimation"),
        ("fidelity: {data: []}\n", "fidelity: data names no step; write one, or fidelity: epochs"),
        ("fidelity: {data: [0.3, 0.1]}\n", "fidelity: data: [0.3, 0.1] do not ascend"),
        ("fidelity: {data: [0.3, 0.3]}\n", "fidelity: data: [0.3, 0.3] do not ascend"),
        ("fidelity: {data: [1.0]}\n", "fidelity.data.0: Input should be less than 1, not 1.0"),
        ("fidelity: {decimation: [2, 4]}\n", "fidelity: decimation: [2, 4] do not descend"),
        ("fidelity: {decimation: [1.5]}\n", "fidelity.decimation.0: Input should be a valid integer, not 1.5"),
        ("fidelity: {data: [0.1], decimation: [2]}\n", "fidelity: data and decimation both stand there"),
        (
            "fidelity: {data: [0.1]}\nearly_stopping: {grace: 3, reduction: 2}\n",
            "early_stopping.grace: compares trials over epochs, and fidelity by steps of data",
        ),
    ],
)
def test_what_is_no_fidelity_is_refused_with_key_and_remedy(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SpaceError) as caught:
        space(tmp_path, text)
    assert str(caught.value).startswith(f"{tmp_path / 'my.yaml'}: {message}")


def test_configurations_to_try_first_alone_have_no_steps(tmp_path: Path) -> None:
    start = "start_from: [{family: simple_rnn, units: [8], dropout: 0.1, l2: 1e-5}]\n"
    with pytest.raises(SpaceError, match="fidelity: no family is searched, and configurations to try first are"):
        space(tmp_path, "fidelity: {data: [0.1]}\n", start)


def test_every_chain_of_a_family_is_thinned_for_every_step_and_no_more_than_can_be_kept(tmp_path: Path) -> None:
    family = FAMILY.replace("{units", "{preprocessing: {choice: [{}, {samples: 100}]}, units")
    text = "fidelity: {decimation: [4, 2]}\nstart_from: [{family: simple_rnn, units: [8], dropout: 0.1, l2: 1e-5}]\n"
    plain, short = Preprocessing(), Preprocessing(samples=100)
    thin = [thinned(chain, factor) for factor in (4, 2) for chain in (plain, short)]
    assert chains(space(tmp_path, text, family)) == [plain, short, *thin]
    many = FAMILY.replace("{units", f"{{preprocessing: {{samples: {{choice: {list(range(100, 130))}}}}}, units")
    with pytest.raises(
        SpaceError, match=r"30 of simple_rnn \+ 60 thinned ones \+ 0 of start_from come to 90 different"
    ):
        chains(space(tmp_path, "fidelity: {decimation: [4, 2]}\n", many))


def test_words_and_order_of_what_a_trial_was_given() -> None:
    every = [{}, {"data": 0.125}, {"data": 0.1}, {"decimation": 2}, {"decimation": 4}]
    assert [words(at) for at in every] == [
        "",
        "at 12.5 % of the data",
        "at 10 % of the data",
        "at 1/2 of the samples",
        "at 1/4 of the samples",
    ]
    assert [lessened(at) for at in every] == [1, 8, 10, 2, 4]


@pytest.mark.parametrize("raw", [None, [], {"data": 2.0}, {"data": "x"}, {"epochs": 3}, {"data": 0.1, "decimation": 2}])
def test_what_a_journal_holds_is_checked(raw: object) -> None:
    with pytest.raises(ValueError, match=r"(?i)fidelity"):
        checked(raw)
    assert checked({"decimation": 4}) == {"decimation": 4}
    assert Fidelity().steps == []
