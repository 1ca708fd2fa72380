"""Ranking over real gRPC; its log and its producer are in memory."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path

import grpc
import numpy as np
import pytest
from ranking_kit import (
    NOW_US,
    Chain,
    MemoryLog,
    MemoryProducer,
    rank_request,
    running,
    sequence_of,
    settings_for,
    until,
)

from rec.events.v1 import events_pb2
from rec.model.v1 import model_pb2
from rec.v1 import ranking_pb2
from services.contract import model_net, times, topics
from services.contract.model_state import ModelState
from services.ranking import base_loader
from services.ranking.request_check import check
from services.ranking.top import best
from services.runtime.grpc_errors import reason_of, violations_of
from services.runtime.throttle import Throttle
from tests.feature_kit import FEATURES, SHAPE


@pytest.fixture
def chain(tmp_path: Path) -> Chain:
    return Chain(tmp_path / "store")


def expected(state: ModelState, request: ranking_pb2.RankRequest) -> tuple[bytes, bytes]:
    """What a state answers, computed here."""
    candidates = check(request, SHAPE, 10_000)
    scores = model_net.score(
        state, candidates.user_id, candidates.item_ids, candidates.user, candidates.items
    )
    chosen = best(scores, candidates.item_ids, candidates.n)
    return candidates.item_ids[chosen].tobytes(), scores[chosen].tobytes()


async def refused(call) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    return raised.value


def both_arms(chain: Chain) -> list[model_pb2.Release]:
    return [chain.release("online", 1), chain.release("frozen", 2, pinned_sequence=0)]


def lineage(generation: int) -> model_pb2.Lineage:
    return model_pb2.Lineage(generation=generation, policy="online")


async def status_of(stub, arm: str = "online") -> ranking_pb2.ArmStatus:
    response = await stub.GetModelStatus(ranking_pb2.GetModelStatusRequest())
    return next(status for status in response.arms if status.arm == arm)


async def test_answer_is_that_of_the_state_with_provenance_and_the_snapshot_holds_what_was_scored(
    chain: Chain,
) -> None:
    producer, request = MemoryProducer(), rank_request(candidates=300, n=100)
    async with running(settings_for(chain.store), MemoryLog(), producer, both_arms(chain)) as (_, stub):
        answer = await stub.Rank(request)
    assert (answer.item_ids, answer.scores) == expected(chain.at[0], request)
    provenance = answer.provenance
    assert (provenance.request_id, provenance.arm, provenance.replica) == ("r-1", "online", "test-replica")
    assert provenance.scored and provenance.model.sequence == 0 and provenance.model.lineage.generation == 1
    assert provenance.feature_schema_hash == FEATURES.schema_hash
    assert provenance.staleness.ToMicroseconds() == times.to_us(provenance.served_at) - NOW_US

    (record,) = producer.of(topics.FEATURE_SNAPSHOTS)
    snapshot = events_pb2.EventRecord.FromString(record.value).snapshot
    assert record.key == b"r-1"
    assert record.partition == topics.partition_of(b"r-1", topics.FEATURE_SNAPSHOTS.partitions)
    assert (snapshot.item_ids, snapshot.scores) == (answer.item_ids, answer.scores)
    assert (snapshot.model, snapshot.arm, snapshot.user_id) == (provenance.model, "online", request.user_id)
    assert times.to_us(snapshot.occurred_at) == NOW_US + 1
    candidates = check(request, SHAPE, 10_000)
    where = {int(item): row for row, item in enumerate(candidates.item_ids)}
    served = np.frombuffer(snapshot.item_ids, "<u8")
    rows = np.frombuffer(snapshot.item_features, "<f4").reshape(100, -1)
    assert rows.tobytes() == candidates.items[[where[int(item)] for item in served]].tobytes()
    assert snapshot.user_features == request.user_features


async def test_fewer_candidates_than_asked_for_are_all_returned(chain: Chain) -> None:
    async with running(
        settings_for(chain.store), MemoryLog(), MemoryProducer(), [chain.release("online", 1)]
    ) as (_, stub):
        answer = await stub.Rank(rank_request(candidates=3, n=500))
    assert len(answer.item_ids) == 3 * 8


NAN_ROW = np.full((100, FEATURES.item_width), 0.5, dtype="<f4")
NAN_ROW[7, 3] = np.nan
BAD_REQUESTS = {
    "n zero": ({"n": 0}, "n"),
    "n too large": ({"n": 501}, "n"),
    "no candidates": ({"item_ids": b"", "item_features": b""}, "item_ids"),
    "too many": ({"item_ids": bytes(8 * 10_001)}, "item_ids"),
    "ids cut short": ({"item_ids": bytes(8 * 100 - 1)}, "item_ids"),
    "repeated id": ({"item_ids": np.zeros(100, "<u8").tobytes()}, "item_ids"),
    "short user column": ({"user_features": b"abcd"}, "user_features"),
    "short item column": ({"item_features": b"abcd"}, "item_features"),
    "NaN": ({"item_features": NAN_ROW.tobytes()}, "item_features"),
    "infinite user": (
        {"user_features": np.full(FEATURES.user_width, np.inf, "<f4").tobytes()},
        "user_features",
    ),
    "no request id": ({"request_id": ""}, "request_id"),
    "long request id": ({"request_id": "x" * 65}, "request_id"),
    "no time": ({"occurred_at": None}, "occurred_at"),
    "nine shadows": ({"shadow_arms": list("abcdefghi")}, "shadow_arms"),
    "other schema": ({"schema_hash": 1}, "schema_hash"),
}


async def test_bad_requests_are_refused_by_the_name_of_the_field_and_log_nothing(chain: Chain) -> None:
    producer = MemoryProducer()
    async with running(settings_for(chain.store), MemoryLog(), producer, both_arms(chain)) as (_, stub):
        for name, (changes, field) in BAD_REQUESTS.items():
            error = await refused(stub.Rank(rank_request(**changes)))
            assert error.code() == grpc.StatusCode.INVALID_ARGUMENT, name
            assert [bad for bad, _ in violations_of(error)] == [field], name
        error = await refused(stub.Rank(rank_request(schema_hash=1)))
        assert reason_of(error) == "SCHEMA_MISMATCH"
        error = await refused(stub.Rank(rank_request(item_features=NAN_ROW.tobytes())))
        assert FEATURES.candidate_columns[3].name in violations_of(error)[0][1]
        error = await refused(stub.Rank(rank_request(arm="nobody")))
        assert error.code() == grpc.StatusCode.NOT_FOUND and "frozen, online" in error.details()
    assert not producer.sent


async def test_shadow_arms_score_the_same_candidates_and_are_not_logged(chain: Chain) -> None:
    log, producer = MemoryLog(), MemoryProducer()
    log.append(chain.next(), chain.next())
    async with running(settings_for(chain.store), log, producer, both_arms(chain)) as (_, stub):
        request = rank_request(shadow_arms=["frozen", "unknown"])
        answer = await stub.Rank(request)
    frozen, unknown = answer.shadows
    ids, scores = expected(chain.at[0], request)
    assert (np.array(frozen.item_ids, "<u8").tobytes(), np.array(frozen.scores, "<f4").tobytes()) == (
        ids,
        scores,
    )
    assert frozen.scored and frozen.model.sequence == 0 and answer.provenance.model.sequence == 2
    assert (unknown.arm, unknown.scored) == ("unknown", False)
    assert len(producer.of(topics.FEATURE_SNAPSHOTS)) == 1


async def test_a_user_drawn_for_an_arm_that_is_not_loaded_gets_the_default_one(chain: Chain) -> None:
    producer = MemoryProducer()
    releases = [chain.release("online", 1)]
    async with running(settings_for(chain.store), MemoryLog(), producer, releases) as (_, stub):
        answer = await stub.Rank(rank_request(arm="baseline", arm_assigned=True))
        assert answer.provenance.arm == "online" and len(answer.item_ids) == 80
        degraded = [(one.source, one.reason) for one in answer.provenance.degraded]
        assert degraded == [("ranking.arm", "not_loaded")]
        # Judged as what it was.
        (record,) = producer.of(topics.FEATURE_SNAPSHOTS)
        assert events_pb2.EventRecord.FromString(record.value).snapshot.arm == "online"
        answer = await stub.Rank(rank_request(2, arm="online", arm_assigned=True))
        assert answer.provenance.arm == "online" and not answer.provenance.degraded


async def test_base_and_deltas_are_the_writers_state_at_every_sequence_and_the_frozen_arm_never_moves(
    chain: Chain,
) -> None:
    log = MemoryLog()
    log.append(chain.next(), chain.next())
    async with running(settings_for(chain.store), log, MemoryProducer(), both_arms(chain)) as (replica, stub):
        for _ in range(6):
            status = await status_of(stub)
            assert status.state_digest == chain.digest(status.model.sequence)
            assert status.chain_hash == chain.state.chain_hash and status.slot_state == "live"
            log.append(chain.next())
            await until(lambda: sequence_of(replica) == chain.state.sequence)
        frozen = await status_of(stub, "frozen")
        assert (frozen.state_digest, frozen.slot_state) == (chain.digest(0), "pinned")


async def test_each_response_is_of_exactly_one_version_under_a_storm_of_deltas(chain: Chain) -> None:
    log = MemoryLog()
    async with running(settings_for(chain.store), log, MemoryProducer(), both_arms(chain)) as (_, stub):
        request = rank_request(candidates=200, n=200)

        async def storm() -> None:
            for _ in range(60):
                log.append(chain.next(rows=200))
                await asyncio.sleep(0.002)

        async def ask() -> list[ranking_pb2.RankResponse]:
            return [await stub.Rank(request) for _ in range(40)]

        _, *asked = await asyncio.gather(storm(), *(ask() for _ in range(4)))
    seen = set()
    for answer in (answer for answers in asked for answer in answers):
        sequence = answer.provenance.model.sequence
        seen.add(sequence)
        assert (answer.item_ids, answer.scores) == expected(chain.at[sequence], request)
    assert len(seen) > 5


FAULTS = ["drop", "corrupt", "swap", "repeat"]


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_delta_spoiled_on_the_way_is_refused_and_repaired_from_the_log(
    chain: Chain, fault: str
) -> None:
    log = MemoryLog()
    spoiled: set[int] = set()

    def spoil(offset: int, value: bytes) -> bytes | None:
        if offset != 3 or offset in spoiled:
            return value
        spoiled.add(offset)
        if fault == "drop":
            return None
        if fault == "corrupt":
            return value[:200] + bytes([value[200] ^ 1]) + value[201:]
        return log.records[4] if fault == "swap" else log.records[2]

    log.fault = spoil
    async with running(settings_for(chain.store), log, MemoryProducer(), both_arms(chain)) as (replica, stub):
        for _ in range(8):
            log.append(chain.next())
        await until(lambda: sequence_of(replica) == 8)
        status = await status_of(stub)
        assert status.state_digest == chain.digest(8)
        assert replica.arms.followers["online"].slot.resyncs == {"log": 1}


async def test_zombie_and_malformed_deltas_are_refused_counted_and_the_chain_goes_on(chain: Chain) -> None:
    log, producer = MemoryLog(), MemoryProducer()
    chain.epoch = 2
    async with running(settings_for(chain.store), log, producer, both_arms(chain)) as (replica, stub):
        log.append(chain.next(), chain.next())
        # A zombie continues the right chain under an older epoch; bytes that are no delta; another lineage.
        log.append(chain.forged(epoch=1), b"\xff not a delta", chain.forged(generation=9))
        log.append(chain.next(), chain.next())
        await until(lambda: sequence_of(replica) == 4)
        status = await status_of(stub)
        assert status.state_digest == chain.digest(4)
        assert status.refused["older_epoch"] >= 1 and status.refused["undecodable"] >= 1
        assert replica.arms.followers["online"].slot.counts["other_lineage"] >= 1
    (letter,) = producer.of(topics.DEAD_LETTERS)
    assert letter.value == b"\xff not a delta"
    assert dict(letter.headers)["origin-offset"] == b"3"


@pytest.mark.parametrize(
    "forgery", [{"sequence": 2}, {"previous_hash": bytes(32)}], ids=["fork", "other chain"]
)
async def test_forgery_that_stands_in_the_log_is_refused_and_the_true_delta_behind_it_is_applied(
    chain: Chain, forgery: dict
) -> None:
    log = MemoryLog()
    async with running(settings_for(chain.store), log, MemoryProducer(), both_arms(chain)) as (replica, stub):
        log.append(chain.next(), chain.next(), chain.forged(**forgery))
        follower = replica.arms.followers["online"]
        await until(lambda: follower.slot.refused.get("fork", 0) >= 1)
        assert (await status_of(stub)).state_digest == chain.digest(2)
        log.append(chain.next(), chain.next())
        await until(lambda: sequence_of(replica) == 4)
        status = await status_of(stub)
        assert (status.state_digest, status.slot_state) == (chain.digest(4), "live")


async def test_delta_that_reaches_the_log_late_is_applied_although_a_base_was_waited_for(
    chain: Chain,
) -> None:
    log = MemoryLog()
    async with running(settings_for(chain.store), log, MemoryProducer(), both_arms(chain)) as (replica, stub):
        log.append(chain.next())
        missing = chain.next()
        log.append(chain.next(), chain.next(), chain.next())
        follower = replica.arms.followers["online"]
        await until(lambda: follower.slot.resyncs["base"] >= 1)
        log.append(missing)
        log.append(*(chain.values[sequence] for sequence in (3, 4, 5)))
        await until(lambda: sequence_of(replica) == 5)
        assert (await status_of(stub)).state_digest == chain.digest(5)


async def test_hole_in_the_log_is_repaired_by_a_newer_base_while_the_old_state_serves(chain: Chain) -> None:
    log = MemoryLog()
    async with running(settings_for(chain.store), log, MemoryProducer(), both_arms(chain)) as (replica, stub):
        log.append(chain.next())
        chain.next()  # never reaches the log
        log.append(chain.next(), chain.next(), chain.next())
        follower = replica.arms.followers["online"]
        await until(lambda: follower.slot.resyncs["base"] >= 1)
        answer = await stub.Rank(rank_request())
        assert answer.provenance.model.sequence == 1
        assert [d.source for d in answer.provenance.degraded] == ["ranking.model"]
        replica.arms.take(chain.release("online", 5, base=chain.save_base(delta_offset=len(log.records))))
        log.append(chain.next())
        await until(lambda: sequence_of(replica) == 6)
        assert (await status_of(stub)).state_digest == chain.digest(6)
        assert not (await stub.Rank(rank_request())).provenance.degraded


async def test_truncated_log_leaves_the_base_serving_degraded_and_is_repaired_by_a_newer_base(
    chain: Chain,
) -> None:
    log = MemoryLog()
    log.append(chain.next(), chain.next())
    log.begin = 2
    base = chain.save_base(delta_offset=2)
    async with running(settings_for(chain.store), log, MemoryProducer(), both_arms(chain)) as (replica, stub):
        answer = await stub.Rank(rank_request())
        assert answer.provenance.model.sequence == 0
        assert [d.source for d in answer.provenance.degraded] == ["ranking.model"]
        replica.arms.take(chain.release("online", 3, base=base))
        await until(lambda: sequence_of(replica) == 2)
        assert (await status_of(stub)).state_digest == chain.digest(2)
        assert not (await stub.Rank(rank_request())).provenance.degraded


async def test_log_that_is_away_leaves_the_arms_serving_and_is_read_on_when_it_returns(chain: Chain) -> None:
    log = MemoryLog()
    async with running(settings_for(chain.store), log, MemoryProducer(), both_arms(chain)) as (replica, stub):
        log.away = True
        log.append(chain.next())
        await stub.Rank(rank_request())
        log.away = False
        await until(lambda: sequence_of(replica) == 1)


async def test_an_arm_on_a_new_pin_is_built_aside_and_swapped_once_caught_up(chain: Chain) -> None:
    log = MemoryLog()
    log.append(*(chain.next() for _ in range(5)))
    async with running(settings_for(chain.store), log, MemoryProducer(), both_arms(chain)) as (replica, stub):
        before = replica.arms.serving["frozen"]
        replica.arms.take(chain.release("frozen", 9, pinned_sequence=3))
        await until(lambda: sequence_of(replica, "frozen") == 3)
        assert replica.arms.serving["frozen"] is not before and before.state.sequence == 0
        assert (await status_of(stub, "frozen")).state_digest == chain.digest(3)
        replica.arms.take(chain.release("frozen", 8, pinned_sequence=1))
        assert not replica.arms._building, "an older revision must not win"
        retired = chain.release("frozen", 10)
        retired.state = model_pb2.RELEASE_STATE_RETIRED
        replica.arms.take(retired)
        error = await refused(stub.Rank(rank_request(arm="frozen")))
        assert error.code() == grpc.StatusCode.NOT_FOUND


async def test_only_a_newer_model_is_loaded_slowly_and_only_beside_one_that_serves(
    chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    shares: list[float] = []

    def noted(share: float) -> Throttle:
        shares.append(share)
        return Throttle(share)

    monkeypatch.setattr("services.ranking.replica.Throttle", noted)
    log, settings = MemoryLog(), settings_for(chain.store, load_share=0.5)
    async with running(settings, log, MemoryProducer(), [chain.release("online", 1)]) as (replica, _):
        assert shares == [1.0], "the first one: nobody is served yet"

        def generation() -> int:
            return replica.arms.serving["online"].state.generation

        replica.arms.take(chain.release("online", 2, lineage=lineage(2)))
        await until(lambda: generation() == 2)
        replica.arms.take(chain.release("candidate", 3))
        await until(lambda: "candidate" in replica.arms.serving)
        assert shares[1:] == [0.5, 0.5], "a day's model, and one to compare with"
        replica.arms.take(chain.release("online", 4, lineage=lineage(1)))
        await until(lambda: generation() == 1)
        replica.arms.take(chain.release("candidate", 5, pinned_sequence=0))
        await until(lambda: replica.arms.followers["candidate"].release.revision == 5)
        assert shares[3:] == [1.0, 1.0], "ways back"


async def test_a_load_that_nobody_waits_for_any_more_ends(
    chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    load, begun, ended = base_loader.load, threading.Event(), threading.Event()

    def endless(wish: model_pb2.Release, *of: object, breathe: Throttle, **more: object) -> object:
        if wish.lineage.generation != 2:
            return load(wish, *of, breathe=breathe, **more)
        try:
            while True:
                begun.set()
                breathe()
        finally:
            ended.set()

    monkeypatch.setattr(base_loader, "load", endless)
    settings = settings_for(chain.store)
    async with running(settings, MemoryLog(), MemoryProducer(), [chain.release("online", 1)]) as (replica, _):
        replica.arms.take(chain.release("online", 2, lineage=lineage(2)))
        assert await asyncio.to_thread(begun.wait, 10)
        replica.arms.take(chain.release("online", 3, lineage=lineage(3)))
        assert await asyncio.to_thread(ended.wait, 10)
        await until(lambda: replica.arms.serving["online"].state.generation == 3)


async def test_base_with_a_wrong_digest_is_never_served(chain: Chain) -> None:
    bad = model_pb2.BaseRef()
    bad.CopyFrom(chain.base)
    bad.manifest_digest = bytes(32)
    releases = [chain.release("online", 1), chain.release("broken", 2, base=bad)]
    async with running(settings_for(chain.store), MemoryLog(), MemoryProducer(), releases) as (_, stub):
        error = await refused(stub.Rank(rank_request(arm="broken")))
        assert error.code() == grpc.StatusCode.UNAVAILABLE
        assert (await status_of(stub, "broken")).slot_state == "loading"


async def test_barrier_is_reported_when_its_delta_serves_and_wakes_who_waits(chain: Chain) -> None:
    log = MemoryLog()
    wait = ranking_pb2.RankingServiceWaitForBarrierRequest
    async with running(settings_for(chain.store), log, MemoryProducer(), both_arms(chain)) as (_, stub):
        waiting = asyncio.ensure_future(stub.WaitForBarrier(wait(barrier_id="b-1"), timeout=10))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        log.append(chain.next(barriers=("b-1",)))
        passed = await waiting
        assert passed.model.sequence == 1
        again = await stub.WaitForBarrier(wait(barrier_id="b-1", arm="online"))
        assert again == passed
        request = wait(barrier_id="b-2")
        request.timeout.FromMilliseconds(30)
        assert (await refused(stub.WaitForBarrier(request))).code() == grpc.StatusCode.DEADLINE_EXCEEDED
        error = await refused(stub.WaitForBarrier(wait(barrier_id="b-1", arm="frozen")))
        assert error.code() == grpc.StatusCode.FAILED_PRECONDITION
        error = await refused(stub.WaitForBarrier(wait(barrier_id="b-1", arm="nobody")))
        assert error.code() == grpc.StatusCode.NOT_FOUND


async def test_emitted_barrier_stands_on_every_partition_behind_the_snapshots(chain: Chain) -> None:
    producer = MemoryProducer()
    async with running(settings_for(chain.store), MemoryLog(), producer, both_arms(chain)) as (_, stub):
        await stub.Rank(rank_request())
        request = ranking_pb2.RankingServiceEmitBarrierRequest(barrier_id="b", occurred_at=times.from_us(5))
        await stub.EmitBarrier(request)
        error = await refused(stub.EmitBarrier(ranking_pb2.RankingServiceEmitBarrierRequest(barrier_id="b")))
        assert [field for field, _ in violations_of(error)] == ["occurred_at"]
    snapshot, *barriers = producer.of(topics.FEATURE_SNAPSHOTS)
    assert events_pb2.EventRecord.FromString(snapshot.value).HasField("snapshot")
    assert [record.partition for record in barriers] == [0, 1, 2, 3]
    assert {events_pb2.EventRecord.FromString(r.value).barrier.barrier_id for r in barriers} == {"b"}


async def test_idle_partitions_get_heartbeats_that_carry_the_run_clock(chain: Chain) -> None:
    producer = MemoryProducer()
    settings = settings_for(chain.store, heartbeat_idle_ms=20)
    async with running(settings, MemoryLog(), producer, both_arms(chain)) as (_, stub):
        await stub.Rank(rank_request())

        def beats() -> list[events_pb2.EventRecord]:
            records = [
                events_pb2.EventRecord.FromString(r.value) for r in producer.of(topics.FEATURE_SNAPSHOTS)
            ]
            return [record for record in records if record.HasField("heartbeat")]

        await until(lambda: len(beats()) >= 8)
        assert times.to_us(beats()[-1].heartbeat.occurred_at) >= NOW_US + 1
        assert beats()[-1].heartbeat.writer == "ranking/test-replica"


async def test_snapshots_are_dropped_and_counted_while_kafka_is_away_and_answers_go_on(chain: Chain) -> None:
    producer = MemoryProducer()
    async with running(settings_for(chain.store), MemoryLog(), producer, both_arms(chain)) as (replica, stub):
        lost = replica.metrics.snapshots_lost
        before = [lost.labels(reason)._value.get() for reason in ("kafka_away", "Unavailable")]
        producer.stalled = True
        await stub.Rank(rank_request(1))
        producer.stalled, producer.failing = False, True
        await stub.Rank(rank_request(2))
        after = [lost.labels(reason)._value.get() for reason in ("kafka_away", "Unavailable")]
    assert [b - a for a, b in zip(before, after, strict=True)] == [1, 1]


async def test_full_queue_refuses_at_once_and_a_spent_deadline_is_not_scored(chain: Chain) -> None:
    settings = settings_for(chain.store, max_queue=2)
    async with running(settings, MemoryLog(), MemoryProducer(), both_arms(chain)) as (replica, stub):
        release = asyncio.Event()
        loop = asyncio.get_running_loop()
        held = asyncio.ensure_future(
            replica.scorer.between_requests(
                lambda: asyncio.run_coroutine_threadsafe(release.wait(), loop).result(10)
            )
        )
        queued = [asyncio.ensure_future(stub.Rank(rank_request(seed), timeout=5)) for seed in range(2)]
        await until(lambda: replica.scorer.queued == 2)
        error = await refused(stub.Rank(rank_request(9)))
        assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        release.set()
        await asyncio.gather(held, *queued)
        release.clear()
        held = asyncio.ensure_future(
            replica.scorer.between_requests(
                lambda: asyncio.run_coroutine_threadsafe(release.wait(), loop).result(10)
            )
        )
        error = await refused(stub.Rank(rank_request(9), timeout=0.05))
        assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        release.set()
        await held
        await until(lambda: replica.scorer.queued == 0)


async def test_a_caller_who_gives_it_time_is_scored_later_than_one_who_names_no_deadline(
    chain: Chain,
) -> None:
    settings = settings_for(chain.store, default_deadline_ms=100, max_deadline_ms=5_000)
    async with running(settings, MemoryLog(), MemoryProducer(), both_arms(chain)) as (replica, stub):
        held = asyncio.ensure_future(replica.scorer.between_requests(lambda: time.sleep(0.4)))
        patient = asyncio.ensure_future(stub.Rank(rank_request(1), timeout=30))
        error = await refused(stub.Rank(rank_request(2)))
        assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        assert (await patient).provenance.scored
        await held
        # The limit is one: nobody waits for ever in the queue of a thread that hangs.
        settings = settings_for(chain.store, max_deadline_ms=100)
    async with running(settings, MemoryLog(), MemoryProducer(), both_arms(chain)) as (replica, stub):
        held = asyncio.ensure_future(replica.scorer.between_requests(lambda: time.sleep(0.4)))
        error = await refused(stub.Rank(rank_request(1), timeout=30))
        assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        await held


async def test_watcher_sees_what_is_remembered_and_what_comes(chain: Chain) -> None:
    log = MemoryLog()
    log.append(chain.next())
    async with running(settings_for(chain.store), log, MemoryProducer(), both_arms(chain)) as (_, stub):
        call = stub.WatchApplied(ranking_pb2.WatchAppliedRequest(arm="online"))
        seen = [await call.read(), await call.read()]
        log.append(chain.next(rows=33))
        seen.append(await call.read())
        call.cancel()
    assert [(entry.model.sequence, entry.arm) for entry in seen] == [
        (0, "online"),
        (1, "online"),
        (2, "online"),
    ]
    assert seen[2].rows == 33 + 20 + 8 and seen[2].bytes == len(chain.values[2])
    assert times.to_us(seen[2].applied_at) > times.to_us(seen[2].created_at)
