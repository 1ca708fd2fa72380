"""When a lineage may publish that is synchronised at intervals of event time. Pure.

Monolith (Liu et al., 2022) asks how often parameters should be synchronised: here each interval is a lineage
of its own, trained on the same samples at the same moments, and only what has been published is served. An
interval ends when event time reaches its next multiple; what a delta carries then is everything since the
one before, as one.
"""

from __future__ import annotations

from services.contract.times import leaves


class Pace:
    """``published_us``: event time of what has been published so far, 0 when that is nothing."""

    def __init__(self, interval_us: int, published_us: int = 0) -> None:
        if interval_us <= 0:
            raise ValueError(f"interval_us {interval_us}: must be positive")
        self._interval_us = interval_us
        self._published_us = published_us

    def due(self, passed_us: int) -> bool:
        """Whether event time has left the interval of the last publication. The first event time given
        begins the first one; 0 is none."""
        if not self._published_us:
            self._published_us = passed_us
        return leaves(self._published_us, passed_us, self._interval_us)

    def published(self, passed_us: int) -> None:
        """A delta of everything up to ``passed_us`` is on its way."""
        self._published_us = passed_us or self._published_us
