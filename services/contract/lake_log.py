"""The log of one (table, partition) of the lake: numbered records that say which files count.

    <root>/<table>/_log/<partition>/00000000000000000007.json             record 7
    <root>/<table>/_log/<partition>/00000000000000000007.checkpoint.json  the state after record 7

A file is part of the lake when the log says so: one record adds all files of a flush, or puts a merged
file in the place of many, so that a reader sees all of it or nothing. Record n + 1 is created
exclusively, so of two writers one learns that it is not alone:

| record | says | refused when |
|---|---|---|
| open | ``owner`` writes from now on | never |
| flush | ``files`` hold the rows of offsets ``first`` to ``last`` | another owner has opened since |
| replace | ``files`` hold the rows of ``replaces`` | one of those does not count any more |

So a writer that was paused and comes back cannot add what its successor has added (its open stands in the
way), while compaction and writer only have to take the next number. The state is a fold of the records; a
checkpoint saves reading old ones, which may then be deleted.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field
from typing import Any

from services.contract.errors import Conflict, MalformedRecord, NotFound
from services.contract.lake_store import LakeStore

FORMAT = 1
OPEN, FLUSH, REPLACE = "open", "flush", "replace"
CHECKPOINT_EVERY = 64
_LOAD_TRIES = 3
_NAME = re.compile(r"(\d{20})(\.checkpoint)?\.json")


@dataclass(frozen=True, slots=True)
class LakeFile:
    """A Parquet file that counts. ``path`` is relative to the table's folder, ``bytes`` its size, ``first``
    and ``last`` the offsets of its first and last row."""

    path: str
    day: str
    rows: int
    bytes: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Record:
    """One record of the log; see the module docstring. ``at_ms`` is wall time."""

    kind: str
    owner: str
    at_ms: int
    first: int = 0
    last: int = 0
    files: tuple[LakeFile, ...] = ()
    replaces: tuple[str, ...] = ()
    # Records of the range that could not become rows, as "offset: why".
    bad: tuple[str, ...] = ()
    # Rows that a replacement left out because their sample id had been there before.
    repeats: int = 0


@dataclass
class State:
    """What counts after record ``version`` (0: nothing is written yet)."""

    version: int = 0
    # The last record of a writer (open or flush).
    written: int = 0
    owner: str = ""
    # None before the first flush.
    next_offset: int | None = None
    files: dict[str, LakeFile] = field(default_factory=dict)
    # Files that were replaced, and when: to be deleted once nobody reads them any more.
    dropped: dict[str, int] = field(default_factory=dict)
    # Offsets (first, last) that no flush covers: Kafka no longer held them.
    holes: list[tuple[int, int]] = field(default_factory=list)
    bad_records: int = 0
    repeats: int = 0

    def add(self, record: Record) -> None:
        """Takes the next record in. A flush of another owner, which only a store that cannot create
        exclusively lets through, does not count: what it has overwritten becomes a hole."""
        self.version += 1
        if record.kind == FLUSH and record.owner != self.owner:
            return
        if record.kind in (OPEN, FLUSH):
            self.written = self.version
        if record.kind == OPEN:
            self.owner = record.owner
        elif record.kind == FLUSH:
            if self.next_offset is not None and record.first != self.next_offset:
                self.holes.append((self.next_offset, record.first - 1))
            self.next_offset = record.last + 1
            self.bad_records += len(record.bad)
        for path in record.replaces:
            del self.files[path]
            self.dropped[path] = record.at_ms
        self.repeats += record.repeats
        self.files.update({file.path: file for file in record.files})

    def holds(self, record: Record) -> bool:
        """Whether a flush is here already: its creation succeeded and the answer was lost."""
        return (
            record.kind == FLUSH
            and self.owner == record.owner
            and self.next_offset is not None
            and self.next_offset > record.last
        )

    def refuses(self, record: Record) -> str:
        """Why a record may not come next; "" when it may."""
        if record.kind == FLUSH and self.owner != record.owner:
            return f"{self.owner} has opened the partition since"
        if record.kind == FLUSH and self.next_offset is not None and record.first < self.next_offset:
            return f"offsets from {record.first} on: {self.next_offset} is next"
        gone = [path for path in record.replaces if path not in self.files]
        return f"{gone[0]} does not count any more" if gone else ""


class LakeLog:
    """The log of one partition of one table."""

    def __init__(self, store: LakeStore, table: str, partition: int) -> None:
        self.table = table
        self.partition = partition
        self._store = store
        self._folder = f"{table}/_log/{partition}"

    def load(self) -> State:
        """The state now. MalformedRecord when the log is damaged."""
        for attempt in range(1, _LOAD_TRIES + 1):
            try:
                return self._load()
            except NotFound:  # cleaned away between listing and reading
                if attempt == _LOAD_TRIES:
                    raise
        raise AssertionError("unreachable")

    def append(self, state: State, record: Record) -> State:
        """Adds a record after ``state`` or whatever came since; the state after it.

        Conflict when the state then refuses it. The given state may be changed."""
        while True:
            if state.holds(record):
                return state
            if why := state.refuses(record):
                raise Conflict(f"{self._folder}: {record.kind} refused: {why}")
            try:
                self._store.create(self._record(state.version + 1), _encode(asdict(record)))
            except FileExistsError:
                state = self.load()
                continue
            state.add(record)
            if state.version % CHECKPOINT_EVERY == 0:
                self.checkpoint(state)
            return state

    def checkpoint(self, state: State) -> None:
        """Saves a state, so that older records need not be read again."""
        fields = asdict(state) | {"files": [asdict(file) for file in state.files.values()]}
        self._store.put(self._checkpoint(state.version), _encode(fields))

    def clean(self, state: State, before_ms: int) -> int:
        """Deletes records and checkpoints that the checkpoint of ``state`` makes needless and that were
        written before a wall time: a reader that has listed them may still want them. How many.

        What came after the writer's own last record stays: it knows nothing of that yet, and would find the
        next number free. Whoever else comes back with an older state creates what nobody reads."""
        if self._store.size(self._checkpoint(state.version)) is None:
            return 0
        old = [
            name
            for name, changed_s in self._store.names(self._folder).items()
            if self._version_of(name) < state.written and changed_s * 1000 < before_ms
        ]
        for name in sorted(old):
            self._store.delete(name)
        return len(old)

    def _version_of(self, name: str) -> int:
        """-1 for what a killed process left under a temporary name."""
        found = _NAME.fullmatch(name.rpartition("/")[2])
        return int(found.group(1)) if found else -1

    def _load(self) -> State:
        found = [_NAME.fullmatch(name.rpartition("/")[2]) for name in self._store.names(self._folder)]
        records = sorted(int(one.group(1)) for one in found if one and not one.group(2))
        checkpoints = [int(one.group(1)) for one in found if one and one.group(2)]
        state = self._state(max(checkpoints)) if checkpoints else State()
        for version in records:
            if version <= state.version:
                continue
            if version != state.version + 1:
                raise MalformedRecord.one(self._folder, f"record {version}", f"record {state.version + 1}")
            state.add(self._read_record(version))
        return state

    def _read_record(self, version: int) -> Record:
        name = self._record(version)
        fields = self._decode(name)
        try:
            fields["files"] = tuple(LakeFile(**file) for file in fields["files"])
            for column in ("replaces", "bad"):
                fields[column] = tuple(fields[column])
            return Record(**fields)
        except (KeyError, TypeError) as error:
            raise MalformedRecord.one(name, repr(error), "a record of this format") from error

    def _state(self, version: int) -> State:
        name = self._checkpoint(version)
        fields = self._decode(name)
        try:
            fields["files"] = {file["path"]: LakeFile(**file) for file in fields["files"]}
            fields["holes"] = [(first, last) for first, last in fields["holes"]]
            return State(**fields)
        except (KeyError, TypeError, ValueError) as error:
            raise MalformedRecord.one(name, repr(error), "a checkpoint of this format") from error

    def _decode(self, name: str) -> dict[str, Any]:
        data = self._store.read(name)
        try:
            fields = json.loads(data)
            found = fields.pop("format")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise MalformedRecord.one(name, f"{len(data)} bytes", "a JSON object with a format") from error
        if found != FORMAT:
            raise MalformedRecord.one(f"{name}: format", found, str(FORMAT))
        return dict(fields)

    def _record(self, version: int) -> str:
        return f"{self._folder}/{version:020d}.json"

    def _checkpoint(self, version: int) -> str:
        return f"{self._folder}/{version:020d}.checkpoint.json"


def _encode(fields: dict[str, Any]) -> bytes:
    return json.dumps({"format": FORMAT, **fields}, separators=(",", ":")).encode()


def partitions(store: LakeStore, table: str) -> list[int]:
    """The partitions of a table that have a log."""
    folders = {name.split("/")[2] for name in store.names(f"{table}/_log")}
    return sorted(int(name) for name in folders if name.isdecimal())
