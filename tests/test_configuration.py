from __future__ import annotations

import pytest
import yaml

from tunelab.configuration import Configuration, load_configuration
from tunelab.errors import UsageError
from tunelab.models import normalise, starts
from tunelab.sections import DataOptions
from tunelab.space import load_space, shipped

RNN = "family: simple_rnn\nunits: [8]\ndropout: 0.1\nl2: 0.01\n"


@pytest.fixture
def load(tmp_path):
    def of(text: str) -> Configuration:
        path = tmp_path / "mine.yaml"
        path.write_text(text)
        return load_configuration(path)

    return of


@pytest.mark.parametrize("start", starts(load_space(shipped("seed.yaml"))), ids=lambda start: start[0].name)
def test_params_written_in_full_are_read_back_as_they_were(load, start):
    around = {
        "name": start[0].name,
        "epochs": {"max": 7, "patience": 3},
        "data": {"resample": 512, "split_seed": 5},
        "seed": 4_000_000_000,
        "threshold": 0.25,
    }
    found = load(yaml.safe_dump(dict(start[1]) | around))
    assert found == Configuration(
        name=start[0].name,
        params=start[1],
        max_epochs=7,
        patience=3,
        options=DataOptions(resample=512),
        split_seed=5,
        seed=4_000_000_000,
    )


def test_what_is_not_written_has_the_defaults(load):
    assert load(RNN) == Configuration(
        name="mine",
        params=normalise({"family": "simple_rnn", "units": [8], "dropout": [0.1], "l2": 0.01}),
        max_epochs=30,
        patience=10,
        options=DataOptions(),
        split_seed=0,
        seed=0,
    )


def test_the_threshold_of_a_search_is_no_part_of_it_since_training_chooses_its_own(load):
    assert load(RNN + "threshold: 0.9\n") == load(RNN) == load(RNN + "threshold: null\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (RNN + "sed: 1\n", "sed: no such key; did you mean 'seed'?"),
        (RNN + "threshhold: 1\n", "threshhold: no such key; did you mean 'threshold'?"),
        (RNN + '"\\e[31m": 1\n', r"'\x1b[31m': no such key; known are"),
        (RNN + "learning_rat: 1\n", "learning_rat: no such key; did you mean 'learning_rate'?"),
        (RNN.replace("dropout", "dropuot"), "dropuot: no such key; did you mean 'dropout'?"),
        (RNN + "epochs: {maxx: 3}\n", "epochs.maxx: no such key; did you mean 'max'?"),
        (RNN + "data: {split_sed: 3}\n", "data.split_sed: no such key; did you mean 'split_seed'?"),
        (RNN.replace("simple_rnn", "lsmt"), "family: 'lsmt' is none; did you mean 'lstm'?"),
        (RNN.replace("family: simple_rnn\n", ""), "family: missing; known are lstm, simple_rnn, dense_rnn, conv_rnn"),
        (RNN.replace("simple_rnn", "dense_rnn"), "dense: missing; write a value"),
        (RNN.replace("0.1", "[0.1, 0.2]"), "dropout has 2 items, but units has 1"),
        (RNN + "epochs: {max: 0}\n", "epochs.max: Input should be greater than or equal to 1, not 0"),
        (RNN + "epochs: 3\n", "epochs: Input should be a valid dictionary or instance of Epochs, not 3"),
        (RNN + "seed: -1\n", "seed: Input should be greater than or equal to 0, not -1"),
        (RNN + "data: {split_seed: -1}\n", "data.split_seed: Input should be greater than or equal to 0, not -1"),
        (RNN + "data: {resample: 1}\n", "data.resample: Input should be greater than or equal to 2, not 1"),
        (RNN + "learning_rate: .nan\n", "learning_rate: Input should be"),
        (RNN + "l2: 1\n", "line 5: the key 'l2' stands twice; remove one"),
        ("", "holds nothing, not a mapping of keys to values"),
    ],
)
def test_what_cannot_be_trained_is_refused_with_file_and_key(load, tmp_path, text, message):
    with pytest.raises(UsageError) as caught:
        load(text)
    assert str(caught.value).startswith(f"{tmp_path / 'mine.yaml'}: {message}")
    assert caught.value.exit_code == 2


def test_a_family_of_ones_own_may_have_any_key(load):
    found = load("family: os.path:join\nwidth: 3\nseed: 2\n")
    assert found.params["width"] == 3
    assert found.seed == 2
