"""label-first and lookup as processes on real Kafka: the stream's samples, kills, a table that is gone."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
import redis
from joiner_kit import CONFIG, JoinerProcess, committed_records
from oracles.join_logs import IMP, S, feed_all
from oracles.join_traffic import TOPIC, Placed, closing, logs_by_partition, traffic
from oracles.slim_traffic import catalogue, slimmed, widened

from rec.events.v1 import events_pb2 as ev
from rec.v1 import feature_pb2, feature_pb2_grpc
from services.contract import redis_keys, times, topics, view_store
from services.contract.batch_view import table
from services.contract.join import JoinTask
from services.contract.join_lookup import LookupTask
from services.contract.join_output import HEADER_DETAIL, Output, Rejected, Sample
from services.contract.lake_store import LakeStore
from services.runtime.kafka_producer import Producer
from services.runtime.settings import KafkaSettings
from tests.feature_kit import FEATURES, listed, states_of

pytestmark = pytest.mark.integration
START_US = 10**15
# Of the 200 items of the traffic; the others are newborn.
KNOWN = table(1, catalogue(1, 150, START_US))
SLIM = topics.FEATURE_SNAPSHOTS_SLIM.name


@pytest.fixture
def kafka(private_kafka) -> KafkaSettings:
    return KafkaSettings(bootstrap_servers=private_kafka.bootstrap)


@pytest.fixture
async def producer(kafka: KafkaSettings) -> AsyncIterator[Producer]:
    made = Producer(kafka, "test")
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
def joiners(private_kafka, tmp_path: Path, free_ports) -> Iterator:
    """Starts joiners; kills what is left of them."""
    started: list[JoinerProcess] = []

    def start(*settings: str, inputs: int = 3) -> JoinerProcess:
        log = tmp_path / f"joiner-{len(started)}.log"
        where = (private_kafka.bootstrap, free_ports(1)[0], log)
        started.append(JoinerProcess(*where, *settings, inputs=inputs))
        return started[-1]

    yield start
    for joiner in started:
        joiner.kill()


def wide(seed: int, requests: int) -> list[Placed]:
    """Traffic whose snapshots have features of real width."""
    made = []
    for place, (source, partition, key, raw) in enumerate([*traffic(seed, requests), *closing()]):
        value = raw
        if source is S and (record := ev.EventRecord.FromString(raw)).HasField("snapshot"):
            value = widened(record, KNOWN, place).SerializeToString()
        made.append((source, partition, key, value))
    return made


async def send(producer: Producer, placed: list[Placed], pause_s: float = 0.0) -> None:
    """In order; snapshots slim."""
    for at in range(0, len(placed), 50):
        sent = []
        for source, partition, key, raw in placed[at : at + 50]:
            topic, value = TOPIC[source], raw
            if source is S:
                record = ev.EventRecord.FromString(raw)
                topic = SLIM
                value = slimmed(record, KNOWN).SerializeToString() if record.HasField("snapshot") else raw
            sent.append(producer.send_nowait(topic, value, key=key, partition=partition))
        await asyncio.gather(*sent)
        await asyncio.sleep(pause_s)


def said_by(outputs: list[Output]) -> Counter:
    """Samples byte for byte, other rows by reason and place."""
    said: Counter = Counter()
    for o in outputs:
        if isinstance(o, Sample):
            said[o.message.SerializeToString(deterministic=True)] += 1
        elif isinstance(o, Rejected):
            said[str(o.reason), int(o.source), o.offset, o.items] += 1
    return said


def said_in(records: dict[str, list], suffix: str = "") -> list[Counter]:
    """The same of what was committed, per partition."""
    said: list[Counter] = [Counter() for _ in range(topics.EVENT_PARTITIONS)]
    sources = {**{topic: int(source) for source, topic in TOPIC.items()}, SLIM: int(S)}
    for record in records[f"samples{suffix}"]:
        sample = ev.SampleRecord.FromString(record.value).sample
        sample.ClearField("joined_at")
        said[record.partition][sample.SerializeToString(deterministic=True)] += 1
    for record in records[f"late-events{suffix}"] + records[f"dead-letters{suffix}"]:
        headers = {name: value.decode(errors="replace") for name, value in record.headers}
        partition, offset = int(headers["origin-partition"]), int(headers["origin-offset"])
        what = (headers["reason"], sources[headers["origin-topic"]], offset, int(headers["items"]))
        said[partition][what] += 1
    return said


async def test_label_first_says_the_streams_samples_byte_for_byte_through_kills(
    joiners, kafka: KafkaSettings, producer: Producer, tmp_path: Path
) -> None:
    view_store.publish(LakeStore(str(tmp_path / "lake")), KNOWN)
    settings = ("--scheme", "label-first", "--lake_uri", str(tmp_path / "lake"))
    placed = wide(5, 2000)
    load = asyncio.create_task(send(producer, placed, pause_s=0.03))
    joiner = joiners(*settings)
    peaks = []
    for _ in range(3):
        await asyncio.sleep(4)
        await joiner.until_owning(4)
        peaks.append((await joiner.status()).numbers["held_bytes_max"])
        joiner.kill()
        joiner = joiners(*settings)
    await load
    await joiner.until_caught_up(4, within_s=90)
    records = await committed_records(kafka)
    for logs, found in zip(logs_by_partition(placed), said_in(records), strict=True):
        wanted = said_by(feed_all(JoinTask(CONFIG), logs, []))
        assert found - wanted == Counter(), "said twice or wrongly"
        assert wanted - found == Counter(), "lost"
    status = await joiner.status()
    assert {row.topic for row in status.partitions} == {SLIM, "impressions", "actions"}
    # Each since its process started: the last one's is 0 when all had been said before the last kill.
    assert max(*peaks, status.numbers["held_bytes_max"]) > 0
    assert joiner.terminate() == 0


async def test_snapshots_whose_table_is_gone_are_dead_letters_and_their_items_are_snapshot_lost(
    joiners, kafka: KafkaSettings, producer: Producer, tmp_path: Path
) -> None:
    placed = wide(6, 200)
    await send(producer, placed)
    joiner = joiners("--scheme", "label-first", "--lake_uri", str(tmp_path / "empty"))
    await joiner.until_caught_up(4)
    records = await committed_records(kafka)
    dead = [
        dict(record.headers)
        for record in records["dead-letters"]
        if dict(record.headers)["reason"] == b"features_lost"
    ]
    assert len(dead) > 100
    assert {headers[HEADER_DETAIL] for headers in dead} == {b"batch view item_catalog/v1/1 is gone"}
    assert {headers[topics.HEADER_ORIGIN_TOPIC] for headers in dead} == {SLIM.encode()}
    assert records["samples"] == []
    said = sum(said_in(records), Counter())
    wanted: Counter = sum(
        (said_by(feed_all(JoinTask(CONFIG), logs, [])) for logs in logs_by_partition(placed)), Counter()
    )
    lost = sum(what[3] * n for what, n in said.items() if what[0] == "snapshot_lost" and what[1] == IMP)
    joined = sum(
        len(ev.TrainingSample.FromString(what).item_ids) // 8 * n
        for what, n in wanted.items()
        if isinstance(what, bytes)
    )
    before = sum(
        what[3] * n
        for what, n in wanted.items()
        if what[0] in ("snapshot_lost", "not_in_snapshot") and what[1] == IMP
    )
    assert lost == joined + before


async def test_the_state_of_another_scheme_is_refused(
    joiners, kafka: KafkaSettings, producer: Producer
) -> None:
    """Impressions are open: only the scheme that holds them may go on."""
    await send(producer, [one for one in wide(7, 100)[:200] if one[0] is not S])
    joiner = joiners("--scheme", "label-first", "--lake_uri", "memory://nowhere")
    await joiner.until_caught_up(4)
    assert joiner.terminate() == 0
    other = joiners()
    assert await asyncio.to_thread(other.child.wait, 30) != 0
    assert "let the windows close first" in other.log.read_text()


class FeatureServer:
    """One ``python -m services.feature``."""

    def __init__(self, redis_url: str, port: int, log: Path) -> None:
        self.port = port
        command = [
            *(sys.executable, "-m", "services.feature", "--redis.url", redis_url),
            *("--grpc.port", str(port), "--grpc.admin_port", "0", "--grpc.metrics_port", "0"),
            *("--follow_views", "false"),
        ]
        with log.open("ab") as out:
            self.child = subprocess.Popen(command, stdout=out, stderr=out)

    async def ask(self, sample: ev.TrainingSample, at_us: int) -> feature_pb2.GetFeaturesResponse:
        """The features of a sample's rows at a time."""
        async with grpc.aio.insecure_channel(f"127.0.0.1:{self.port}") as channel:
            request = feature_pb2.GetFeaturesRequest(
                user_id=sample.user_id, item_ids=sample.item_ids, occurred_at=times.from_us(at_us)
            )
            return await feature_pb2_grpc.FeatureServiceStub(channel).GetFeatures(
                request, timeout=5, wait_for_ready=True
            )


