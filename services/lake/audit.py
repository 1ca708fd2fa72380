"""Skew: what snapshots say was served, against what the log says should have been, bit for bit.

Of each audited request, every column of the set is computed again by the as-of join, twice:

ideal       from everything before the request's event time: what a model should have seen
as_served   from what had been appended by the wall time of the scoring, less what the state was *behind*: the
            events appended last that had not reached Redis yet. How many those were is found per state: the
            join is asked for the moment before the newest append, the one before that, ... until the columns
            of the view agree. ``behind`` is then the age of the oldest event left out: a measured lag.

So lag is no mismatch, and nothing but lag explains one away: a state has to be what all of its view's columns
say at one moment, at most ``max_lag_us`` ago; or, where there is none, at one place in each origin partition:
these are read side by side, and one may be ahead of another (audit_origins). Where there is none either, the
columns that differ at the best moment are the mismatches.

By which category a state was looked up is what the snapshot itself says: a wrong category is a mismatch of
its own column only.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash
from numpy.typing import NDArray

from services.contract.columns import F32, U64
from services.contract.feature_view import FeatureView
from services.contract.view_asof import asof
from services.contract.view_log import EventLog, Labels, Mode
from services.contract.view_registry import FeatureSet, ViewColumn
from services.lake.appends import Appends
from services.lake.audit_origins import MAX_ROWS, Origins

COLUMNS = (
    *("record", "request_id", "occurred_us", "scored_us", "user_id", "schema_hash"),
    *("item_ids", "user_features", "item_features"),
)
# Events that a state may be behind, in the order of their append.
MAX_EVENTS_BEHIND = 64
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class AuditRules:
    """``share`` of requests (by hash of the id); ``max_lag_us``: older than this no state may be;
    ``tolerated``: share of a column's rows above which its mismatches are skew."""

    share: float = 1.0
    max_lag_us: int = 15_000_000
    tolerated: float = 0.005


@dataclass
class Outcome:
    """Of one column in one mode. ``missing``: served the default, and the log has a value; ``extra``: the log
    has nothing, and a value was served; ``mismatches``: both have one, of other bits."""

    rows: int = 0
    mismatches: int = 0
    missing: int = 0
    extra: int = 0

    def add(self, other: Outcome) -> None:
        """Both together."""
        self.rows += other.rows
        self.mismatches += other.mismatches
        self.missing += other.missing
        self.extra += other.extra

    @property
    def wrong(self) -> int:
        """All that differs."""
        return self.mismatches + self.missing + self.extra


@dataclass
class ColumnAudit:
    """``nondefault``: rows whose served value is not the default; ``behind_us``: of the rows whose state was
    behind at all; of its view."""

    as_served: Outcome = field(default_factory=Outcome)
    ideal: Outcome = field(default_factory=Outcome)
    nondefault: int = 0
    behind_us: Ints = field(default_factory=lambda: np.zeros(0, np.int64))


@dataclass
class Audit:
    """``requests`` were audited; those of another schema, or whose bytes are none of this one, apart."""

    schema_hash: int
    tolerated: float
    columns: dict[str, ColumnAudit] = field(default_factory=dict)
    requests: int = 0
    other_schema: int = 0
    unreadable: int = 0

    def skewed(self) -> list[str]:
        """Columns with more mismatches (as served) than are tolerated."""
        return [
            name
            for name, one in self.columns.items()
            if one.as_served.rows and one.as_served.wrong > self.tolerated * one.as_served.rows
        ]


@dataclass(frozen=True)
class _Asked:
    """Rows of one kind, request or candidate: who asks, and what was served [n, columns]."""

    labels: Labels
    columns: tuple[ViewColumn, ...]
    served: NDArray[np.float32]


