"""Which ids have not been seen for too long, in event time. Pure.

A sweep runs at most once per sixteenth of the time to live, and takes at most ``sweep_rows`` ids; what is
left goes with the next one. Categories do not expire.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from services.contract.model_state import ModelState
from services.contract.model_table import TableState
from services.contract.times import MICROS
from trainer.settings import AdmissionSettings
from trainer.touched import Touched

_TABLES = ("user", "item")


class Expiry:
    """Takes expired ids out of a state and touches them, so that tombstones go out with the next delta."""

    def __init__(self, settings: AdmissionSettings) -> None:
        self._settings = settings
        self._swept_us: int | None = None
        self._more = False
        self.expired = 0

    def sweep(self, state: ModelState, touched: Touched) -> int:
        """Sweeps when it is time by the state's event clock; returns how many ids left."""
        now = state.trained_until_us
        pause = min(self._settings.ttl_s, self._settings.pending_ttl_s) * MICROS // 16
        if self._swept_us is None:
            self._swept_us = now
        if now - self._swept_us < pause and not self._more:
            return 0
        self._swept_us = now
        left = self._settings.sweep_rows
        for name in _TABLES:
            table = state.tables[name]
            rows = _oldest(*_rows(table), before=now - self._settings.ttl_s * MICROS, most=left)
            left -= len(rows)
            ids, _, last = table.pending.items()
            pending = _oldest(ids, last, before=now - self._settings.pending_ttl_s * MICROS, most=left)
            left -= len(pending)
            table.remove(rows)
            table.pending.set(pending, np.zeros(len(pending), np.uint32), np.zeros(len(pending), np.int64))
            touched.expire(name, rows, pending)
        gone = self._settings.sweep_rows - left
        self._more = left == 0
        self.expired += gone
        return gone


def _rows(table: TableState) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    ids, slots = table.ids()
    return ids, table.last_seen_us[slots]


def _oldest(
    ids: NDArray[np.uint64], last_us: NDArray[np.int64], *, before: int, most: int
) -> NDArray[np.uint64]:
    old = np.flatnonzero(last_us < before)
    if len(old) > most:
        old = old[np.argsort(last_us[old], kind="stable")[:most]]
    return ids[np.sort(old)]
