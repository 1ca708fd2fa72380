"""Following a click through real topics, with deltas of a real trainer: found, refused, never joined."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator, Iterator

import numpy as np
import pytest

from loadgen.trace_follow import StoryEnds, Trail
from loadgen.trace_log import SLACK_US, TopicLog
from loadgen.trace_story import Story
from loadgen.visit import click, impression
from local.kafka_server import KafkaServer
from rec.events.v1.events_pb2 import EventRecord, FeatureSnapshot
from rec.model.v1.model_pb2 import Lineage, ModelVersion, OffsetRange, Release, Rollback, RolledBack
from services.contract import columns, topics
from services.contract.times import from_us
from services.runtime.kafka_producer import Producer, RecordMetadata
from services.runtime.settings import KafkaSettings
from tests.trainer_kit import World, new_core, sample_bytes
from trainer.samples import RawRecord

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]
PATIENCE_S = 1.0


class Topics:
    """One request's way through the topics, written as the services write it."""

    def __init__(self, producer: Producer) -> None:
        self.producer = producer
        self.began_us = time.time_ns() // 1000 - SLACK_US
        self.story = Story(f"r-{uuid.uuid4().hex}")
        self.key = topics.request_key(self.story.request_id)
        # A lineage of its own: the broker is shared.
        self.policy = f"p{uuid.uuid4().hex[:8]}"
        self.core = new_core(partitions=4)
        self.core.state.generation, self.core.state.policy = 1, self.policy
        self.world = World(3)
        self.sample = self.world.sample(rows=3, labels=np.array([0, 1, 0]))
        self.sample.request_id = self.story.request_id
        self.sample.model.CopyFrom(
            ModelVersion(lineage=Lineage(generation=1, policy=self.policy), sequence=4)
        )
        self.items = np.frombuffer(self.sample.item_ids, columns.U64).tolist()

    async def events(self) -> None:
        """Scored, shown, clicked: at the second item."""
        request_id, user_id, now_us = self.story.request_id, self.sample.user_id, time.time_ns() // 1000
        snapshot = FeatureSnapshot(
            request_id=request_id,
            scored_at=from_us(now_us),
            model=self.sample.model,
            arm="online",
            item_ids=self.sample.item_ids,
        )
        shown = impression(request_id, user_id, self.items, now_us, scored=True)
        clicked = click(request_id, user_id, self.items[1], now_us)
        for topic, event in (
            (topics.FEATURE_SNAPSHOTS, EventRecord(snapshot=snapshot)),
            (topics.IMPRESSIONS, EventRecord(impression=shown)),
            (topics.ACTIONS, EventRecord(action=clicked)),
        ):
            await self.producer.send(topic.name, event.SerializeToString(), self.key)

    async def joined(self) -> RecordMetadata:
        """The sample, appended."""
        return await self.producer.send(topics.SAMPLES.name, sample_bytes(self.sample), self.key)

    async def learned(self, *records: RawRecord) -> int:
        """A delta of what the trainer's core has learned from these records; its sequence."""
        self.core.train(list(records), time.time_ns() // 1000)
        plan = self.core.build(time.time_ns() // 1000)
        assert plan is not None
        await self.producer.send(
            topics.MODEL_DELTAS.name,
            plan.value,
            topics.lineage_key(1, self.policy),
            partition=topics.delta_partition(1, self.policy),
        )
        self.core.ack()
        return plan.header.sequence

    def other(self, partition: int, offset: int) -> RawRecord:
        """Of another request."""
        return RawRecord(partition, offset, sample_bytes(self.world.sample()))


@pytest.fixture(scope="module")
def bootstrap(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A broker of these tests' own: they write to everybody's topics."""
    server = KafkaServer(tmp_path_factory.mktemp("kafka"))
    server.start()
    try:
        server.create_topics()
        yield server.bootstrap
    finally:
        server.kill()


@pytest.fixture
async def log(bootstrap: str) -> AsyncIterator[TopicLog]:
    opened = TopicLog(KafkaSettings(bootstrap_servers=bootstrap))
    await opened.start()
    yield opened
    await opened.stop()


@pytest.fixture
async def way(bootstrap: str) -> AsyncIterator[Topics]:
    producer = Producer(KafkaSettings(bootstrap_servers=bootstrap), "test")
    await producer.start()
    yield Topics(producer)
    await producer.stop()


async def test_a_click_is_followed_to_the_delta_that_first_has_its_sample(way: Topics, log: TopicLog) -> None:
    await way.events()
    placed = await way.joined()
    where, at = placed.partition, placed.offset
    way.core.offsets = {where: at - 1 if at else 0}
    if at:
        await way.learned(way.other(where, at - 1))
    else:
        await way.learned(way.other((where + 1) % 4, 0))
    mine = RawRecord(where, at, sample_bytes(way.sample))
    sequence = await way.learned(mine)
    await way.learned(way.other(where, at + 1))

    trail = Trail(way.story, log, PATIENCE_S)
    clicked = await trail.events(way.began_us)
    assert (clicked.item_id, clicked.user_id) == (way.items[1], way.sample.user_id)
    record, sample = await trail.sample(clicked)
    assert (record.partition, record.offset) == (where, at)
    contains = await trail.delta(record, sample, clicked.item_id)

    assert sequence == 2 == contains.delta.header.sequence
    assert (contains.read_from, contains.read_to) == (at, at + 1)
    assert way.story.missing == ["applied"]
    told = {moment.step: moment.what for moment in way.story.moments}
    assert f"model 1/{way.policy} at 4" in told["scored"]
    assert "rows of item" in told["delta"]
    assert told["trained"] == "step 1 of 1 of delta 2"


async def test_a_sample_that_the_trainer_has_refused_is_in_no_delta(way: Topics, log: TopicLog) -> None:
    await way.events()
    placed = await way.joined()
    await way.learned(way.other(placed.partition, placed.offset))
    headers = topics.rejection_headers("not_finite", topics.SAMPLES.name, placed.partition, placed.offset)
    await way.producer.send(topics.DEAD_LETTERS.name, b"x", headers=headers)
    trail = Trail(way.story, log, PATIENCE_S)
    clicked = await trail.events(way.began_us)
    with pytest.raises(StoryEnds, match="the trainer has refused the sample: not_finite"):
        await trail.delta(*await trail.sample(clicked), clicked.item_id)


async def test_a_sample_that_a_rollback_has_taken_back_is_said_to_be(way: Topics, log: TopicLog) -> None:
    await way.events()
    placed = await way.joined()
    where, at = placed.partition, placed.offset
    await way.learned(RawRecord(where, at, sample_bytes(way.sample)))
    done = RolledBack(order=1, quarantined=[OffsetRange(partition=where, start=at, end=at + 1)])
    release = Release(lineage=way.sample.model.lineage, rollback=Rollback(order=1, done=done, sequence=2))
    await way.producer.send(topics.MODEL_RELEASES.name, release.SerializeToString(), b"rollback")
    trail = Trail(way.story, log, PATIENCE_S)
    clicked = await trail.events(way.began_us)
    with pytest.raises(StoryEnds, match="a rollback has taken it back, with delta 2"):
        await trail.delta(*await trail.sample(clicked), clicked.item_id)
    assert "delta" not in way.story.missing


async def test_a_click_that_was_not_joined_ends_with_the_joiners_reason(way: Topics, log: TopicLog) -> None:
    await way.events()
    trail = Trail(way.story, log, PATIENCE_S)
    clicked = await trail.events(way.began_us)
    with pytest.raises(StoryEnds, match="no sample of it has come in 1 s"):
        await trail.sample(clicked)
    headers = topics.rejection_headers("after_window", topics.ACTIONS.name, 0, 1)
    await way.producer.send(topics.LATE_EVENTS.name, b"x", way.key, headers=headers)
    with pytest.raises(StoryEnds, match="the joiner made no sample of it: after_window"):
        await trail.sample(clicked)


async def test_a_sample_that_no_delta_has_is_waited_for_and_then_said(way: Topics, log: TopicLog) -> None:
    await way.events()
    placed = await way.joined()
    way.core.offsets = {placed.partition: 0}
    await way.learned(way.other((placed.partition + 1) % 4, 0))
    trail = Trail(way.story, log, PATIENCE_S)
    clicked = await trail.events(way.began_us)
    with pytest.raises(StoryEnds, match=f"no delta of 1/{way.policy} with it has come"):
        await trail.delta(*await trail.sample(clicked), clicked.item_id)


async def test_a_request_that_nobody_has_seen_ends_at_once(log: TopicLog) -> None:
    story = Story(f"nobody-{uuid.uuid4().hex}")
    with pytest.raises(StoryEnds, match="no impression of this request"):
        await Trail(story, log, 60.0).events(time.time_ns() // 1000 - SLACK_US)
    assert story.moments == []
