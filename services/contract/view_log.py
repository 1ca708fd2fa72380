"""A log of events as columns, and the rows that ask for features as of a moment.

Both are what the interpreters over history take (view_replay, view_asof): numpy only, checked once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from services.contract.errors import FieldViolation, InvalidInput
from services.contract.feature_view import FeatureView
from services.contract.view_events import ALL_FIELDS, KINDS, Condition, Event, Select

Mode = Literal["ideal", "as_served"]
_NAMES = {kind.code: kind.name for kind in KINDS.values()}
_COLUMNS: dict[str, type] = {
    "kind": np.uint8,
    "occurred_us": np.int64,
    "event_hash": np.uint64,
    "appended_us": np.int64,
    "origin": np.int32,
    "sequence": np.int64,
}


def _dtype(field: str) -> type:
    return np.uint64 if ALL_FIELDS[field].type == "id" else np.int64


@dataclass(frozen=True)
class EventLog:
    """[n] each, in any order, no event twice. ``kind``: codes of KINDS; ``origin`` indexes ``origins``;
    ``appended_us``: wall time of the log; ``fields``: uint64 for ids, int64 for the others, anything where a
    kind has no such field. InvalidInput names every column of another type or length.
    """

    kind: NDArray[np.uint8]
    occurred_us: NDArray[np.int64]
    event_hash: NDArray[np.uint64]
    appended_us: NDArray[np.int64]
    origin: NDArray[np.int32]
    sequence: NDArray[np.int64]
    fields: Mapping[str, NDArray]
    origins: tuple[str, ...] = ("",)

    def __post_init__(self) -> None:
        bad: list[FieldViolation] = []
        wanted: dict[str, tuple[NDArray, type]]
        wanted = {name: (getattr(self, name), dtype) for name, dtype in _COLUMNS.items()}
        for name, column in self.fields.items():
            if name not in ALL_FIELDS:
                bad.append(FieldViolation(f"fields.{name}", "unknown", f"one of {', '.join(ALL_FIELDS)}"))
            else:
                wanted[f"fields.{name}"] = (column, _dtype(name))
        rows = len(self)
        for name, (column, dtype) in wanted.items():
            if not isinstance(column, np.ndarray) or column.shape != (rows,) or column.dtype != dtype:
                found = f"{getattr(column, 'dtype', type(column))} {getattr(column, 'shape', '')}"
                bad.append(FieldViolation(name, found, f"{np.dtype(dtype)} ({rows},)"))
        if bad:
            raise InvalidInput(bad)

    def __len__(self) -> int:
        return len(self.occurred_us)

    def field(self, name: str) -> NDArray:
        """A column; InvalidInput when the log has none."""
        if name not in self.fields:
            raise InvalidInput.one("log", ", ".join(self.fields) or "no fields", f"with {name}")
        return self.fields[name]

    def takes(self, view: FeatureView) -> NDArray[np.bool_]:
        """Which events belong to a view."""
        kinds = np.zeros(256, bool)
        kinds[[KINDS[name].code for name in view.sources]] = True
        return self._where(kinds[self.kind], view.filter)

    def selected(self, select: Select) -> NDArray[np.bool_]:
        """Which events are among these."""
        return self._where(self.kind == KINDS[select.kind].code, select.where)

    def _where(self, mask: NDArray[np.bool_], where: tuple[Condition, ...]) -> NDArray[np.bool_]:
        for condition in where:
            mask = mask & condition.holds(self.field(condition.field))
        return mask

    def take(self, rows: NDArray) -> EventLog:
        """Some of the rows (indices or a mask)."""
        columns = {name: getattr(self, name)[rows] for name in _COLUMNS}
        fields = {name: column[rows] for name, column in self.fields.items()}
        return EventLog(**columns, fields=fields, origins=self.origins)

    def events(self) -> list[Event]:
        """One object per row: for tests and single entities."""
        found = []
        for row, code in enumerate(self.kind.tolist()):
            kind = KINDS[_NAMES[code]]
            fields = {field.name: int(self.field(field.name)[row]) for field in kind.fields}
            found.append(
                Event(
                    kind.name,
                    int(self.occurred_us[row]),
                    int(self.event_hash[row]),
                    fields,
                    self.origins[self.origin[row]],
                    int(self.sequence[row]),
                )
            )
        return found


def log_of(events: Iterable[Event], appended_us: Sequence[int]) -> EventLog:
    """Columns of events; of repeats (same origin and sequence) the first remains."""
    first: dict[tuple[str, int], tuple[Event, int]] = {}
    for event, appended in zip(events, appended_us, strict=True):
        first.setdefault((event.origin, event.sequence), (event, appended))
    rows = [event for event, _ in first.values()]
    origins = tuple(dict.fromkeys(event.origin for event in rows)) or ("",)
    return EventLog(
        np.array([KINDS[event.kind].code for event in rows], np.uint8),
        np.array([event.occurred_us for event in rows], np.int64),
        np.array([event.event_hash for event in rows], np.uint64),
        np.array([appended for _, appended in first.values()], np.int64),
        np.array([origins.index(event.origin) for event in rows], np.int32),
        np.array([event.sequence for event in rows], np.int64),
        {name: np.array([e.fields.get(name, 0) for e in rows], _dtype(name)) for name in ALL_FIELDS},
        origins,
    )


def joined(logs: Sequence[EventLog]) -> EventLog:
    """Several logs as one, of the fields that all have. InvalidInput: none given."""
    if not logs:
        raise InvalidInput.one("logs", "none", "at least one")
    origins = tuple(dict.fromkeys(name for log in logs for name in log.origins))
    columns = {name: np.concatenate([getattr(log, name) for log in logs]) for name in _COLUMNS}
    places = [np.array([origins.index(name) for name in log.origins], np.int32)[log.origin] for log in logs]
    columns["origin"] = np.concatenate(places)
    shared = set.intersection(*(set(log.fields) for log in logs))
    fields = {name: np.concatenate([log.fields[name] for log in logs]) for name in sorted(shared)}
    return EventLog(**columns, fields=fields, origins=origins)


@dataclass(frozen=True)
class Labels:
    """Rows that ask: event time ``at_us`` [n], and fields that name their entities and candidates, [n] each.

    ``wall_us`` [n]: wall time of the request, for ``as_served``. InvalidInput names every bad column.
    """

    at_us: NDArray[np.int64]
    fields: Mapping[str, NDArray]
    wall_us: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        rows = len(self.at_us)
        bad = []
        columns = [
            ("at_us", self.at_us, np.int64),
            *((f, c, _label_dtype(f)) for f, c in self.fields.items()),
        ]
        if self.wall_us is not None:
            columns.append(("wall_us", self.wall_us, np.int64))
        for name, column, dtype in columns:
            if dtype is None:
                bad.append(FieldViolation(name, "unknown", f"one of {', '.join(ALL_FIELDS)}"))
            elif column.shape != (rows,) or column.dtype != dtype:
                found = f"{column.dtype} {column.shape}"
                bad.append(FieldViolation(name, found, f"{np.dtype(dtype)} ({rows},)"))
        if bad:
            raise InvalidInput(bad)

    def take(self, rows: NDArray) -> Labels:
        """Some of the rows, in the order given."""
        wall_us = None if self.wall_us is None else self.wall_us[rows]
        return Labels(self.at_us[rows], {name: c[rows] for name, c in self.fields.items()}, wall_us)

    def check(self, view: FeatureView, mode: Mode) -> None:
        """InvalidInput when a view cannot be asked by these rows."""
        bad = [
            FieldViolation("labels", ", ".join(self.fields) or "no fields", f"with {name} for {view.name}")
            for name in (*view.key, *view.operands)
            if name not in self.fields
        ]
        if mode not in get_args(Mode):
            bad.append(FieldViolation("mode", repr(mode), f"one of {', '.join(get_args(Mode))}"))
        if mode == "as_served" and self.wall_us is None:
            bad.append(FieldViolation("wall_us", "none", "the wall time of each request"))
        if bad:
            raise InvalidInput(bad)


def _label_dtype(field: str) -> type | None:
    return _dtype(field) if field in ALL_FIELDS else None
