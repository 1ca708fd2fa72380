"""The loop goes on while a view is added, served, learned and scored: two models of different columns answer
side by side, no request fails and no sample is lost, also with the feature server killed in between."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import grpc
import numpy as np
import pytest
import redis
from aiokafka import AIOKafkaConsumer, TopicPartition

from rec.events.v1.events_pb2 import EventRecord, SampleRecord
from rec.model.v1 import model_pb2
from rec.v1 import (
    feature_pb2,
    feature_pb2_grpc,
    gateway_pb2,
    gateway_pb2_grpc,
    ranking_pb2,
    ranking_pb2_grpc,
    release_pb2,
    release_pb2_grpc,
)
from services.contract import feature_events, model_store, redis_keys, topics
from services.contract.feature_view import FeatureView
from services.contract.model_schema import shape_of
from services.contract.signature import SIGNING_NAME, Signer
from services.contract.view_aggregates import Count, Feature
from services.contract.view_backfill import FILLED, ViewStart, start_key
from services.contract.view_codec import canonical
from services.contract.view_events import Event, Select
from services.contract.view_init import initial_states
from services.contract.view_log import log_of
from services.contract.view_registry import FeatureSet
from services.contract.view_ttl import ttl_s
from tests.feature_kit import FEATURES
from tests.trainer_kit import new_state

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

HOUR_US = 3_600_000_000
VIEW = FeatureView(
    "item_seen",
    1,
    ("item_id",),
    ("shown", "acted"),
    (Feature("shown", Count(Select("shown")), HOUR_US), Feature("acted", Count(Select("acted")), HOUR_US)),
    HOUR_US // 6,
)
WIDE = FeatureSet((*FEATURES.views, VIEW))
NAME = "world+item_seen.1"
SECONDS = 110
LOAD = (
    "--duration-s", str(SECONDS),
    "--rate", "10",
    "--min-answered-per-s", "1",
    "--min-delta-rows", "1",
    "--max-freshness-p50-s", "60",
    "--require-uplift", "false",
)  # fmt: skip


@contextmanager
def stub(loop, service: str, of) -> Iterator:
    with grpc.insecure_channel(loop.stack.addresses.target(service)) as channel:
        yield of(channel)


def add_view(loop) -> dict:
    command = [sys.executable, "-m", "services.feature_pipeline", "add-view", "--text", canonical(VIEW)]
    done = subprocess.run(
        command, env=loop.stack.environment(), text=True, capture_output=True, check=True, timeout=60
    )
    return json.loads(done.stdout)


async def read_all(loop, topic: topics.Topic) -> list:
    """Everything committed on a topic now."""
    where = [TopicPartition(topic.name, number) for number in range(topic.partitions)]
    consumer = AIOKafkaConsumer(
        bootstrap_servers=loop.stack.addresses.kafka_bootstrap, isolation_level="read_committed"
    )
    await consumer.start()
    try:
        consumer.assign(where)
        await consumer.seek_to_beginning(*where)
        ends = await consumer.end_offsets(where)
        found = []
        while any([await consumer.position(part) < ends[part] for part in where]):
            for records in (await consumer.getmany(timeout_ms=500)).values():
                found += records
        return found
    finally:
        await consumer.stop()


async def history(loop) -> list[Event]:
    """Every view event of impressions and actions, once; what day 0 had is not the view's."""
    found: dict[tuple[str, int], Event] = {}
    seen: set[str] = set()
    for topic in (topics.IMPRESSIONS, topics.ACTIONS):
        for raw in await read_all(loop, topic):
            record = EventRecord.FromString(raw.value)
            kind = record.WhichOneof("record")
            if kind not in ("impression", "action") or getattr(record, kind).event_id in seen:
                continue
            seen.add(getattr(record, kind).event_id)
            place = raw.topic, raw.partition, raw.offset
            for _, message in feature_events.split(record, *place, lambda _item: 0):
                for event in feature_events.view_events(message):
                    found[event.origin, event.sequence] = event
    return list(found.values())


def backfill(loop) -> int:
    """States of the view's history, as contract.view_backfill says; how many."""
    states = 0
    with redis.Redis.from_url(loop.stack.addresses.redis_url) as client:
        starts = {}
        for partition in range(topics.FEATURE_EVENTS.partitions):
            key = start_key(VIEW, partition)
            starts[partition] = loop.wait_until(
                lambda key=key: ViewStart.parse(client.hgetall(key)), 30, f"the fold begins {key!r}"
            )
        events = asyncio.run(history(loop))
        log = log_of(events, [0] * len(events))
        for partition, start in starts.items():
            mine = {
                entity: state
                for entity, state in initial_states(VIEW, log, start.cut()).items()
                if feature_events.owner(entity) == partition
            }
            for entity, state in mine.items():
                client.set(redis_keys.view_key(VIEW, entity), state, ex=ttl_s(VIEW))
            client.hsetnx(start_key(VIEW, partition), FILLED, len(mine))
            states += len(mine)
    return states


def served_set(loop) -> str:
    with stub(loop, "feature", feature_pb2_grpc.FeatureServiceStub) as feature:
        try:
            return feature.ListFeatureViews(feature_pb2.ListFeatureViewsRequest(), timeout=5).feature_set
        except grpc.RpcError:
            return ""


