"""Weights of the loss: at the true probabilities the expected gradient of the bent stream vanishes, and
nowhere else."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError

from trainer.loss import fake_negative_weights, row_loss
from trainer.settings import LearningSettings

TRUTH = np.linspace(0.01, 0.95, 40)
LOG = LearningSettings()
FNW = LearningSettings(loss="fnw")


def _served(rate: float, loss: str = "log") -> LearningSettings:
    return LearningSettings.model_validate(
        {"loss": loss, "rate_correction": "serving", "negative_rate": rate}
    )


def _gradient(learning: LearningSettings, p: NDArray, label: float, negatives: float) -> NDArray[np.float64]:
    """d loss / d logit of one kind of row at the served probability p."""
    column = np.ones(len(p), np.float32)
    loss = row_loss(label * column, negatives * column, p.astype(np.float32), learning)
    logit = np.log(p / (1 - p)) + loss.offset
    return loss.weight * (1 / (1 + np.exp(-logit)) - loss.target)


def _expected(
    learning: LearningSettings, p: NDArray, *, label: float = 1.0, early: float = 0.0, rate: float = 1.0
) -> NDArray[np.float64]:
    """Expected gradient per impression at the prediction p, where an item is acted on with TRUTH.

    A share ``early`` of the positives comes at once; the others come first as fake negatives, then again as
    corrections. A share ``rate`` of the negatives is kept, and under fnw as many of the early positives stand
    for one. The mean label is TRUTH x label.
    """
    negative = rate * (1 - early * TRUTH) * _gradient(learning, p, 0, 1 / rate)
    correction = (1 - early) * TRUTH * _gradient(learning, p, label, 0)
    first = early * TRUTH * _gradient(learning, p, label, 1)
    if learning.loss == "fnw":
        stands, not_ = _gradient(learning, p, label, 1 / rate), _gradient(learning, p, label, 0)
        first = early * TRUTH * (rate * stands + (1 - rate) * not_)
    return negative + correction + first


def test_the_weights_are_those_of_the_paper() -> None:
    p = np.array([0.2, 0.2], np.float32)
    positive, negative = fake_negative_weights(np.array([1, 0], np.float32), np.array([0, 1], np.float32), p)
    assert positive == pytest.approx([1.2, 0])
    assert negative == pytest.approx([0, 0.8 * 1.2])


@pytest.mark.parametrize("early", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("label", [1.0, 0.4])
def test_the_gradient_vanishes_at_the_true_probability(label: float, early: float) -> None:
    assert np.abs(_expected(FNW, TRUTH * label, label=label, early=early)).max() < 1e-6
    for wrong in (0.9, 1.04):
        away = _expected(FNW, TRUTH * label * wrong, label=label, early=early)
        assert (np.sign(away) == np.sign(wrong - 1)).all(), "the step does not lead to the truth"


def test_the_log_loss_pulls_down_where_positives_come_first_as_negatives() -> None:
    assert (_expected(LOG, TRUTH) > 0).all()
    biased = TRUTH / (1 + TRUTH)
    assert np.abs(_expected(LOG, biased)).max() < 1e-6


@pytest.mark.parametrize("rate", [0.1, 0.5, 1.0])
@pytest.mark.parametrize("loss", ["log", "fnw"])
def test_left_out_negatives_move_the_solution_in_neither_way(rate: float, loss: str) -> None:
    early = 1.0 if loss == "log" else 0.25
    declared = rate if loss == "fnw" else 1.0
    weighed = LearningSettings.model_validate({"loss": loss, "negative_rate": declared})
    for learning in (weighed, _served(rate, loss)):
        assert np.abs(_expected(learning, TRUTH, early=early, rate=rate)).max() < 1e-6


def test_a_stream_of_drawn_rows_has_no_gradient_at_the_truth() -> None:
    random = np.random.default_rng(3)
    p = np.repeat(random.uniform(0.02, 0.6, 50), 20_000).astype(np.float32)
    clicked = random.random(len(p)) < p
    again = p[clicked]
    labels = np.concatenate((np.zeros(len(p)), np.ones(len(again)))).astype(np.float32)
    negatives = 1 - labels
    predictions = np.concatenate((p, again))
    loss = row_loss(labels, negatives, predictions, FNW)
    gradient = loss.weight * (predictions - loss.target)
    noise = 3 * np.sqrt((gradient**2).sum())
    assert abs(gradient.sum()) < noise
    plain = row_loss(labels, negatives, predictions, LOG)
    assert (plain.weight * (predictions - plain.target)).sum() > 10 * noise


def test_rows_of_the_log_loss_weigh_as_they_always_did() -> None:
    loss = row_loss(
        np.array([0, 1, 0.25], np.float32), np.array([4, 1, 1], np.float32), np.zeros(3, np.float32), LOG
    )
    assert loss.weight.tolist() == [4, 1, 1]
    assert loss.target.tolist() == [0, 1, 0.25]
    assert loss.offset == 0


@pytest.mark.parametrize("rate", [0.0, -0.1, 1.01, float("nan"), float("inf")])
def test_a_rate_outside_0_to_1_is_refused(rate: float) -> None:
    with pytest.raises(ValidationError, match="negative_rate"):
        _served(rate)


def test_a_rate_is_never_corrected_twice() -> None:
    with pytest.raises(ValidationError, match="else the rate comes with the samples"):
        LearningSettings(negative_rate=0.1)
    assert _served(0.1).expected_rate == 0.1
    assert LOG.expected_rate is None
