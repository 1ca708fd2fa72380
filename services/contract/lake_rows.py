"""Records of Kafka become rows of the lake's tables (lake_schema.py). Bytes in, Arrow out.

A field that was not set is null, and so is a time that is none (outside the years 1 to 9999, which only
``occurred_at`` is refused for). What is malformed is judged as the join judges it: rows of its kind in the
event tables, a ``BadRecord`` for samples, whose table has no place for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from google.protobuf.message import DecodeError, Message

from rec.events.v1 import events_pb2 as ev
from services.contract import columns
from services.contract.errors import MalformedRecord
from services.contract.ids import MAX_REQUEST_ID_CHARS
from services.contract.join_config import JoinConfig
from services.contract.join_events import Malformed, Source, decode
from services.contract.lake_schema import SCHEMAS, TABLES, TOPIC_OF
from services.contract.times import MICROS, to_us

__all__ = ["SCHEMAS", "TABLES", "TOPIC_OF", "BadRecord", "LogRecord", "to_rows", "to_table"]

SOURCE_OF = {"snapshots": Source.SNAPSHOTS, "impressions": Source.IMPRESSIONS, "actions": Source.ACTIONS}
EVENT, HEARTBEAT, BARRIER, MALFORMED = "event", "heartbeat", "barrier", "malformed"
REMOVED = "removed"
# As the joiner's: the two must call the same records malformed.
MAX_ITEMS: int = JoinConfig.max_items

_MIN_SECONDS, _MAX_SECONDS = -62_135_596_800, 253_402_300_799
_MAX_DURATION_SECONDS = 315_576_000_000


@dataclass(frozen=True, slots=True)
class LogRecord:
    """A record as it stands in Kafka; ``value`` None is a tombstone (on catalog; elsewhere empty bytes)."""

    partition: int
    offset: int
    timestamp_ms: int
    value: bytes | None


@dataclass(frozen=True, slots=True)
class BadRecord:
    """A record that has no row at all: only samples, whose table has no place for it."""

    partition: int
    offset: int
    detail: str


def to_table(name: str, records: Iterable[LogRecord]) -> pa.Table:
    """The rows of some records in the order given; schema ``SCHEMAS[name]``."""
    return to_rows(name, records)[0]


def to_rows(name: str, records: Iterable[LogRecord]) -> tuple[pa.Table, list[BadRecord]]:
    """The rows, and the records that could not become any."""
    if name == "samples":
        return _samples(records)
    if name == "items":
        return pa.Table.from_pylist([_item_row(record) for record in records], schema=SCHEMAS[name]), []
    source, fill = SOURCE_OF[name], _FILL[name]
    rows = [_event_row(source, fill, record) for record in records]
    return pa.Table.from_pylist(rows, schema=SCHEMAS[name]), []


def _item_row(record: LogRecord) -> dict[str, Any]:
    row: dict[str, Any] = {
        "partition": record.partition,
        "offset": record.offset,
        "appended_ms": record.timestamp_ms,
    }
    if record.value is None:
        return row | {"record": REMOVED}
    try:
        item = ev.Item.FromString(record.value)
    except DecodeError as error:
        return row | {"record": MALFORMED, "detail": f"{len(record.value)} bytes: {error}"}
    return row | {
        "record": EVENT,
        "item_id": item.item_id,
        "item_key": item.item_key,
        "category": item.category,
        "created_us": _time(item, "created_at"),
    }


def _event_row(
    source: Source, fill: Callable[[dict[str, Any], Any], None], record: LogRecord
) -> dict[str, Any]:
    row: dict[str, Any] = {
        "partition": record.partition,
        "offset": record.offset,
        "appended_ms": record.timestamp_ms,
    }
    try:
        name, occurred_us, event = decode(source, record.value or b"", MAX_ITEMS)
    except Malformed as error:
        row |= {"record": MALFORMED, "detail": str(error), "items": error.items}
        return row
    row["occurred_us"] = occurred_us
    if name == "heartbeat":
        row["record"] = HEARTBEAT
    elif name == "barrier":
        row |= {"record": BARRIER, "barrier_id": event.barrier_id}
    else:
        row |= {
            "record": EVENT,
            "event_id": event.event_id,
            "request_id": event.request_id,
            "user_id": event.user_id,
        }
        fill(row, event)
    return row


def _fill_snapshot(row: dict[str, Any], event: ev.FeatureSnapshot) -> None:
    row |= _model(event)
    row |= {
        "scored_us": _time(event, "scored_at"),
        "item_ids": event.item_ids,
        "scores": event.scores,
        "user_features": event.user_features,
        "item_features": event.item_features,
    }


def _fill_impression(row: dict[str, Any], event: ev.Impression) -> None:
    row |= {
        "item_ids": list(event.item_ids),
        "positions": list(event.positions),
        "unscored": event.unscored,
    }


def _fill_action(row: dict[str, Any], event: ev.Action) -> None:
    row |= {"item_id": event.item_id, "kind": event.kind}
    if event.HasField("dwell") and abs(event.dwell.seconds) <= _MAX_DURATION_SECONDS:
        row["dwell_us"] = event.dwell.seconds * MICROS + event.dwell.nanos // 1000


_FILL: dict[str, Callable[[dict[str, Any], Any], None]] = {
    "snapshots": _fill_snapshot,
    "impressions": _fill_impression,
    "actions": _fill_action,
}


def _model(event: ev.FeatureSnapshot | ev.TrainingSample) -> dict[str, Any]:
    found: dict[str, Any] = {"schema_hash": event.schema_hash, "arm": event.arm}
    if event.HasField("model"):
        found["sequence"] = event.model.sequence
        if event.model.HasField("lineage"):
            found["generation"] = event.model.lineage.generation
            found["policy"] = event.model.lineage.policy
    return found


def _time(event: Message, field: str) -> int | None:
    if not event.HasField(field):
        return None
    stamp = getattr(event, field)
    return to_us(stamp) if _MIN_SECONDS <= stamp.seconds <= _MAX_SECONDS else None


# -- samples ---------------------------------------------------------------------------------------------


def _samples(records: Iterable[LogRecord]) -> tuple[pa.Table, list[BadRecord]]:
    heads: list[dict[str, Any]] = []
    samples: list[ev.TrainingSample] = []
    bad: list[BadRecord] = []
    for record in records:
        try:
            sample = _sample_of(record.value or b"")
        except MalformedRecord as error:
            bad.append(BadRecord(record.partition, record.offset, str(error)))
            continue
        if sample is not None:
            heads.append(_sample_head(record, sample))
            samples.append(sample)
    return _sample_table(heads, samples), bad


def _sample_of(raw: bytes) -> ev.TrainingSample | None:
    """The sample of a record, None for a barrier; MalformedRecord says what is wrong."""
    try:
        record = ev.SampleRecord.FromString(raw)
    except DecodeError as error:
        raise MalformedRecord.one("record", f"{len(raw)} bytes", "a SampleRecord") from error
    if record.HasField("barrier"):
        return None
    if not record.HasField("sample"):
        raise MalformedRecord.one("record", "empty", "a sample or a barrier")
    sample = record.sample
    rows, rest = divmod(len(sample.item_ids), 8)
    if rest or not 0 < rows <= MAX_ITEMS:
        raise MalformedRecord.one("item_ids", f"{len(sample.item_ids)} bytes", f"1 to {MAX_ITEMS} x 8 bytes")
    for field in ("labels", "label_versions", "positions", "scores"):
        size = len(getattr(sample, field))
        if size != 4 * rows:
            raise MalformedRecord.one(field, f"{size} bytes", f"{4 * rows} bytes")
    if len(sample.item_features) % (4 * rows):
        raise MalformedRecord.one(
            "item_features", f"{len(sample.item_features)} bytes", f"{rows} rows of float32"
        )
    if not 0 < len(sample.request_id) <= MAX_REQUEST_ID_CHARS:
        raise MalformedRecord.one("request_id", sample.request_id, f"1 to {MAX_REQUEST_ID_CHARS} characters")
    if _time(sample, "occurred_at") is None:
        raise MalformedRecord.one("occurred_at", "unset or not a time", "years 1 to 9999")
    return sample


def _sample_head(record: LogRecord, sample: ev.TrainingSample) -> dict[str, Any]:
    """What all rows of a record have in common."""
    return {
        "partition": record.partition,
        "offset": record.offset,
        "appended_ms": record.timestamp_ms,
        "request_id": sample.request_id,
        "occurred_us": _time(sample, "occurred_at"),
        "user_id": sample.user_id,
        **_model(sample),
        "sample_rate": sample.sample_rate,
        "impressed_us": _time(sample, "impressed_at"),
        "acted_us": _time(sample, "acted_at"),
        "scored_us": _time(sample, "scored_at"),
        "joined_us": _time(sample, "joined_at"),
        "user_features": sample.user_features,
    }


def _sample_table(heads: list[dict[str, Any]], samples: list[ev.TrainingSample]) -> pa.Table:
    schema = SCHEMAS["samples"]
    counts = np.array([len(sample.item_ids) // 8 for sample in samples], np.int64)
    owner = np.repeat(np.arange(len(samples)), counts)
    table = pa.Table.from_pylist(heads, schema=schema).take(pa.array(owner))
    own = {
        "row": np.arange(len(owner), dtype=np.int32) - np.repeat(np.cumsum(counts) - counts, counts),
        "item_id": _column(samples, "item_ids", columns.U64),
        "label": _column(samples, "labels", columns.F32),
        "label_version": _column(samples, "label_versions", columns.U32),
        "position": _column(samples, "positions", columns.U32),
        "score": _column(samples, "scores", columns.F32),
        "item_features": _item_features(samples, counts),
    }
    for name, values in own.items():
        field = schema.field(name)
        table = table.set_column(schema.get_field_index(name), field, pa.array(values, field.type))
    return table


def _column(samples: list[ev.TrainingSample], field: str, dtype: np.dtype) -> np.ndarray:
    return np.frombuffer(b"".join([getattr(sample, field) for sample in samples]), dtype)


def _item_features(samples: list[ev.TrainingSample], counts: np.ndarray) -> pa.Array:
    """One slice of bytes per row, without a Python object for each."""
    data = b"".join([sample.item_features for sample in samples])
    widths = np.array([len(sample.item_features) for sample in samples], np.int64) // np.maximum(counts, 1)
    ends = np.cumsum(np.repeat(widths, counts))
    offsets = np.concatenate(([0], ends)).astype(np.int32)
    return pa.Array.from_buffers(
        pa.binary(), len(ends), [None, pa.py_buffer(offsets.tobytes()), pa.py_buffer(data)]
    )
