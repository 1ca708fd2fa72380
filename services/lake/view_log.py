"""The whole lake as one log of view events: what every point-in-time read, audit and backfill starts from.

Synchronous, for any thread. A log that was read is kept for as long as the lake has not grown, and no longer.
"""

from __future__ import annotations

from collections.abc import Mapping
from threading import Lock

from services.contract import lake_files
from services.contract.errors import Overloaded
from services.contract.lake_history import histories, origin_of, read_history
from services.contract.lake_schema import TOPIC_OF
from services.contract.lake_store import LakeStore
from services.contract.view_log import EventLog, joined
from services.lake import metrics
from services.lake.view_events import COLUMNS, event_log

_WHOLE = 1 << 53


class LakeEvents:
    """``max_records``: records of impressions, actions and items that may be read into memory at once; each
    shown item takes about 100 bytes."""

    def __init__(self, store: LakeStore, max_records: int) -> None:
        self._store = store
        self._max_records = max_records
        self._kept: tuple[object, EventLog] | None = None
        self._reading = Lock()

    @property
    def root(self) -> str:
        """Of the lake."""
        return self._store.root

    def read(self) -> EventLog:
        """Everything. Overloaded: more than ``max_records``; BrokenFile names a file that cannot be read."""
        with self._reading:
            return self._read()

    def _read(self) -> EventLog:
        files = {table: lake_files.files(self._store, table) for table in COLUMNS}
        records = sum(file.rows for found in files.values() for _, file in found)
        if records > self._max_records:
            metrics.REFUSED.labels("log_records").inc()
            raise Overloaded(
                f"the lake has {records} records of events; at most {self._max_records} are read"
            )
        names = histories(self._store)
        version = ({table: [file for _, file in found] for table, found in files.items()}, names)
        if self._kept is None or self._kept[0] != version:
            tables = {name: lake_files.scan(self._store.root, name, None, COLUMNS[name]) for name in COLUMNS}
            log = event_log(tables["impressions"], tables["actions"], tables["items"])
            past = [read_history(self._store, name) for name in names]
            self._kept = (version, joined([log, *past]))
        return self._kept[1]

    def next_offsets(self) -> Mapping[str, int]:
        """Origin (topic/partition) -> the first record offset that the lake does not hold."""
        held = {
            f"{TOPIC_OF[table]}/{partition}": state.next_offset or 0
            for table in COLUMNS
            for partition, state in lake_files.states(self._store, table).items()
        }
        # A history is there whole or not at all.
        return held | {origin_of(name): _WHOLE for name in histories(self._store)}