async def test_lookup_waits_for_the_feature_server_and_takes_what_it_says_at_t6(
    joiners, kafka: KafkaSettings, producer: Producer, redis_url: str, free_ports
) -> None:
    made = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "local.topic_setup", "-lookup"],
        env={**os.environ, "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers},
        check=False,
    )
    assert made.returncode == 0
    states = states_of(listed(*row, number) for number, row in enumerate(catalogue(2, 199, START_US)))
    with redis.Redis.from_url(redis_url) as client:
        for (_, entity), state in states.items():
            client.set(redis_keys.view_key(FEATURES.catalogue, entity), state)
    port = free_ports(1)[0]
    placed = [*traffic(8, 400), *closing(at_us=START_US + 60 * 10**6)]
    await send(producer, [one for one in placed if one[0] is not S])
    joiner = joiners(
        *("--scheme", "lookup", "--feature_target", f"127.0.0.1:{port}", "--output_suffix=-lookup"),
        *("--group_id", "joiner-lookup", "--retry_ms", "100"),
        inputs=2,
    )
    await joiner.until_owning(4)
    await asyncio.sleep(2)
    assert (await committed_records(kafka, "-lookup"))["samples-lookup"] == []
    server = FeatureServer(redis_url, port, joiner.log.with_name("feature.log"))
    try:
        await joiner.until_caught_up(4)
        records = await committed_records(kafka, "-lookup")
        sample = ev.SampleRecord.FromString(records["samples-lookup"][0].value).sample
        # Everything was read before the server came: t6 is the end of the inputs.
        answer = await server.ask(sample, START_US + 60 * 10**6)
        assert (sample.item_features, sample.user_features) == (answer.item_features, answer.user_features)
        matrix = np.frombuffer(sample.item_features, "<f4").reshape(-1, FEATURES.item_width)
        assert matrix[:, FEATURES.batch].any(axis=0).all()
    finally:
        server.child.kill()
        server.child.wait()
    assert (await committed_records(kafka))["samples"] == []
    for logs, found in zip(logs_by_partition(placed), said_in(records, "-lookup"), strict=True):
        wanted = said_by(feed_all(LookupTask(CONFIG), {**logs, S: []}, []))
        assert Counter(map(without_features, found.elements())) == wanted
    assert joiner.terminate() == 0