def sampled(snapshots: pa.Table, share: float) -> pa.Table:
    """The share of the events, by hash of the request id: the same ones wherever it is asked."""
    events = snapshots.filter(pc.equal(snapshots["record"], "event"))
    if share >= 1.0:
        return events
    limit = int(share * 2**64)
    chosen = [
        xxhash.xxh64_intdigest(one.encode(), seed=1) < limit for one in events["request_id"].to_pylist()
    ]
    return events.filter(pa.array(chosen, pa.bool_()))


def audit(feature_set: FeatureSet, log: EventLog, snapshots: pa.Table, rules: AuditRules) -> Audit:
    """Of ``sampled`` snapshots (COLUMNS of the lake's table); the log holds what was there before."""
    said = Audit(feature_set.schema_hash, rules.tolerated)
    snapshots = _known(feature_set, snapshots, said)
    said.requests = snapshots.num_rows
    columns = (*feature_set.request_columns, *feature_set.candidate_columns)
    said.columns = {column.name: ColumnAudit() for column in columns}
    if said.requests:
        appends = Appends(log)
        for asked in _asked(feature_set, snapshots):
            for view in dict.fromkeys(column.view for column in asked.columns):
                _audit_view(said, view, log, appends, (asked, rules))
    return said


def _known(feature_set: FeatureSet, snapshots: pa.Table, said: Audit) -> pa.Table:
    same = pc.equal(snapshots["schema_hash"], pa.scalar(feature_set.schema_hash, pa.uint64()))
    found = snapshots.filter(same)
    said.other_schema = snapshots.num_rows - found.num_rows
    users = pc.binary_length(found["user_features"]).to_numpy()
    rows = pc.binary_length(found["item_ids"]).to_numpy() // 8
    items = pc.binary_length(found["item_features"]).to_numpy()
    good = (users == 4 * feature_set.user_width) & (items == 4 * feature_set.item_width * rows)
    good &= ~found["scored_us"].is_null().to_numpy()
    said.unreadable = int((~good).sum())
    return found.filter(pa.array(good))


