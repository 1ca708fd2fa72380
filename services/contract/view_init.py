"""States from history: what the fold would have written, made of all events below a cut at once.

A cut is an offset vector (per origin the first sequence that is not in it), because only offsets divide a log
without overlap: the fold goes on from it, with the last sequences below it as marks, as if it had folded
everything itself. Event time alone would count a late event twice or never.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from services.contract.feature_view import FeatureView
from services.contract.view_log import EventLog
from services.contract.view_plan import NONE_US, STATE_VERSION, Recent, Slot, plan_of
from services.contract.view_registers import register_columns

Ints = NDArray[np.int64]
_UFUNC: dict[str, np.ufunc] = {"add": np.add, "min": np.minimum, "max": np.maximum, "registers": np.maximum}


def cut_at(log: EventLog, until_us: int) -> dict[str, int]:
    """The cut at event time T: in each origin the first record at or after ``until_us`` ends the history.
    What comes later in the log belongs to the stream, however old it is."""
    cut: dict[str, int] = {}
    for index, origin in enumerate(log.origins):
        of_origin = log.origin == index
        sequence = log.sequence[of_origin]
        reached = sequence[log.occurred_us[of_origin] >= until_us]
        cut[origin] = int(reached.min() if len(reached) else sequence.max(initial=-1) + 1)
    return cut


def below(log: EventLog, cut: Mapping[str, int]) -> NDArray[np.bool_]:
    """Which events stand below a cut."""
    ends = np.array([cut.get(origin, 0) for origin in log.origins], np.int64)
    return log.sequence < ends[log.origin]


@dataclass(frozen=True)
class InitialStates:
    """``entities`` [m, 8 x key fields] bytes, ``records`` [m] of the plan's dtype; ``marks`` of the fold."""

    entities: NDArray[np.uint8]
    records: NDArray
    marks: dict[str, int]

    def items(self) -> list[tuple[bytes, bytes]]:
        """(entity, state) each."""
        return [(e.tobytes(), r.tobytes()) for e, r in zip(self.entities, self.records, strict=True)]


def initial_states(view: FeatureView, log: EventLog, cut: Mapping[str, int]) -> InitialStates:
    """The states of all entities of a view after the events below the cut."""
    plan = plan_of(view)
    log = log.take(np.flatnonzero(log.takes(view) & below(log, cut)))
    keys = [log.field(name).astype(np.uint64) for name in view.key]
    entities, code = _entities(keys, len(log))
    records = np.zeros(len(entities), plan.dtype)
    records["version"], records["fingerprint"] = STATE_VERSION, plan.fingerprint
    newest = np.full(len(entities), NONE_US, np.int64)
    np.maximum.at(newest, code, log.occurred_us)
    records["newest_us"] = newest
    age = newest[code] // view.hop_us - log.occurred_us // view.hop_us
    for index, slot in enumerate(plan.slots):
        _fill_slot(records, index, slot, log, (code, age))
    for index, recent in enumerate(plan.recents):
        _fill_recent(records, index, recent, log, code)
    marks = {origin: end - 1 for origin, end in cut.items() if end > 0}
    return InitialStates(entities, records, marks)


def _entities(keys: list[NDArray], rows: int) -> tuple[NDArray[np.uint8], Ints]:
    """(key bytes of each entity, code of each row)."""
    if not keys:
        return np.zeros((min(rows, 1), 0), np.uint8), np.zeros(rows, np.int64)
    code = np.zeros(rows, np.int64)
    for column in keys:
        each = np.unique(column, return_inverse=True)[1]
        code = np.unique(code * (each.max(initial=0) + 1) + each, return_inverse=True)[1]
    first = np.zeros(int(code.max(initial=-1)) + 1, np.int64)
    first[code] = np.arange(rows)
    columns = [column[first].astype("<u8").reshape(-1, 1).view(np.uint8) for column in keys]
    return np.concatenate(columns, axis=1), code


def _fill_slot(records: NDArray, index: int, slot: Slot, log: EventLog, at: tuple[Ints, Ints]) -> None:
    """``at``: (entity code, age of the tile in hops) of each event."""
    chosen = np.flatnonzero(log.selected(slot.events))
    code, age = at[0][chosen], at[1][chosen]
    where: tuple[Ints, ...] = (code, np.minimum(age, slot.tiles))
    if not slot.value:
        values: NDArray = np.ones(len(chosen), np.int64)
    else:
        values = (log.occurred_us if slot.value == "occurred_us" else log.field(slot.value))[chosen]
    shape: tuple[int, ...] = (len(records), slot.tiles + 1)
    if slot.registers:
        register, values = register_columns(values, slot.registers)
        where, shape = (*where, register), (*shape, slot.registers)
    identity = 0 if slot.registers else slot.identity
    # The place behind the last tile takes all that is older.
    filled = np.full(shape, identity, values.dtype)
    _UFUNC[slot.monoid].at(filled, where, values)
    records[f"tiles{index}"] = filled[:, :-1]
    if slot.has_base:
        records[f"base{index}"] = filled[:, -1:]


def _fill_recent(records: NDArray, index: int, recent: Recent, log: EventLog, code: Ints) -> None:
    chosen = np.flatnonzero(log.selected(recent.events))
    columns = {"us": log.occurred_us[chosen], "hash": log.event_hash[chosen]}
    columns |= {name: log.field(name)[chosen].view(np.uint64) for name in recent.fields}
    code = code[chosen]
    order = np.lexsort((*reversed(columns.values()), code))
    code = code[order]
    columns = {name: column[order] for name, column in columns.items()}
    again = np.zeros(len(code), bool)
    again[1:] = np.logical_and.reduce([c[1:] == c[:-1] for c in (code, *columns.values())])
    code = code[~again]
    end = np.searchsorted(code, code, side="right")
    back = end - 1 - np.arange(len(code))
    kept = back < recent.keep
    records[f"recent{index}_us"] = NONE_US
    for name, column in columns.items():
        records[f"recent{index}_{name}"][code[kept], back[kept]] = column[~again][kept]
