"""Point-in-time features out of a lake on disk: over real gRPC, and from the command line."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lake_kit import START_US, Loop

from rec.v1 import lake_pb2, lake_pb2_grpc
from services.contract.columns import F32, I64, U64, decode, encode
from services.contract.errors import InvalidInput
from services.contract.feature_sets import FEATURE_SETS
from services.contract.lake_history import write_history
from services.contract.lake_store import LakeStore
from services.contract.times import from_us
from services.contract.view_events import Event, event_hash
from services.contract.view_log import log_of
from services.contract.view_replay import Ask, replay
from services.lake.feature_commands import command
from services.lake.history_servicer import HistoryServicer, Limits
from services.lake.view_log import LakeEvents
from services.runtime.grpc_errors import violations_of
from services.runtime.grpc_server import GrpcServer
from services.runtime.process import Process
from services.runtime.settings import GrpcServerSettings, ProcessSettings

SET = FEATURE_SETS["world"]
REQUESTS = 120


class Settings(ProcessSettings):
    name: str = "lake"
    grpc: GrpcServerSettings = GrpcServerSettings(port=0, admin_port=0, metrics_port=0)


@pytest.fixture(scope="module")
def loop() -> Loop:
    return Loop(SET).run(REQUESTS)


@pytest.fixture(scope="module")
def lake(loop: Loop, tmp_path_factory: pytest.TempPathFactory) -> str:
    return loop.write(tmp_path_factory.mktemp("history") / "lake")


@pytest.fixture
async def stub(lake: str) -> AsyncIterator[lake_pb2_grpc.LakeServiceStub]:
    process = Process(Settings())
    servicer = HistoryServicer(LakeEvents(LakeStore(lake), 10**6), SET, Limits(1_000, 4 * 31 * 100))
    add = lake_pb2_grpc.add_LakeServiceServicer_to_server
    server = GrpcServer(Settings().grpc, process, [(add, servicer, "rec.v1.LakeService")])
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        yield lake_pb2_grpc.LakeServiceStub(channel)
    await process.close()


def served_rows(loop: Loop) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """(fields of each served row, its columns: the request's, then the candidate's)."""
    counts = [len(one.item_ids) for one in loop.served]
    at_us = np.repeat([one.at_us for one in loop.served], counts)
    fields = {
        "user_id": np.repeat(np.array([one.user_id for one in loop.served], np.uint64), counts),
        "item_id": np.concatenate([one.item_ids for one in loop.served]),
        "occurred_us": at_us,
        "served_us": at_us,
    }
    parts = [np.hstack([np.tile(o.encoded.user, (len(o.item_ids), 1)), o.encoded.items]) for o in loop.served]
    return fields, np.concatenate(parts)


def asked(loop: Loop, mode: int, features: tuple[str, ...] = ()) -> lake_pb2.GetHistoricalFeaturesRequest:
    fields, _ = served_rows(loop)
    request = lake_pb2.GetHistoricalFeaturesRequest(
        user_ids=encode(fields["user_id"], U64),
        item_ids=encode(fields["item_id"], U64),
        occurred_us=encode(fields["occurred_us"], I64),
        served_us=encode(fields["served_us"], I64),
        features=features,
        mode=mode,
    )
    request.lag.FromMicroseconds(loop.lag_us)
    return request


async def test_what_was_served_comes_back_bit_for_bit_in_chunks(stub, loop) -> None:
    chunks = [c async for c in stub.GetHistoricalFeatures(asked(loop, lake_pb2.HISTORY_MODE_AS_SERVED))]
    _, served = served_rows(loop)
    assert len(chunks) == -(-len(served) // 100)
    assert [chunk.first_row for chunk in chunks] == list(range(0, len(served), 100))
    assert {chunk.schema_hash for chunk in chunks} == {SET.schema_hash}
    assert list(chunks[0].columns) == [c.name for c in (*SET.request_columns, *SET.candidate_columns)]
    assert b"".join(chunk.values for chunk in chunks) == encode(served, F32)
    missing = np.frombuffer(b"".join(chunk.missing for chunk in chunks), np.uint8)
    assert 0 < missing.mean() < 0.5


async def test_ideal_differs_from_served_where_events_came_late(stub, loop) -> None:
    request = asked(loop, lake_pb2.HISTORY_MODE_IDEAL, ("item_activity_shown", "time"))
    chunks = [c async for c in stub.GetHistoricalFeatures(request)]
    assert list(chunks[0].columns) == ["item_activity_shown", "time_day_sin", "time_day_cos"]
    values = decode("values", b"".join(chunk.values for chunk in chunks), F32).reshape(-1, 3)
    _, served = served_rows(loop)
    names = [c.name for c in (*SET.request_columns, *SET.candidate_columns)]
    assert (values[:, 0] > served[:, names.index("item_activity_shown")]).mean() > 0.02
    np.testing.assert_array_equal(values[:, 1], served[:, names.index("time_day_sin")])


async def test_a_row_before_everything_and_one_nobody_knows_have_defaults_and_are_missing(stub) -> None:
    request = lake_pb2.GetHistoricalFeaturesRequest(
        item_ids=encode(np.array([1000, 999_999]), U64),
        occurred_us=encode(np.array([0, START_US + 10**9]), I64),
        features=["item_activity"],
    )
    (chunk,) = [c async for c in stub.GetHistoricalFeatures(request)]
    view = SET.column("item_activity_ctr").view
    assert chunk.values == encode(np.array([f.default for f in view.features] * 2), F32)
    assert chunk.missing == b"\x01" * len(chunk.columns) * 2


@pytest.mark.parametrize(
    ("changes", "code", "field"),
    [
        ({"features": ["item_activity_nope"]}, grpc.StatusCode.NOT_FOUND, ""),
        ({"features": ["time", "time_day_sin"]}, grpc.StatusCode.INVALID_ARGUMENT, "features"),
        ({"occurred_us": encode(np.array([5, -1]), I64)}, grpc.StatusCode.INVALID_ARGUMENT, "occurred_us[1]"),
        ({"occurred_us": b"123"}, grpc.StatusCode.INVALID_ARGUMENT, "occurred_us"),
        ({"item_ids": encode(np.array([5]), U64)}, grpc.StatusCode.INVALID_ARGUMENT, "item_ids"),
        ({"mode": lake_pb2.HISTORY_MODE_AS_SERVED}, grpc.StatusCode.INVALID_ARGUMENT, "served_us"),
        ({"mode": 9}, grpc.StatusCode.INVALID_ARGUMENT, "mode"),
        ({"occurred_us": bytes(8 * 1_001)}, grpc.StatusCode.INVALID_ARGUMENT, "occurred_us"),
    ],
)
async def test_bad_input_is_named(stub, changes, code, field) -> None:
    request = lake_pb2.GetHistoricalFeaturesRequest(**({"occurred_us": bytes(16)} | changes))
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        _ = [c async for c in stub.GetHistoricalFeatures(request)]
    assert failed.value.code() == code
    if field:
        assert field in [violation[0] for violation in violations_of(failed.value)]


async def test_a_lake_that_is_larger_than_what_may_be_read_is_refused(lake) -> None:
    servicer = HistoryServicer(LakeEvents(LakeStore(lake), 10), SET, Limits(10, 100))
    request = lake_pb2.GetHistoricalFeaturesRequest(occurred_us=bytes(8))
    with pytest.raises(Exception, match="at most 10 are read"):
        _ = [c async for c in servicer.GetHistoricalFeatures(request, None)]


async def test_the_events_of_every_value_are_those_that_the_replay_needs(stub, loop) -> None:
    """Folding only the events named gives the value again, and without the newest of them another."""
    logged = [(event, appended_us) for appended_us, events in loop.online for event in events]
    by_place = {(event.origin, event.sequence): (event, appended_us) for event, appended_us in logged}
    named, changed = 0, 0
    for one in loop.served[60::9]:
        item = int(one.item_ids[0])
        for name in ("user_activity_ctr_1m", "item_activity_shown", "user_clicks_any", "user_history_dwell"):
            column = SET.column(name)
            request = lake_pb2.ExplainHistoricalFeatureRequest(
                feature=name,
                user_id=one.user_id,
                item_id=item,
                occurred_at=from_us(one.at_us),
                served_at=from_us(one.at_us),
                mode=lake_pb2.HISTORY_MODE_AS_SERVED,
            )
            request.lag.FromMicroseconds(loop.lag_us)
            said = await stub.ExplainHistoricalFeature(request)
            if said.missing:
                continue
            ask = Ask({"user_id": one.user_id, "item_id": item, "category": 0}, one.at_us, one.at_us)
            events = [by_place[event.origin, event.sequence] for event in said.events]
            assert [e.event_hash for e, _ in events] == [
                event_hash(s.event_id) ^ (e.fields["item_id"] if e.kind == "shown" else 0)
                for s, (e, _) in zip(said.events, events, strict=True)
            ]
            assert len(events) == said.events_in_window
            named += len(events)
            again = replay(column.view, events, ask, "as_served", loop.lag_us)
            assert not events or again.values[column.index] == said.value
            if events:
                less = replay(column.view, events[1:], ask, "as_served", loop.lag_us)
                changed += less.values[column.index] != said.value
    assert named > 50 and changed > 10


async def test_an_instant_feature_has_no_events_to_name(stub) -> None:
    request = lake_pb2.ExplainHistoricalFeatureRequest(feature="time_day_sin", occurred_at=from_us(5))
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await stub.ExplainHistoricalFeature(request)
    assert failed.value.code() == grpc.StatusCode.INVALID_ARGUMENT


# -- command line ------------------------------------------------------------------------------------------


def test_the_command_gives_every_row_back_with_its_features(lake, loop, tmp_path, capsys) -> None:
    fields, served = served_rows(loop)
    pq.write_table(pa.table(fields | {"label": np.arange(len(served))}), tmp_path / "rows.parquet")
    arguments = ["--lake_uri", lake, "--entities", str(tmp_path / "rows.parquet")]
    arguments += ["--out", str(tmp_path / "out.parquet"), "--mode", "as_served"]
    arguments += ["--lag_ms", str(loop.lag_us / 1000), "--features", "user_category, item_activity_ctr"]
    assert command("features", arguments) == 0
    said = json.loads(capsys.readouterr().out)
    found = pq.read_table(tmp_path / "out.parquet")
    assert said["rows"] == found.num_rows == len(served)
    assert found["label"].to_pylist() == list(range(len(served)))
    names = [c.name for c in (*SET.request_columns, *SET.candidate_columns)]
    for name in ("user_category_ctr", "item_activity_ctr"):
        np.testing.assert_array_equal(found[name].to_numpy(), served[:, names.index(name)])
    assert 0 < found["user_category_missing"].to_numpy().mean() < 1


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"user_id": [1]}, "occurred_us"),
        ({"occurred_us": [5, None]}, r"occurred_us\[1\]=null"),
        ({"occurred_us": ["noon"]}, "occurred_us"),
        ({"occurred_us": [-5]}, r"occurred_us\[0\]=-5"),
        ({"occurred_us": [5], "time_day_sin": [0.0]}, "time_day_sin"),
    ],
)
def test_rows_that_cannot_be_asked_end_with_2(lake, tmp_path, capsys, columns, said) -> None:
    pq.write_table(pa.table(columns), tmp_path / "rows.parquet")
    out = tmp_path / "out.parquet"
    arguments = ["--lake_uri", lake, "--entities", str(tmp_path / "rows.parquet"), "--out", str(out)]
    assert command("features", [*arguments, "--features", "time"]) == 2
    assert re.search(said, capsys.readouterr().err)
    assert not out.exists()


def test_history_that_no_topic_holds_counts(tmp_path: Path) -> None:
    store = LakeStore(str(tmp_path))
    fields = {"user_id": 1, "item_id": 5, "category": 2, "position": 0}
    past = [Event("shown", 1_000 + at, at, fields, "day0/0", at) for at in range(3)]
    write_history(store, "day0", log_of(past, [0, 0, 0]))
    log = LakeEvents(store, 10).read()
    assert [(e.origin, e.sequence, dict(e.fields)) for e in log.events()] == [
        ("day0/0", at, fields) for at in range(3)
    ]
    with pytest.raises(InvalidInput, match="origins"):
        write_history(store, "day1", log)
