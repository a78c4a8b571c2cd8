"""Predictor training stopped at every change it makes to files: the same call then gives what it would have given."""

from __future__ import annotations

import pytest
from helpers.faults import assert_any_stop_is_mended, changes, contents
from helpers.tiny_training import CONTEXT, shifted, smallest_stage, write_data

from prosparse.experiment.activation import Activation
from prosparse.experiment.measurement import Predictors
from prosparse.experiment.specifications import PredictorSpecification
from prosparse.inference.predictor_training import train as train_predictors
from prosparse.system.locking import Refused
from prosparse.training.job import StageJob
from prosparse.training.stage import train_stage

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """A checkpoint."""
    output = tmp_path_factory.mktemp("whole") / "stage"
    train_stage(StageJob(smallest_stage(), data / "tokens", data / "tokenizer", None, output))
    return output


def test_predictor_training_stopped_anywhere(data, whole, tmp_path):
    settings = Predictors(kinds=["nonzero", "svd"], rank=4, tokens=2 * CONTEXT, epochs=2, batch_size=16)
    wanted = PredictorSpecification(activation=Activation(name="relu"), settings=settings, mixture={"a": 1.0}, seed=0)
    work = lambda output: train_predictors(whole, wanted, data / "tokens", output)  # noqa: E731
    work(tmp_path / "once")
    assert not (tmp_path / "once" / "resume").exists()
    count = changes(lambda: work(tmp_path / "counted"), tmp_path)
    assert count > 20
    assert_any_stop_is_mended(tmp_path, None, work, contents(tmp_path / "once"), count)
    for message, other in {
        "specification.seed is 1, was 0": (whole, wanted.model_copy(update={"seed": 1})),
        "inputs.checkpoint.weights has other content": (shifted(whole, tmp_path / "shifted"), wanted),
    }.items():
        with pytest.raises(Refused) as error:
            train_predictors(*other, data / "tokens", tmp_path / "once")
        assert message in str(error.value)