def register_wide_model(loop) -> int:
    """An untrained model of the new shape, and the arm ``candidate`` that follows its lineage."""
    state = new_state(shape=shape_of(WIDE))
    state.created_at_us = time.time_ns() // 1000
    saved = model_store.save_base(
        loop.stack.addresses.model_store_uri,
        state,
        created_at_us=state.created_at_us,
        parent_generation=1,
        signer=Signer.read(str(loop.stack.paths.model_keys / SIGNING_NAME)),
    )
    with stub(loop, "release", release_pb2_grpc.ReleaseServiceStub) as release:
        answer = release.RegisterGeneration(
            release_pb2.RegisterGenerationRequest(
                manifest_uri=saved.manifest_uri, manifest_digest=saved.manifest_digest, parent_generation=1
            ),
            timeout=20,
        )
        release.SetArm(
            release_pb2.SetArmRequest(
                arm="candidate",
                lineage=model_pb2.Lineage(generation=answer.generation, policy="online"),
                state=model_pb2.RELEASE_STATE_SERVING,
            ),
            timeout=20,
        )
    return int(answer.generation)


def sequence_of(loop, arm: str) -> int:
    with stub(loop, "ranking", ranking_pb2_grpc.RankingServiceStub) as ranking:
        arms = ranking.GetModelStatus(ranking_pb2.GetModelStatusRequest(), timeout=10).arms
    return max((int(one.model.sequence) for one in arms if one.arm == arm), default=-1)


class Asked:
    """Answers of both arms: what they were scored with, and what was degraded."""

    def __init__(self, loop) -> None:
        self._loop = loop
        self.hashes: set[int] = set()
        self.degraded: Counter[str] = Counter()
        self.generations: dict[str, set[int]] = {"online": set(), "candidate": set()}

    def ask(self, seconds: float) -> Asked:
        with stub(self._loop, "gateway", gateway_pb2_grpc.GatewayServiceStub) as gateway:
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                for arm, seen in self.generations.items():
                    request = gateway_pb2.RecommendRequest(user_key=f"u{len(seen)}", n=5, arm=arm)
                    answer = gateway.Recommend(request, timeout=5)
                    assert len(answer.items) == 5
                    if answer.provenance.scored:
                        seen.add(int(answer.provenance.model.lineage.generation))
                    self.hashes.add(int(answer.provenance.feature_schema_hash))
                    self.degraded.update(f"{p.source}: {p.reason}" for p in answer.provenance.degraded)
                time.sleep(0.05)
        return self


def test_a_view_is_added_served_and_learned_while_the_loop_runs(loop) -> None:
    load = loop.simulate(*LOAD)
    loop.wait_until(lambda: sequence_of(loop, "online") > 3, 60, "the loop turns")
    assert served_set(loop) == "world"
    assert add_view(loop)["added"]
    assert backfill(loop) > 20
    loop.wait_until(lambda: served_set(loop) == NAME, 60, f"{NAME} is served")

    generation = register_wide_model(loop)
    loop.wait_until(lambda: sequence_of(loop, "candidate") > 3, 60, "the wide model learns and is followed")
    both = Asked(loop).ask(3)
    assert both.generations == {"online": {1}, "candidate": {generation}}
    assert both.hashes == {WIDE.schema_hash}
    assert not [why for why in both.degraded if "feature" in why or "ranking" in why]

    loop.stack.kill("feature", signal.SIGKILL)
    dead = Asked(loop).ask(3)
    assert dead.generations == both.generations
    assert {"feature: unavailable", "ranking.features: columns_missing"} <= set(dead.degraded)
    loop.stack.restart("feature")
    # Whoever says SERVING knows what was served before; the gateway has to find it again.
    assert served_set(loop) == NAME
    time.sleep(2)
    back = Asked(loop).ask(2)
    assert (back.generations, back.hashes) == (both.generations, {WIDE.schema_hash})
    learned = sequence_of(loop, "candidate")
    loop.wait_until(lambda: sequence_of(loop, "candidate") > learned, 30, "the wide model goes on")

    output, _ = load.communicate(timeout=SECONDS + 120)
    figures = json.loads((loop.out / "demo.json").read_text())
    assert figures["errors"] == figures["duplicates"] == 0, output
    assert figures["samples"] + sum(figures["rejected_items"].values()) == figures["impressions"] > 0
    assert set(figures["rejected_items"]) <= {"unscored", "late"}, output

    rows: Counter[int] = Counter()
    shown_before = 0
    sets = {one.schema_hash: one for one in (FEATURES, WIDE)}
    for raw in asyncio.run(read_all(loop, topics.SAMPLES)):
        sample = SampleRecord.FromString(raw.value).sample
        count = len(sample.item_ids) // 8
        if count:
            rows[sample.schema_hash] += count
            width, at = sets[sample.schema_hash].item_width, FEATURES.item_width
            items = np.frombuffer(sample.item_features, "<f4").reshape(count, width)
            shown_before += int((items[:, at : at + 1] > 0).sum())
    assert min(rows[one] for one in sets) > 100, rows
    # An item may be shown for the first time, but most have been within the hour.
    assert shown_before > rows[WIDE.schema_hash] / 3, (shown_before, rows)
    # Samples of before are nobody's fault, and of no use to the wide model alone.
    assert not asyncio.run(read_all(loop, topics.DEAD_LETTERS))
