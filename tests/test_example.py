"""Predictions as JSON records and back."""

import json

import pytest

from vislang.boxes import Box
from vislang.example import Prediction, prediction_from


@pytest.mark.parametrize("answer", ["red", "", None, 3, 2.5, Box(1, 2, 3, 4), ("a", "b")])
def test_a_prediction_comes_back_from_its_record(answer):
    prediction = Prediction("7", answer, ("red", ""), (0.5, 0.25), "log_likelihood", "what?")
    assert prediction_from(json.loads(json.dumps(prediction.as_record()))) == prediction
    assert prediction_from(Prediction("7", answer).as_record()) == Prediction("7", answer)
