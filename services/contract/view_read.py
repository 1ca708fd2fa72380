"""What packed states say at an event time: n entities at once (feature_view gives the rules)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from services.contract.feature_view import FeatureView
from services.contract.view_plan import NONE_US, STATE_VERSION, Plan, plan_of
from services.contract.view_values import Bools, Newest, Values, edge_of, finish, instant, newest_of

_REDUCE: dict[str, np.ufunc] = {"add": np.add, "min": np.minimum, "max": np.maximum, "registers": np.maximum}


def records_of(plan: Plan, values: Sequence[bytes | None]) -> NDArray:
    """[n] records of Redis values; zero (version 0) where there is none that can be read."""
    size = plan.layout.size
    nothing = bytes(size)
    joined = b"".join([nothing if one is None or len(one) != size else one for one in values])
    return np.frombuffer(joined, plan.dtype)


def read(
    view: FeatureView,
    records: NDArray,
    at_us: NDArray[np.int64],
    candidate: Mapping[str, NDArray] | None = None,
) -> Values:
    """The features of n records (``records_of``) at ``at_us`` [n]; ``candidate``: fields of the candidates,
    [n] each, for views with operands (of one record, any number). An instant view takes any records."""
    plan = plan_of(view)
    if view.kind == "instant":
        return instant(plan, at_us)
    return finish(plan, PackedWindows(plan, records, at_us), at_us, candidate or {})


class PackedWindows:
    """``Windows`` over packed states."""

    def __init__(self, plan: Plan, records: NDArray, at_us: NDArray[np.int64]) -> None:
        hop_us = plan.view.hop_us
        self._plan, self._records, self._edge = plan, records, edge_of(plan.view, at_us)
        newest_us = records["newest_us"]
        self._hop = at_us // hop_us
        # Hops from the newest tile to the request's.
        self._behind = self._hop - newest_us // hop_us
        self.missing: Bools = (
            (records["version"] != STATE_VERSION)
            | (records["fingerprint"] != plan.fingerprint)
            | (newest_us == NONE_US)
            | (self._behind < -plan.view.slack_hops)
        )
        # Index of the newest tile that counts: the request's own only when nothing overtook it.
        self._first = np.where(newest_us < self._edge, -self._behind, 1 - self._behind)

        self._totals: dict[tuple[int, int], NDArray] = {}
        self._sums: dict[int, NDArray] = {}

    def _counted(self, tiles: int, hops: int) -> Bools:
        """Which tiles [n, tiles] are in the window."""
        index = np.arange(tiles)
        counted = index >= self._first[:, None]
        return counted & (index <= (hops - self._behind)[:, None]) if hops else counted

    def total(self, slot: int, hops: int) -> NDArray:
        """As Windows."""
        found = self._totals.get((slot, hops))
        if found is None:
            added = self._plan.slots[slot].monoid == "add"
            found = self._added(slot, hops) if added else self._extreme(slot, hops)
            if not hops:
                base = self._records[f"base{slot}"][:, 0]
                found = _REDUCE[self._plan.slots[slot].monoid](found, base)
            self._totals[slot, hops] = found
        return found

    def _added(self, slot: int, hops: int) -> NDArray:
        """Of the tiles in a window, from their running sums."""
        tiles = self._plan.slots[slot].tiles
        sums = self._sums.get(slot)
        if sums is None:
            sums = np.zeros((len(self._records), tiles + 1), np.int64)
            np.cumsum(self._records[f"tiles{slot}"], axis=1, out=sums[:, 1:])
            self._sums[slot] = sums
        start = np.arange(0, sums.size, tiles + 1)
        first = np.clip(self._first, 0, tiles)
        end = np.clip(hops - self._behind + 1, first, tiles) if hops else tiles
        flat = sums.ravel()
        return flat[start + end] - flat[start + first]

    def _extreme(self, slot: int, hops: int) -> NDArray:
        spec, tiles = self._plan.slots[slot], self._records[f"tiles{slot}"]
        counted = self._counted(spec.tiles, hops)
        reduce = _REDUCE[spec.monoid].reduce
        if spec.registers:
            return reduce(np.where(counted[:, :, None], tiles, 0), axis=1)
        return reduce(np.where(counted, tiles, spec.identity), axis=1)

    def decayed(self, slot: int, hops: int, weights: NDArray[np.int64]) -> NDArray[np.int64]:
        """As Windows."""
        tiles = self._plan.slots[slot].tiles
        age = np.clip(self._behind[:, None] + np.arange(tiles), 0, hops)
        counted = np.where(self._counted(tiles, hops), self._records[f"tiles{slot}"].astype(np.int64), 0)
        return (counted * weights[age]).sum(axis=1)

    def newest(self, recent: int, hops: int, k: int) -> Newest:
        """As Windows."""
        prefix = f"recent{recent}_"
        values = {name: self._records[prefix + name] for name in self._plan.recents[recent].fields}
        since = (self._hop - hops) * self._plan.view.hop_us if hops else None
        return newest_of(self._records[prefix + "us"], values, self._edge, since, k)
