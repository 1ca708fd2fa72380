"""What a row weighs in the loss: delayed labels and left-out negatives, corrected. Pure.

A row's loss is ``positive`` x -log p + ``negative`` x -log(1 - p). Two things bend the stream away from what
happened:

1. *Corrections* (``fnw``). The joiner said each impression as a negative first, and what was acted on again
   as a positive, so for a click probability p the stream holds 1 negative and p positives per impression.
   ``fake_negative_weights`` bends that back.
2. *Down-sampling.* Only a share r of the negatives is there. Corrected in one of two places, never both:

   - ``training``: a kept negative weighs 1/r.
   - ``serving``: it weighs 1, so what is fitted is the logit of the thinned stream, and what is served is
     that logit + ln r (odds in the thinned stream are 1/r of the true ones; King and Zeng 2001, "Logistic
     regression in rare events data", prior correction). The state holds the served logit: the loss is taken
     at ``logit + offset`` with offset = -ln r. So r travels with base and deltas without a field of its
     own, and an arm may change from one way to the other without learning anew.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainer.settings import LearningSettings


@dataclass(frozen=True)
class RowLoss:
    """Binary cross-entropy of n rows, taken at logit + ``offset``.

    ``target`` [n] in [0, 1] and ``weight`` [n] >= 0: positive = weight x target, negative = weight x
    (1 - target).
    """

    target: NDArray[np.float32]
    weight: NDArray[np.float32]
    offset: float


def row_loss(
    labels: NDArray[np.float32],
    negatives: NDArray[np.float32],
    predictions: NDArray[np.float32],
    learning: LearningSettings,
) -> RowLoss:
    """The loss of rows [n] with labels in [0, 1].

    ``negatives`` [n]: how many negatives a row stands for (``trainer.samples.Batch``). ``predictions`` [n]:
    the model's own probabilities now; only ``fnw`` looks at them.
    """
    offset = 0.0
    if learning.rate_correction == "serving":
        # Per impression a negative counts as often as it would have been kept.
        negatives = negatives * np.float32(learning.negative_rate)
        offset = -float(np.log(learning.negative_rate))
    if learning.loss == "fnw":
        positive, negative = fake_negative_weights(labels, negatives, predictions)
    else:
        positive, negative = labels, (1 - labels) * negatives
    weight = positive + negative
    target = np.divide(positive, weight, out=np.zeros_like(weight), where=weight > 0)
    return RowLoss(target, weight, offset)


def fake_negative_weights(
    labels: NDArray[np.float32], negatives: NDArray[np.float32], predictions: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Weights [n] of -log p and of -log(1 - p) in the fake negative weighted loss.

    The stream's distribution is b(y=1|x) = p / (1 + p), b(y=0|x) = 1 / (1 + p); the importance weights
    p(y|x) / b(y|x) are 1 + p for positives and (1 - p)(1 + p) for negatives, with the model's own p taken as
    a constant. Ktena et al. 2019, "Addressing delayed feedback for continuous training with neural networks
    in CTR prediction", RecSys.

    Two cases beyond the paper keep that true row by row: a correction (``negatives`` 0) brings only its
    positive side, times its label, because its negative was said before; a positive that came before any
    negative (``negatives`` > 0, label > 0) brings the fake negative that was never said as well.
    """
    positive = labels * (1 + predictions)
    negative = negatives * (1 - predictions) * (1 + predictions)
    return positive, negative