def _asked(feature_set: FeatureSet, snapshots: pa.Table) -> list[_Asked]:
    def bytes_of(name: str, dtype: np.dtype) -> NDArray:
        return np.frombuffer(b"".join(snapshots[name].to_pylist()), dtype)

    users = snapshots["user_id"].to_numpy().astype(np.uint64)
    at_us, wall_us = (snapshots[name].to_numpy().astype(np.int64) for name in ("occurred_us", "scored_us"))
    item_ids = bytes_of("item_ids", U64).astype(np.uint64)
    owner = np.repeat(np.arange(len(users)), pc.binary_length(snapshots["item_ids"]).to_numpy() // 8)
    request = bytes_of("user_features", F32).reshape(-1, feature_set.user_width)
    candidate = bytes_of("item_features", F32).reshape(-1, feature_set.item_width)
    category = candidate[:, feature_set.category_column].astype(np.int64)

    def labels(users: NDArray, at_us: Ints, wall_us: Ints, item_ids: NDArray, category: Ints) -> Labels:
        return Labels(at_us, {"user_id": users, "item_id": item_ids, "category": category}, wall_us)

    none = np.zeros(len(users), np.int64)
    return [
        _Asked(
            labels(users, at_us, wall_us, none.astype(np.uint64), none), feature_set.request_columns, request
        ),
        _Asked(
            labels(users[owner], at_us[owner], wall_us[owner], item_ids, category),
            feature_set.candidate_columns,
            candidate,
        ),
    ]


def _audit_view(
    said: Audit, view: FeatureView, log: EventLog, appends: Appends, given: tuple[_Asked, AuditRules]
) -> None:
    asked, rules = given
    places = [at for at, column in enumerate(asked.columns) if column.view is view]
    indices = [asked.columns[at].index for at in places]
    served = np.ascontiguousarray(asked.served[:, places])
    ideal = _compared(view, log, asked.labels, "ideal", indices)
    best, behind_us = _best_moment(view, log, appends, asked.labels, (served, indices, rules.max_lag_us))
    for at, place in enumerate(places):
        column = asked.columns[place]
        one = said.columns[column.name]
        default = np.float32(column.feature.default)
        one.nondefault += int((served[:, at] != default).sum())
        one.behind_us = behind_us[behind_us > 0]
        for outcome, found in ((one.ideal, ideal), (one.as_served, best)):
            _count(outcome, served[:, at], (found.values[:, at], found.missing), default)


@dataclass(frozen=True)
class _Computed:
    values: NDArray[np.float32]
    missing: Bools


def _compared(view: FeatureView, log: EventLog, labels: Labels, mode: Mode, indices: list[int]) -> _Computed:
    found = asof(view, log, labels, mode)
    return _Computed(np.ascontiguousarray(found.values[:, indices]), found.missing.astype(bool))


def _best_moment(
    view: FeatureView,
    log: EventLog,
    appends: Appends,
    labels: Labels,
    given: tuple[NDArray[np.float32], list[int], int],
) -> tuple[_Computed, Ints]:
    """(what the log says at the moment that fits each row best, how far that is behind in us)."""
    served, indices, max_lag_us = given
    best = _compared(view, log, labels, "as_served", indices)
    behind_us = np.zeros(len(served), np.int64)
    if view.kind == "instant":
        return best, behind_us
    wrong = _differs(served, best.values).sum(axis=1)
    assert labels.wall_us is not None
    steps = appends.before(view, labels)
    for _ in range(MAX_EVENTS_BEHIND):
        moments = steps.next_moments()
        rows = np.flatnonzero((wrong > 0) & (moments > labels.wall_us - max_lag_us))
        if not len(rows):
            break
        earlier = labels.take(rows)
        earlier = Labels(earlier.at_us, earlier.fields, moments[rows])
        found = _compared(view, log, earlier, "as_served", indices)
        left = _differs(served[rows], found.values).sum(axis=1)
        better = left < wrong[rows]
        place = rows[better]
        best.values[place], best.missing[place] = found.values[better], found.missing[better]
        wrong[place] = left[better]
        behind_us[place] = labels.wall_us[place] - moments[place]
    _by_origin(view, log, labels, given, (best, wrong, behind_us))
    # A moment that explains nothing says nothing of the lag.
    return best, np.where(wrong > 0, 0, behind_us)


def _by_origin(
    view: FeatureView,
    log: EventLog,
    labels: Labels,
    given: tuple[NDArray[np.float32], list[int], int],
    found: tuple[_Computed, Ints, Ints],
) -> None:
    """Looks again at the rows that are still wrong; what is explained stands in ``found`` afterwards."""
    served, indices, max_lag_us = given
    best, wrong, behind_us = found
    rows = np.flatnonzero(wrong > 0)[:MAX_ROWS]
    if not len(rows):
        return
    origins = Origins(view, log, labels.take(rows))
    for place, row in enumerate(rows):
        cut = origins.explain(place, served[row], indices, max_lag_us)
        if cut is not None:
            best.values[row], best.missing[row] = cut.values, cut.missing
            wrong[row], behind_us[row] = 0, cut.behind_us


def _differs(a: NDArray[np.float32], b: NDArray[np.float32]) -> Bools:
    return a.view(np.uint32) != b.view(np.uint32)


def _count(
    outcome: Outcome, served: NDArray[np.float32], found: tuple[NDArray, Bools], default: np.float32
) -> None:
    values, nothing = found
    served, values = np.ascontiguousarray(served), np.ascontiguousarray(values)
    differs = _differs(served, values)
    extra = differs & nothing
    missing = differs & ~nothing & ~_differs(served, np.full_like(served, default))
    outcome.rows += len(served)
    outcome.extra += int(extra.sum())
    outcome.missing += int(missing.sum())
    outcome.mismatches += int((differs & ~extra & ~missing).sum())
