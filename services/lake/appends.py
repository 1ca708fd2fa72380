"""When what was appended of each entity: the moments at which a state changed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from services.contract.feature_view import FeatureView
from services.contract.view_asof_order import entity_codes
from services.contract.view_log import EventLog, Labels

Ints = NDArray[np.int64]
NEVER = -(1 << 62)


class Appends:
    """Of a log."""

    def __init__(self, log: EventLog) -> None:
        self._log = log

    def before(self, view: FeatureView, labels: Labels) -> Steps:
        """The appends of each label's entity under a view, from its wall time backwards."""
        assert labels.wall_us is not None
        taken = np.flatnonzero(self._log.takes(view))
        columns = [self._log.field(name)[taken] for name in view.key]
        codes, asked = entity_codes(view.key, columns, labels)
        codes = np.broadcast_to(codes, len(taken))
        known = codes >= 0
        times, rank = np.unique(self._log.appended_us[taken][known], return_inverse=True)
        # Each moment of an entity once, ascending.
        width = len(times) + 1
        keys = np.unique(codes[known] * width + rank)
        place = np.searchsorted(keys, asked * width + np.searchsorted(times, labels.wall_us))
        return Steps(keys // width, times[keys % width] if len(keys) else keys, asked, place)


class Steps:
    """``codes``, ``times`` [m]: the moments of each entity, ascending; ``place`` [n]: where labels stand."""

    def __init__(self, codes: Ints, times: Ints, asked: Ints, place: Ints) -> None:
        self._codes, self._times = codes, times
        self._asked, self._place = asked, place

    def next_moments(self) -> Ints:
        """[n]: the append before the last one given, not there yet as of that moment; NEVER: none is left."""
        self._place = np.maximum(self._place - 1, -1)
        at = np.maximum(self._place, 0)
        if not len(self._codes):
            return np.full(len(self._asked), NEVER)
        same = (self._place >= 0) & (self._codes[at] == self._asked)
        return np.where(same, self._times[at], NEVER)
