"""The trainer of Keras models takes a trial as its task says, at a lower fidelity too."""

from __future__ import annotations

import numpy as np
import pytest

from tunelab.data.dataset import Dataset
from tunelab.data.generated import Generated
from tunelab.data.statistics import of_part
from tunelab.data.synthetic import embedded
from tunelab.fidelity import At
from tunelab.keras_trainer import begin
from tunelab.models import normalise
from tunelab.task import Task

pytestmark = pytest.mark.tf


@pytest.fixture(scope="module")
def scans() -> Dataset:
    return embedded()


def task(scans: Dataset, fidelity: At) -> Task:
    params = normalise({"family": "simple_rnn", "units": [3], "dropout": 0, "l2": 0, "normalisation": "per_sample"})
    return Task(
        trial="0001",
        seed=0,
        params=params,
        data=Generated(dataset=scans, chains=()),
        max_epochs=1,
        patience=1,
        cpus=1,
        gpus=0,
        debug=False,
        fidelity=fidelity,
        data_seed=5,
    )


@pytest.mark.parametrize(
    ("fidelity", "train", "samples"), [({}, 110, 160), ({"data": 0.1}, 11, 160), ({"decimation": 4}, 110, 40)]
)
def test_a_model_is_of_the_samples_and_normalised_by_the_scans_that_it_is_trained_on(
    scans: Dataset, fidelity: At, train: int, samples: int
) -> None:
    trainer = begin(task(scans, fidelity))
    training = trainer.training  # type: ignore[attr-defined]
    assert (training.train.n_scans, training.data.n_samples) == (train, samples)
    assert samples in [shape[-1] for shape in training.model.input_shape]
    assert training.tune.scans == scans.part("tune").scans
    assert training.validation.scans == scans.part("validation").scans
    if train < 110:
        own, every = of_part(training.train).mean, of_part(scans.part("train")).mean
        assert np.allclose(training.statistics.mean, own)
        assert not np.allclose(own, every)
    step, weights = trainer.step()
    assert (step.ended, step.failed) == ("epochs", "")
    assert step.outcome.metrics["tune_average_precision"] > 0
    assert weights
