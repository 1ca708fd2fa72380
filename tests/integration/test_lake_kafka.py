"""The lake's writer as a process on real Kafka: killed, frozen, two at once, terminated."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from oracles.join_logs import heartbeat, one_sample
from oracles.join_traffic import TOPIC, traffic

from rec.events.v1 import events_pb2 as ev
from rec.v1 import lake_pb2, lake_pb2_grpc, worker_pb2, worker_pb2_grpc
from services.contract import topics
from services.contract.lake_files import BrokenFile, files, scan
from services.contract.lake_rows import SCHEMAS, TABLES, TOPIC_OF, LogRecord, to_table
from services.contract.lake_store import LakeStore
from services.contract.topics import EVENT_PARTITIONS, entity_key, partition_of, request_key
from services.runtime.kafka_consumer import LogReader, TopicPartition
from services.runtime.kafka_producer import Producer
from services.runtime.kafka_transactions import TransactionalProducer
from services.runtime.settings import KafkaSettings

pytestmark = pytest.mark.integration
SESSION_MS = 2000
PARTITIONS = sum(topic.partitions for topic in topics.ALL if topic.name in TOPIC_OF.values())
Sent = tuple[str, int, bytes, bytes]


class LakeProcess:
    """One ``python -m services.lake``."""

    def __init__(self, bootstrap: str, port: int, lake: Path, log: Path, flush_ms: int) -> None:
        self.port = port
        command = [
            *(sys.executable, "-m", "services.lake", "--lake_uri", str(lake)),
            *("--grpc.port", str(port), "--grpc.admin_port", "0", "--grpc.metrics_port", "0"),
            *("--flush_age_ms", str(flush_ms), "--flush_records", "100"),
            *("--kafka.session_timeout_ms", str(SESSION_MS), "--kafka.bootstrap_servers", bootstrap),
        ]
        self.log = log
        with log.open("ab") as out:
            self.child = subprocess.Popen(command, stdout=out, stderr=out, env={**os.environ})

    def kill(self) -> None:
        self.child.kill()
        self.child.wait()

    def terminate(self) -> int:
        self.child.terminate()
        return self.child.wait(20)

    async def status(self) -> worker_pb2.GetWorkerStatusResponse:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{self.port}") as channel:
            stub = worker_pb2_grpc.WorkerServiceStub(channel)
            return await stub.GetWorkerStatus(
                worker_pb2.GetWorkerStatusRequest(), timeout=5, wait_for_ready=True
            )

    async def until_owning(self, partitions: int, *, caught_up: bool = False, within_s: float = 60.0) -> None:
        """Until it has opened so many partitions or more, and (caught up) the lake has all their records."""
        deadline = time.monotonic() + within_s
        rows: list[worker_pb2.PartitionStatus] = []
        while time.monotonic() < deadline:
            assert self.child.poll() is None, self.log.read_text()
            with contextlib.suppress(grpc.aio.AioRpcError):
                rows = list((await self.status()).partitions)
                if len(rows) >= partitions and (not caught_up or all(map(covered, rows))):
                    return
            await asyncio.sleep(0.1)
        raise AssertionError(f"{rows}\n{self.log.read_text()[-3000:]}")


def covered(row: worker_pb2.PartitionStatus) -> bool:
    """Whether nothing is left but, at most, the mark of a transaction's end."""
    return row.committed >= row.end - 1 if row.topic == topics.SAMPLES.name else row.committed == row.end


@pytest.fixture
def lakes(private_kafka, tmp_path: Path, free_ports) -> Iterator:
    """Starts writers of one lake; kills what is left of them."""
    started: list[LakeProcess] = []

    def start(flush_ms: int = 50) -> LakeProcess:
        log = tmp_path / f"lake-{len(started)}.log"
        lake = LakeProcess(private_kafka.bootstrap, free_ports(1)[0], tmp_path / "lake", log, flush_ms)
        started.append(lake)
        return lake

    yield start
    for lake in started:
        lake.kill()


@pytest.fixture
def kafka(private_kafka) -> KafkaSettings:
    return KafkaSettings(bootstrap_servers=private_kafka.bootstrap)


@pytest.fixture
def lake(tmp_path: Path) -> str:
    return str(tmp_path / "lake")


