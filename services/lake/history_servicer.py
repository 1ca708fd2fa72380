"""LakeService: reads of the past. One at a time, in a thread: each takes the whole log of the lake."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import grpc
import numpy as np
from numpy.typing import NDArray

from rec.v1 import lake_pb2, lake_pb2_grpc
from services.contract import times
from services.contract.columns import F32, I64, U8, U64, decode, encode
from services.contract.errors import InvalidInput
from services.contract.feature_events import PARTS_PER_RECORD
from services.contract.lake_files import scan
from services.contract.lake_schema import TOPIC_OF
from services.contract.times import MICROS
from services.contract.view_events import FIELDS, KINDS
from services.contract.view_log import EventLog, Mode
from services.contract.view_registry import FeatureSet
from services.lake import metrics
from services.lake.explain import Explanation, explain
from services.lake.point_in_time import Found, PointInTime, Rows, check_mode, columns_of
from services.lake.view_log import LakeEvents

MODES: dict[int, Mode] = {
    lake_pb2.HISTORY_MODE_UNSPECIFIED: "ideal",
    lake_pb2.HISTORY_MODE_IDEAL: "ideal",
    lake_pb2.HISTORY_MODE_AS_SERVED: "as_served",
}
MAX_EXPLAINING = 1_000
_NAMES = {kind.code: kind.name for kind in KINDS.values()}


@dataclass(frozen=True)
class Limits:
    """Rows of a request; bytes of values in one message of the answer."""

    rows: int
    chunk_bytes: int


class HistoryServicer(lake_pb2_grpc.LakeServiceServicer):
    """Reads from the lake alone: what waits in the writer's buffers is not in it yet."""

    def __init__(self, events: LakeEvents, feature_set: FeatureSet, limits: Limits) -> None:
        self._events, self._set, self._limits = events, feature_set, limits
        self._turn = asyncio.Lock()

    async def GetHistoricalFeatures(
        self, request: lake_pb2.GetHistoricalFeaturesRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[lake_pb2.GetHistoricalFeaturesResponse]:
        """Chunks of rows in the order given."""
        columns = columns_of(self._set, request.features)
        rows, mode = self._rows(request), _mode(request.mode)
        lag_us = request.lag.seconds * MICROS + request.lag.nanos // 1000
        check_mode(mode, rows, lag_us)

        def work() -> Found:
            with metrics.HISTORY_SECONDS.time():
                return PointInTime(self._set, self._events.read(), rows, mode, lag_us).found(columns)

        async with self._turn:
            found = await asyncio.to_thread(work)
        metrics.HISTORY_ROWS.labels(mode).inc(len(rows))
        for chunk in self._chunks(found):
            yield chunk

    def _rows(self, request: lake_pb2.GetHistoricalFeaturesRequest) -> Rows:
        at_us = decode("occurred_us", request.occurred_us, I64)
        if len(at_us) > self._limits.rows:
            metrics.REFUSED.labels("history_rows").inc()
            raise InvalidInput.one("occurred_us", f"{len(at_us)} rows", f"at most {self._limits.rows}")

        def ids(field: str) -> NDArray[np.uint64]:
            given = getattr(request, field)
            return decode(field, given, U64, len(at_us)) if given else np.zeros(len(at_us), np.uint64)

        served = request.served_us
        wall_us = decode("served_us", served, I64, len(at_us)) if served else None
        return Rows(ids("user_ids"), ids("item_ids"), at_us, wall_us)

    def _chunks(self, found: Found) -> list[lake_pb2.GetHistoricalFeaturesResponse]:
        """At least one, so that who asks for no rows learns the columns."""
        step = max(1, self._limits.chunk_bytes // (4 * len(found.columns)))
        return [
            lake_pb2.GetHistoricalFeaturesResponse(
                first_row=first,
                rows=len(found.values[first : first + step]),
                columns=[column.name for column in found.columns],
                values=encode(found.values[first : first + step], F32),
                missing=encode(found.missing[first : first + step], U8),
                schema_hash=self._set.schema_hash,
            )
            for first in range(0, max(len(found.values), 1), step)
        ]

    async def ExplainHistoricalFeature(
        self, request: lake_pb2.ExplainHistoricalFeatureRequest, context: grpc.aio.ServicerContext
    ) -> lake_pb2.ExplainHistoricalFeatureResponse:
        """The events of one value, from the rules alone."""
        column = self._set.column(request.feature)
        if not request.HasField("occurred_at"):
            raise InvalidInput.one("occurred_at", "unset", "the moment to explain")
        at_us = np.array([times.to_us(request.occurred_at)])
        wall_us = np.array([times.to_us(request.served_at)]) if request.HasField("served_at") else None
        users, items = (np.array([one], np.uint64) for one in (request.user_id, request.item_id))
        rows, mode = Rows(users, items, at_us, wall_us), _mode(request.mode)
        lag_us = request.lag.seconds * MICROS + request.lag.nanos // 1000

        def work() -> lake_pb2.ExplainHistoricalFeatureResponse:
            log = self._events.read()
            why = explain(PointInTime(self._set, log, rows, mode, lag_us), column)
            answer = lake_pb2.ExplainHistoricalFeatureResponse(
                value=why.value,
                missing=why.missing,
                default_value=column.feature.default,
                view=column.view.name,
                view_version=column.view.version,
                entity=why.entity,
                window_end=times.from_us(why.end_us),
                events_in_window=len(why.events),
                events=self._explaining(log, why),
            )
            if why.start_us is not None:
                answer.window_start.CopyFrom(times.from_us(why.start_us))
            return answer

        async with self._turn:
            return await asyncio.to_thread(work)

    def _explaining(self, log: EventLog, why: Explanation) -> list[lake_pb2.ExplainingEvent]:
        part = log.take(why.events[:MAX_EXPLAINING])
        ids = event_ids(self._events.root, part)
        found = []
        for row, event_id in enumerate(ids):
            kind = _NAMES[int(part.kind[row])]
            fields = {name: int(part.field(name)[row : row + 1].astype(np.int64)[0]) for name in FIELDS[kind]}
            found.append(
                lake_pb2.ExplainingEvent(
                    kind=kind,
                    event_id=event_id,
                    origin=part.origins[part.origin[row]],
                    sequence=int(part.sequence[row]),
                    occurred_at=times.from_us(int(part.occurred_us[row])),
                    appended_at=times.from_us(int(part.appended_us[row])),
                    fields=fields,
                )
            )
        return found


def event_ids(root: str, log: EventLog) -> list[str]:
    """Of each event as it was sent; "" for a listing and for what no topic holds."""
    wanted: dict[str, dict[tuple[int, int], list[int]]] = {}
    table_of = {topic: table for table, topic in TOPIC_OF.items()}
    for row in range(len(log)):
        topic, _, partition = log.origins[log.origin[row]].partition("/")
        if table_of.get(topic) in ("impressions", "actions"):
            place = (int(partition), int(log.sequence[row]) // PARTS_PER_RECORD)
            wanted.setdefault(table_of[topic], {}).setdefault(place, []).append(row)
    found = [""] * len(log)
    for table, places in wanted.items():
        records = scan(root, table, None, ["partition", "offset", "event_id"])
        keys = zip(records["partition"].to_pylist(), records["offset"].to_pylist(), strict=True)
        for at, key in enumerate(keys):
            for row in places.get(key, ()):
                found[row] = records["event_id"][at].as_py()
    return found


def _mode(given: int) -> Mode:
    if given not in MODES:
        raise InvalidInput.one("mode", given, "a HistoryMode")
    return MODES[given]
