"""The sources of candidates: their names, their bits and what one of them proposes.

The numbers are those of ``rec.v1.RecallSource``; a candidate's tag has bit (1 << number) for each source
that proposed it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray


class Source(IntEnum):
    """Same numbers as the enum of the protos (a contract test compares them)."""

    VECTOR = 1
    POPULAR = 2
    FRESH = 3
    CO_CLICK = 4
    EXPLORATION = 5

    @property
    def bit(self) -> int:
        """The bit of this source in a candidate's tag."""
        return 1 << self.value

    @property
    def label(self) -> str:
        """Lower-case name, for metrics and degradations."""
        return self.name.lower()


NO_IDS: NDArray[np.uint64] = np.empty(0, np.uint64)


@dataclass(frozen=True)
class Proposal:
    """What one source proposes, best first.

    ids: [k] uint64, distinct. share: the part of the answer that the source is meant to fill, in (0, 1].
    """

    source: Source
    ids: NDArray[np.uint64]
    share: float