def sample(request: str) -> bytes:
    """A record of three samples."""
    message = ev.TrainingSample()
    message.CopyFrom(one_sample())
    message.request_id = request
    return ev.SampleRecord(sample=message).SerializeToString()


def listing(item_id: int) -> bytes:
    """A record of the catalogue."""
    return ev.Item(item_id=item_id, item_key=f"i{item_id}", category=item_id % 7).SerializeToString()


def records(seed: int, requests: int) -> list[Sent]:
    """Traffic on the three event topics and the catalogue (poison included), samples of some requests."""
    found = [(TOPIC[source], partition, key, raw) for source, partition, key, raw in traffic(seed, requests)]
    for at in range(0, requests, 2):
        key = request_key(f"{seed}-{at}")
        raw = sample(f"{seed}-{at}") if at % 50 else b"\xff"
        place = at * len(found) // requests
        found.insert(place, (topics.SAMPLES.name, partition_of(key, EVENT_PARTITIONS), key, raw))
        found.insert(place, (topics.CATALOG.name, 0, entity_key(at), listing(at) if at % 50 else b"\xff"))
    return found


async def send(kafka: KafkaSettings, sent: list[Sent], pause_s: float = 0.0, every: int = 50) -> None:
    """Sends in order: events plainly, samples in transactions, of which every third is taken back."""
    producer, joiner = Producer(kafka, "test"), TransactionalProducer(kafka, "test-samples")
    await producer.start()
    await joiner.start()
    try:
        for number, at in enumerate(range(0, len(sent), every)):
            part = sent[at : at + every]
            await joiner.begin()
            for topic, partition, key, raw in part:
                if topic == topics.SAMPLES.name:
                    joiner.send_nowait(topic, raw, key=key, partition=partition)
            await asyncio.gather(
                *(
                    producer.send_nowait(topic, raw, key=key, partition=partition)
                    for topic, partition, key, raw in part
                    if topic != topics.SAMPLES.name
                )
            )
            await (joiner.abort() if number % 3 == 2 else joiner.commit())
            await asyncio.sleep(pause_s)
        # So that no partition ends with records that were taken back.
        await joiner.begin()
        for partition in range(EVENT_PARTITIONS):
            joiner.send_nowait(topics.SAMPLES.name, sample(uuid.uuid4().hex), partition=partition)
        await joiner.commit()
    finally:
        await producer.stop()
        await joiner.stop()


async def in_kafka(kafka: KafkaSettings, table: str) -> list[LogRecord]:
    """Every committed record of a table's topic, by partition and offset."""
    found: list[LogRecord] = []
    reader = LogReader(kafka, "check")
    await reader.start()
    try:
        count = topics.CATALOG.partitions if table == "items" else EVENT_PARTITIONS
        places = [TopicPartition(TOPIC_OF[table], p) for p in range(count)]
        ends = await reader.end_offsets(places)
        reader.assign(dict.fromkeys(places, 0))
        while any([await reader.position(place) < ends[place] for place in places]):
            for batch in (await reader.poll(200, 5000)).values():
                found += [LogRecord(one.partition, one.offset, one.timestamp, one.value) for one in batch]
    finally:
        await reader.stop()
    return sorted(found, key=lambda one: (one.partition, one.offset))


async def check(kafka: KafkaSettings, lake: str) -> dict[str, int]:
    """Every committed record's rows stand in the lake once, as they should be; how many rows."""
    rows: dict[str, int] = {}
    for table in TABLES:
        wanted = to_table(table, await in_kafka(kafka, table))
        order = [
            (name, "ascending") for name in ("partition", "offset", "row") if name in SCHEMAS[table].names
        ]
        found = scan(lake, table).sort_by(order)
        key = [name for name, _ in order]
        assert found.select(key).to_pylist() == wanted.select(key).to_pylist(), f"{table}: lost or twice"
        assert found.equals(wanted), table
        rows[table] = found.num_rows
    return rows


