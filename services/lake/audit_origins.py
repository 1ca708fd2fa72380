"""What a served state held, when no one moment explains it: each origin partition up to a place of its own.

The split reads its partitions side by side, so a state may have an event of one of them and not yet a
somewhat older one of another. What is always so: of each origin it holds a beginning. Looked for is a set of
events like that at which the log says what was served. Sets are tried from the newest on: everything up to
some append, and of the next few records any that could have come before it.

Which set it was is guessed by the fold, a few events at a time; whether it explains the row, the as-of join
says, as of any other row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from services.contract.feature_events import PARTS_PER_RECORD
from services.contract.feature_view import FeatureView
from services.contract.view_asof import asof
from services.contract.view_asof_order import entity_codes
from services.contract.view_events import Event
from services.contract.view_init import initial_states
from services.contract.view_log import EventLog, Labels
from services.contract.view_plan import Plan, plan_of
from services.contract.view_read import read, records_of
from services.contract.view_state import ViewState

Ints = NDArray[np.int64]
# Records of one entity that a state may be behind, how many of the next ones may have come early, and around
# how many appends that is tried.
MAX_RECORDS, EARLY, NEAREST = 256, 6, 3
# Rows of a view in one audit, tens of milliseconds each; more are left as they are.
MAX_ROWS = 1_000
_NEVER = 1 << 62


@dataclass(frozen=True)
class Cut:
    """``values``, ``missing`` of the row at a set that explains it; how old the oldest event left out is."""

    values: NDArray[np.float32]
    missing: bool
    behind_us: int


class Origins:
    """Of one view and the rows ``labels`` that will be asked about."""

    def __init__(self, view: FeatureView, log: EventLog, labels: Labels) -> None:
        taken = np.flatnonzero(log.takes(view))
        codes, self._asked = entity_codes(view.key, [log.field(name)[taken] for name in view.key], labels)
        codes = np.broadcast_to(codes, len(taken))
        order = np.argsort(codes, kind="stable")
        self._view, self._log, self._labels = view, log, labels
        self._codes, self._rows = codes[order], taken[order]

    def explain(
        self, row: int, served: NDArray[np.float32], indices: list[int], max_lag_us: int
    ) -> Cut | None:
        """A set at which features ``indices`` say ``served``; None when there is none."""
        label = self._labels.take(np.array([row]))
        assert label.wall_us is not None
        wall_us = int(label.wall_us[0])
        low, high = np.searchsorted(self._codes, [self._asked[row], self._asked[row] + 1])
        log = self._log.take(self._rows[low:high])
        log = log.take(np.flatnonzero(log.appended_us < wall_us))
        log = log.take(np.lexsort((log.sequence, log.origin, log.appended_us)))
        records = _records(log, wall_us - max_lag_us)
        held = int(records[0][0]) if records else len(log)
        for left_out in self._guesses(log, held, records, label, (served, indices)):
            out = np.concatenate([np.zeros(0, np.int64), *(records[at] for at in left_out)])
            there = np.ones(len(log), bool)
            there[out] = False
            seen = replace(log, appended_us=np.where(there, np.int64(0), np.int64(_NEVER)))
            found = asof(self._view, seen, label, "as_served")
            values = np.ascontiguousarray(found.values[0, indices])
            if (values.view(np.uint32) == served.view(np.uint32)).all():
                behind_us = wall_us - int(log.appended_us[out].min()) if len(out) else 0
                return Cut(values, bool(found.missing[0]), behind_us)
        return None

    def _guesses(
        self,
        log: EventLog,
        held: int,
        records: list[Ints],
        label: Labels,
        wanted: tuple[NDArray[np.float32], list[int]],
    ) -> Iterator[list[int]]:
        """Records left out, of sets at which the fold says what was served. ``held``: events before all of
        the records, in every set."""
        view, plan = self._view, plan_of(self._view)
        past = initial_states(view, log.take(np.arange(held)), dict.fromkeys(log.origins, _NEVER)).items()
        events = [log.take(rows).events() for rows in records]
        origins = [int(log.origin[rows[0]]) for rows in records]
        # Up to each record: [0] none of them, [-1] all.
        bases = [past[0][1] if past else None]
        for some in events:
            bases.append(_folded(plan, bases[-1], some))
        differ = self._differ(bases, label, wanted)
        # The newest first among equals.
        order = np.lexsort((-np.arange(len(bases)), differ))
        for upto in order[differ[order] == 0].tolist():
            yield list(range(upto, len(records)))
        around = [upto for near in order[:NEAREST].tolist() for upto in range(near, near - EARLY - 1, -1)]
        for upto in dict.fromkeys(one for one in around if one >= 0):
            early = list(_early(origins, upto))
            states = [_folded(plan, bases[upto], [e for at in some for e in events[at]]) for some in early]
            for at in np.flatnonzero(self._differ(states, label, wanted) == 0):
                yield [record for record in range(upto, len(records)) if record not in early[at]]

    def _differ(
        self, states: Sequence[bytes | None], label: Labels, wanted: tuple[NDArray[np.float32], list[int]]
    ) -> Ints:
        """How many columns of each state are not what was served to the one row of ``label``."""
        served, indices = wanted
        count = len(states)
        fields = {name: np.repeat(column, count) for name, column in label.fields.items()}
        said = read(
            self._view, records_of(plan_of(self._view), states), np.repeat(label.at_us, count), fields
        )
        bits = np.ascontiguousarray(said.values[:, indices]).view(np.uint32)
        return (bits != served.view(np.uint32)).sum(axis=1)


def _records(log: EventLog, from_us: int) -> list[Ints]:
    """Places of the events of each of the last records, in the order of their append; of ``from_us`` on."""
    recent = np.flatnonzero(log.appended_us >= from_us)
    if not len(recent):
        return []
    origin, record = log.origin[recent], log.sequence[recent] // PARTS_PER_RECORD
    begins = 1 + np.flatnonzero((origin[1:] != origin[:-1]) | (record[1:] != record[:-1]))
    return np.split(recent, begins)[-MAX_RECORDS:]


def _early(origins: Sequence[int], upto: int) -> Iterator[tuple[int, ...]]:
    """Sets of records behind ``upto`` (which is not there) that may be there before it, none first: of each
    origin a beginning."""
    following = range(upto + 1, min(len(origins), upto + 1 + EARLY))
    for count in range(len(following) + 1):
        for some in combinations(following, count):
            left = {at: {origins[other] for other in range(upto, at) if other not in some} for at in some}
            # An origin of which a record was passed over cannot come again.
            if not any(origins[at] in passed for at, passed in left.items()):
                yield some


def _folded(plan: Plan, state: bytes | None, events: Sequence[Event]) -> bytes | None:
    if not events:
        return state
    made = ViewState(plan) if state is None else ViewState.unpack(plan, state)
    for event in events:
        made.fold(event)
    return made.pack()
