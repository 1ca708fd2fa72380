"""Whether a full model may be tried on users at all, judged on the newest samples. Pure.

The newest rows that were served are scored anew by the candidate and compared with the scores that were
served with them, by the very same labels: a test set of another day would say how good the model was for
that day. The candidate has not learned these rows (its base ends at a cut below them). A model can also
be judged where no label is: its scores of a few fixed rows (canaries) and the size of its numbers.

| check | asks |
|---|---|
| loadable | is it the model that was registered, whole and of this shape |
| rows, positives | is there enough to judge by |
| finite | are all scores and parameters numbers |
| auc, log_loss | not worse than what was served, by more than a margin |
| calibration | does it foretell as many clicks as come |
| row_norm, dense_abs | are parameters of a size that training gives |
| canary_spread, canary_shift | do canaries get different scores, near those of the model that serves |
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from services.contract.quality import auc, calibration, log_loss, logit
from services.release.evidence import Check, failed
from services.release.settings import GateRules

Scores = NDArray[np.float32]
_ENOUGH, _BY_LABELS = {"rows", "positives"}, {"auc", "log_loss", "calibration"}


@dataclass(frozen=True)
class Judged:
    """Rows that were served: labels, the scores served with them, the candidate's scores [n], and the weight
    of each (how many rows it stands for)."""

    labels: Scores
    served: Scores
    candidate: Scores
    weights: Scores


@dataclass(frozen=True)
class Parameters:
    """Sizes of a model's numbers; NaN or infinity when there is one in it."""

    max_row_norm: float
    max_dense_abs: float


@dataclass(frozen=True)
class GateVerdict:
    """``passed`` when every check is good. ``error``: why the model could not even be loaded."""

    checks: tuple[Check, ...]
    error: str = ""

    @property
    def passed(self) -> bool:
        """Whether the model may go on."""
        return not failed(self.checks)

    @property
    def undecided(self) -> bool:
        """Whether there is too little to judge by, and nothing wrong that needs no labels to be seen."""
        bad = set(failed(self.checks))
        return bool(bad & _ENOUGH) and bad <= _ENOUGH | _BY_LABELS

    def evidence(self) -> dict[str, object]:
        """Every check with its figure and limits."""
        found = {"failed": failed(self.checks), "checks": [check.said() for check in self.checks]}
        return found | ({"error": self.error} if self.error else {})


def judge(
    rows: Judged, parameters: Parameters, canaries: Scores, canaries_served: Scores, rules: GateRules
) -> GateVerdict:
    """``canaries`` [c] are the candidate's scores of fixed rows, ``canaries_served`` those of the model that
    serves."""
    labels, served, own, weights = rows.labels, rows.served, rows.candidate, rows.weights
    finite = all(
        bool(np.isfinite(part).all())
        for part in (own, canaries, np.array([parameters.max_row_norm, parameters.max_dense_abs]))
    )
    checks = [
        Check("rows", float(len(labels)), low=rules.min_rows),
        Check("positives", float((labels > 0).sum()), low=rules.min_positives),
        Check("finite", float(finite), low=1),
        Check("row_norm", parameters.max_row_norm, high=rules.max_row_norm),
        Check("dense_abs", parameters.max_dense_abs, high=rules.max_dense_abs),
    ]
    if finite and len(labels):
        gain = log_loss(labels, own, weights) - log_loss(labels, served, weights)
        right = calibration(labels, own, weights)
        checks += [
            Check("auc", auc(labels, own), low=auc(labels, served) - rules.max_auc_loss),
            Check("log_loss", gain, high=rules.max_log_loss_gain),
            Check("calibration", right, rules.calibration_low, rules.calibration_high),
        ]
    if finite and len(canaries):
        shift = float(np.abs(logit(canaries) - logit(canaries_served)).max())
        checks += [
            Check("canary_spread", float(canaries.max() - canaries.min()), low=rules.min_canary_spread),
            Check("canary_shift", shift, high=rules.max_canary_shift),
        ]
    return GateVerdict(tuple(checks))
