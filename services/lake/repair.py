"""Writes damaged files anew from Kafka, where it still holds their offsets; else names what is lost.

A lost file goes on breaking every scan of its day until somebody accepts that (``accept_loss``): then the
log forgets it, and ``check`` shows it no more.
"""

from __future__ import annotations

import uuid

from services.contract import lake_files, lake_log
from services.contract.errors import NotFound
from services.contract.lake_files import BrokenFile
from services.contract.lake_log import LakeFile, LakeLog, Record
from services.contract.lake_rows import TOPIC_OF, LogRecord, to_table
from services.contract.lake_store import LakeStore
from services.lake.check import Problem
from services.lake.compaction import wall_ms
from services.runtime.kafka_consumer import LogReader, TopicPartition

_POLL_MS = 500
_POLL_RECORDS = 5_000


async def repair(
    store: LakeStore, table: str, partition: int, reader: LogReader, *, accept_loss: bool = False
) -> list[Problem]:
    """One line per broken file: ``repaired``, ``lost``, or ``dropped`` when the loss is accepted."""
    log = LakeLog(store, table, partition)
    done: list[Problem] = []
    state = log.load()
    for file in sorted(state.files.values(), key=lambda file: (file.first, file.day)):
        try:
            lake_files.read_file(store, table, file)
            continue
        except BrokenFile as error:
            why = error.why
        files: tuple[LakeFile, ...] = ()
        outcome = "repaired"
        try:
            files = await _rewritten(store, table, partition, file, reader)
        except NotFound as error:
            outcome, why = ("dropped" if accept_loss else "lost"), f"{why}; {error}"
        if outcome != "lost":
            rows = sum(one.rows for one in files)
            repeats = file.rows - rows if files else 0
            record = Record(
                lake_log.REPLACE, "repair", wall_ms(), files=files, replaces=(file.path,), repeats=repeats
            )
            state = log.append(state, record)
        path = f"{table}/{file.path}"
        done.append(Problem(table, partition, outcome, why, file.first, file.last, file.rows, path))
    return done


async def _rewritten(
    store: LakeStore, table: str, partition: int, file: LakeFile, reader: LogReader
) -> tuple[LakeFile, ...]:
    """The file's rows from Kafka under a new name; NotFound when they are not all there."""
    records = await _records(TopicPartition(TOPIC_OF[table], partition), file, reader)
    rows = dict(lake_files.split_days(to_table(table, records))).get(file.day)
    found = 0 if rows is None else rows.num_rows
    # Of samples more may come: those that compaction had dropped as repeats, and will drop again.
    if rows is None or (found < file.rows if table == "samples" else found != file.rows):
        raise NotFound(f"Kafka has {found} of {file.rows} rows")
    # As compaction names its files: the writer, which may open the partition now, leaves them alone.
    stem = f"{partition}-{file.first}-{file.last}-c{uuid.uuid4().hex[:12]}"
    return (lake_files.write_file(store, table, file.day, stem, rows),)


async def _records(where: TopicPartition, file: LakeFile, reader: LogReader) -> list[LogRecord]:
    beginning = (await reader.beginning_offsets([where]))[where]
    end = (await reader.end_offsets([where]))[where]
    if beginning > file.first or end <= file.last:
        raise NotFound(f"Kafka holds offsets {beginning} to {end - 1}")
    reader.assign({where: file.first})
    found: list[LogRecord] = []
    while await reader.position(where) <= file.last:
        for records in (await reader.poll(_POLL_MS, _POLL_RECORDS)).values():
            found += [
                LogRecord(one.partition, one.offset, one.timestamp, one.value)
                for one in records
                if one.offset <= file.last
            ]
    return found