def cut_largest(lake: str, table: str) -> Path:
    """Cuts the largest file that counts in the middle."""
    _, file = max(files(LakeStore(lake), table), key=lambda one: one[1].bytes)
    path = Path(lake) / table / file.path
    path.write_bytes(path.read_bytes()[: file.bytes // 2])
    return path


@contextlib.contextmanager
def table_away(lake: str, table: str) -> Iterator[None]:
    """A file stands where the table's folder was: nothing can be written there."""
    folder, aside = Path(lake, table), Path(lake, "aside")
    folder.rename(aside)
    folder.write_text("not a folder")
    yield
    folder.unlink()
    aside.rename(folder)


async def forget(kafka: KafkaSettings, topic: str) -> None:
    """Deletes all records of a topic, as retention does."""
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
    await admin.start()
    try:
        reader = LogReader(kafka, "ends")
        await reader.start()
        ends = await reader.end_offsets([TopicPartition(topic, p) for p in range(EVENT_PARTITIONS)])
        await reader.stop()
        await admin.delete_records({where: RecordsToDelete(end) for where, end in ends.items()})
    finally:
        await admin.close()


def command(lake: str, *words: str, code: int = 0) -> list[dict]:
    done = subprocess.run(
        [sys.executable, "-m", "services.lake", words[0], "--lake_uri", lake, *words[1:]],
        capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def orphans_removed(lake: str) -> int:
    logs = Path(lake).parent.glob("lake-*.log")
    return sum(log.read_text().count("orphan removed") for log in logs)


def days_of(lake: str) -> set[str]:
    return {path.name.removeprefix("day=") for path in Path(lake).glob("*/day=*")}


async def its_features_can_be_read(writer: LakeProcess) -> None:
    """Over the process's own port, by what its lake holds now."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{writer.port}") as channel:
        request = lake_pb2.GetHistoricalFeaturesRequest(
            item_ids=np.array([2, 10**6], "<u8").tobytes(),
            occurred_us=np.array([10**15] * 2, "<i8").tobytes(),
            features=["item_catalogue_category"],
        )
        answers = lake_pb2_grpc.LakeServiceStub(channel).GetHistoricalFeatures(request, timeout=30)
        (chunk,) = [chunk async for chunk in answers]
    assert np.frombuffer(chunk.values, "<f4").tolist() == [2.0, 0.0]
    assert chunk.missing == b"\x00\x01"


async def test_every_committed_record_is_in_the_lake_and_compaction_keeps_it(lakes, kafka, lake) -> None:
    writer = lakes()
    # Before it owns them there is nothing to flush in small pieces.
    await writer.until_owning(PARTITIONS)
    await send(kafka, records(1, 600))
    await writer.until_owning(PARTITIONS, caught_up=True)
    rows = await check(kafka, lake)
    assert rows.pop("items") == 300
    await its_features_can_be_read(writer)
    assert all(count > 400 for count in rows.values()), rows
    count = sum(line["files"] for line in command(lake, "check"))
    for day in days_of(lake):
        command(lake, "compact", "--day", day)
    await check(kafka, lake)
    lines = command(lake, "check")
    assert sum(line["files"] for line in lines) < count / 2
    assert {line["table"]: line["bad_records"] > 0 for line in lines}["samples"]
    # It goes on where compaction has been at work.
    await send(kafka, records(2, 100))
    await writer.until_owning(PARTITIONS, caught_up=True)
    assert (await check(kafka, lake))["snapshots"] > rows["snapshots"]


async def test_a_file_cut_off_in_the_middle_is_written_anew_from_kafka_or_its_loss_is_named(
    lakes, kafka, lake
) -> None:
    writer = lakes()
    await send(kafka, records(6, 300))
    await writer.until_owning(PARTITIONS, caught_up=True)
    for day in days_of(lake):
        command(lake, "compact", "--day", day)
    rows = await check(kafka, lake)
    cut = [cut_largest(lake, table) for table in ("snapshots", "samples")]
    with pytest.raises(BrokenFile):
        scan(lake, "samples")
    address = ("--kafka.bootstrap_servers", kafka.bootstrap_servers)
    done = command(lake, "repair", *address)
    assert [(line["problem"], line["path"].rpartition("/")[2]) for line in done] == [
        ("repaired", path.name) for path in cut
    ]
    assert await check(kafka, lake) == rows
    assert not [line for line in command(lake, "check") if "problem" in line]

    # Now Kafka forgets.
    cut_largest(lake, "actions")
    await forget(kafka, topics.ACTIONS.name)
    (line,) = command(lake, "repair", *address, code=1)
    assert (line["problem"], line["table"]) == ("lost", "actions")
    assert line["rows"] > 0
    (again,) = command(lake, "repair", *address, "--accept_loss", "true")
    assert (again["problem"], again["first"], again["last"]) == ("dropped", line["first"], line["last"])
    assert scan(lake, "actions").num_rows == rows["actions"] - line["rows"]


def stop_in_a_flush(writer: subprocess.Popen, lake: Path, within_s: float = 10.0) -> None:
    """Stops the writer where a file stands that no record names yet."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        writer.send_signal(signal.SIGSTOP)
        named = "".join(record.read_text() for record in lake.glob("*/_log/*/*.json"))
        if any(file.name not in named for file in lake.rglob("*.parquet")):
            return
        writer.send_signal(signal.SIGCONT)
        time.sleep(0.002)


async def test_kill_9_in_the_middle_of_flushes_loses_nothing_and_writes_nothing_twice(
    lakes, kafka, lake
) -> None:
    rng, writer = random.Random(3), lakes()
    for number in range(6):
        await writer.until_owning(PARTITIONS)
        # Begun only now: a writer that starts slowly would otherwise find nothing left to flush.
        load = asyncio.create_task(send(kafka, records(30 + number, 500), pause_s=0.05))
        await asyncio.sleep(rng.uniform(0.0, 0.6))
        if number % 2 == 0:
            await asyncio.to_thread(stop_in_a_flush, writer.child, Path(lake))
        writer.kill()
        writer = lakes()
        await load
    await writer.until_owning(PARTITIONS, caught_up=True)
    rows = await check(kafka, lake)
    assert rows["snapshots"] > 2500
    assert orphans_removed(lake) > 0, "no kill met a flush"
    assert not [line for line in command(lake, "check") if "problem" in line]


async def test_a_frozen_writer_that_comes_back_and_its_heir_write_every_record_once(
    lakes, kafka, lake
) -> None:
    zombie = lakes()
    await zombie.until_owning(PARTITIONS)
    load = asyncio.create_task(send(kafka, records(4, 2500), pause_s=0.05))
    await asyncio.sleep(1.5)
    zombie.child.send_signal(signal.SIGSTOP)
    heir = lakes()
    await heir.until_owning(PARTITIONS)
    await asyncio.sleep(0.5)
    zombie.child.send_signal(signal.SIGCONT)
    await load
    await zombie.until_owning(PARTITIONS // 2, caught_up=True)
    await heir.until_owning(PARTITIONS // 2, caught_up=True)
    await check(kafka, lake)
    # One that leaves hands over what it has.
    await send(kafka, records(5, 50))
    assert zombie.terminate() == 0
    await heir.until_owning(PARTITIONS, caught_up=True)
    await check(kafka, lake)


async def test_while_the_store_fails_little_is_held_and_nothing_is_lost(lakes, kafka, lake) -> None:
    writer = lakes()
    await writer.until_owning(PARTITIONS)
    await send(kafka, records(7, 50))
    await writer.until_owning(PARTITIONS, caught_up=True)
    with table_away(lake, "actions"):
        await send(kafka, records(8, 6000), every=500)
        await asyncio.sleep(3)
        held = (await writer.status()).numbers["buffered_records"]
        assert 0 < held < 6000, "one poll above what was due, not everything"
    await writer.until_owning(PARTITIONS, caught_up=True)
    await check(kafka, lake)
    assert not [line for line in command(lake, "check") if "problem" in line]


async def test_a_writer_that_is_told_to_stop_writes_what_it_holds(lakes, kafka, lake) -> None:
    writer = lakes(flush_ms=3_600_000)
    await writer.until_owning(PARTITIONS)
    beats = [(TOPIC_OF[table], p, b"", heartbeat(10**15)) for table in TABLES[:3] for p in range(4)]
    beats.append((topics.CATALOG.name, 0, entity_key(1), listing(1)))
    await send(kafka, beats)
    deadline = time.monotonic() + 20
    while (await writer.status()).numbers["buffered_records"] < len(beats) + EVENT_PARTITIONS:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
    assert scan(lake, "actions").num_rows == 0
    assert writer.terminate() == 0
    assert await check(kafka, lake) == {
        "snapshots": 4, "impressions": 4, "actions": 4, "samples": 12, "items": 1,
    }  # fmt: skip
