"""Row-wise Adagrad, compiled: one accumulator per row and group of columns (the memory that FBGEMM's
EXACT_ROWWISE_ADAGRAD keeps too). A few thousand rows of a few dozen columns are a dozen numpy calls a group,
each of which costs more than its arithmetic."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from services.contract import id_table

Floats = NDArray[np.float32]


@njit(cache=True, nogil=True)
def _learn(rows, accumulators, gradients, rates, constants):  # type: ignore[no-untyped-def]
    decay, clip, start = constants
    width = np.float32(rows.shape[1])
    for row in range(rows.shape[0]):
        moved = False
        for column in range(rows.shape[1]):
            moved |= gradients[row, column] != 0
        if not moved:
            continue
        squares = np.float32(0)
        for column in range(rows.shape[1]):
            gradients[row, column] += decay * rows[row, column]
            squares += gradients[row, column] * gradients[row, column]
        shrink = np.float32(1)
        if squares > clip * clip:
            shrink = clip / np.sqrt(squares)
        accumulators[row] += squares * shrink * shrink / width
        scale = shrink / np.sqrt(start + accumulators[row])
        for column in range(rows.shape[1]):
            rows[row, column] -= rates[column] * gradients[row, column] * scale


def learn(
    rows: Floats,
    accumulators: Floats,
    gradients: Floats,
    rates: Floats,
    *,
    decay: float,
    clip: float,
    start: float,
) -> None:
    """Moves each row of ``rows`` [n, w] that has a gradient: g + decay * row, at most ``clip`` long, by
    rate x g / sqrt(start + sum of mean squares of g), which ``accumulators`` [n] hold. ``rates`` [w]. Changes
    all three in place; views of columns are fine."""
    _learn(rows, accumulators, gradients, rates, np.array([decay, clip, start], np.float32))


def warm_up() -> None:
    """Compiles (or loads from numba's cache) what a step works with; before the first one."""
    id_table.warm_up()
    # Of views, as a step has them: numba compiles anew for arrays that are whole.
    whole = np.zeros((2, 5), np.float32)
    learn(whole[:, :2], whole[:, 2], whole[:, 3:], np.ones(2, np.float32), decay=0.0, clip=1.0, start=1.0)
