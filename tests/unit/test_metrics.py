"""AUC and log loss against their definitions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.metrics import auc, log_loss


def auc_by_pairs(labels, scores):
    pairs = [
        (p, n)
        for p, lp in zip(scores, labels, strict=True)
        if lp
        for n, ln in zip(scores, labels, strict=True)
        if not ln
    ]
    return sum(1.0 if p > n else 0.5 if p == n else 0.0 for p, n in pairs) / len(pairs)


@given(st.lists(st.tuples(st.booleans(), st.sampled_from([0.1, 0.2, 0.5, 0.9])), min_size=2, max_size=40))
def test_auc_is_the_share_of_well_ordered_pairs_with_ties_at_half(rows):
    labels = np.array([float(label) for label, _ in rows])
    scores = np.array([score for _, score in rows])
    if labels.all() or not labels.any():
        assert auc(labels, scores) is None
    else:
        assert auc(labels, scores) == pytest.approx(auc_by_pairs(labels, scores))


def test_log_loss_of_a_sure_mistake_is_large_and_finite():
    assert 16 < log_loss(np.array([1.0]), np.array([0.0])) < 17


def test_log_loss_of_a_coin_is_ln_2():
    assert log_loss(np.array([0.0, 1.0]), np.array([0.5, 0.5])) == pytest.approx(np.log(2))


def test_nothing_has_no_log_loss():
    assert log_loss(np.array([]), np.array([])) is None