def without_features(what: bytes | tuple) -> bytes | tuple:
    if isinstance(what, tuple):
        return what
    sample = ev.TrainingSample.FromString(what)
    assert sample.schema_hash == FEATURES.schema_hash
    assert 8 * len(sample.item_features) == 4 * FEATURES.item_width * len(sample.item_ids)
    for field in ("schema_hash", "user_features", "item_features"):
        sample.ClearField(field)
    return sample.SerializeToString(deterministic=True)


async def test_the_catalogue_is_published_as_the_next_table_when_it_has_changed(
    kafka: KafkaSettings, producer: Producer, tmp_path: Path
) -> None:
    async def list_item(item: int, category: int) -> None:
        value = ev.Item(item_id=item, category=category, created_at=times.from_us(START_US))
        await producer.send(
            topics.CATALOG.name, value.SerializeToString(), topics.entity_key(item), partition=0
        )

    def publish() -> tuple[int, dict]:
        command = [
            *(sys.executable, "-m", "services.lake", "publish-views", "--lake_uri", str(tmp_path / "lake")),
            *("--kafka.bootstrap_servers", kafka.bootstrap_servers),
        ]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        return done.returncode, json.loads(done.stdout)

    assert (await asyncio.to_thread(publish))[0] == 1
    for item in range(1, 20):
        await list_item(item, item % 5)
    code, first = await asyncio.to_thread(publish)
    assert (code, first["partition"], first["items"], first["new"]) == (0, 1, 19, True)
    _, same = await asyncio.to_thread(publish)
    assert (same["partition"], same["new"]) == (1, False)
    await list_item(3, 60)
    await producer.send(topics.CATALOG.name, b"\xff\xff", topics.entity_key(7), partition=0)
    _, second = await asyncio.to_thread(publish)
    assert (second["partition"], second["items"], second["new"]) == (2, 19, True)
    store = LakeStore(str(tmp_path / "lake"))
    tables = [
        view_store.read(store, ev.BatchView(view="item_catalog", version=1, partition=p)) for p in (1, 2)
    ]
    assert [int(one.category[2]) for one in tables] == [3, 60]
    with contextlib.suppress(FileExistsError):
        view_store.publish(store, tables[0])
        pytest.fail("a partition was overwritten")
