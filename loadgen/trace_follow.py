"""Follows one click through the loop by what stands in its topics: each step adds its moment to the story, or
ends the story with the reason.

The records of a request are found by its id, which is their key; the delta by the offset of the sample
(trace_proof.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError

from loadgen.trace_log import SLACK_US, TopicLog
from loadgen.trace_proof import Contains, Search, Seen, rows_of, taken_back
from loadgen.trace_story import Story
from rec.events.v1.events_pb2 import ACTION_KIND_CLICK, EventRecord, SampleRecord, TrainingSample
from rec.model.v1.model_pb2 import Release
from services.contract import delta, topics
from services.contract.columns import F32, U64
from services.contract.delta import Header
from services.contract.times import MICROS, to_us
from services.runtime.kafka_consumer import ConsumerRecord

# How far behind the click a delta before the one that has it may stand; then further back each time.
_BEHIND_US = (5 * MICROS, 60 * MICROS, 3_600 * MICROS, None)
# A snapshot leaves behind its answer.
_ARRIVES_S = 5.0


@dataclass(frozen=True)
class Click:
    """A click that stands in actions."""

    request_id: str
    user_id: int
    item_id: int
    appended_us: int
    offset: int


class StoryEnds(Exception):
    """The loop did not do the next step, or not in time; the text says why."""


def click_of(record: ConsumerRecord) -> Click | None:
    """None when a record of actions is no click."""
    action = _event(record, "action")
    if action is None or action.kind != ACTION_KIND_CLICK:
        return None
    return Click(action.request_id, action.user_id, action.item_id, record.timestamp * 1000, record.offset)


class Trail:
    """Of one request. The order of the calls is that of the steps."""

    def __init__(self, story: Story, log: TopicLog, patience_s: float) -> None:
        """``patience_s``: for each step behind the click. What was before it is there or on its way."""
        self._story = story
        self._log = log
        self._patience_s = patience_s
        self._key = topics.request_key(story.request_id)
        self._partition = topics.partition_of(self._key, topics.EVENT_PARTITIONS)

    async def events(self, since_us: int) -> Click:
        """Snapshot, impression and the first click. StoryEnds when one is not there."""
        shown = await self._of_request(topics.IMPRESSIONS, "impression", since_us)
        if shown is None:
            raise StoryEnds("no impression of this request stands in the log since then")
        record, impression = shown
        shown_us = record.timestamp * 1000
        if impression.unscored:
            raise StoryEnds("its answer was not scored by ranking: no snapshot, no sample")
        # Scored before it was shown, and written behind the answer.
        found = await self._of_request(topics.FEATURE_SNAPSHOTS, "snapshot", shown_us - 60 * MICROS)
        if found is None:
            raise StoryEnds("its snapshot is not in the log: lost with a replica of ranking")
        self._snapshot(*found)
        self._story.add(shown_us, "shown", f"{len(impression.item_ids)} items, {_place(record)}")
        click = await self._first(topics.ACTIONS, shown_us - SLACK_US, self._own_click)
        if click is None:
            raise StoryEnds("nobody has clicked on it")
        what = f"item {click.item_id}, {topics.ACTIONS.name}/{self._partition} at {click.offset}"
        self._story.add(click.appended_us, "clicked", what)
        return click

    async def sample(self, click: Click) -> tuple[ConsumerRecord, TrainingSample]:
        """The sample that the click became. StoryEnds with the joiner's reason."""

        def take(record: ConsumerRecord) -> tuple[ConsumerRecord, TrainingSample] | None:
            sample = self._own_sample(record)
            if sample is None:
                return None
            items, labels = np.frombuffer(sample.item_ids, U64), np.frombuffer(sample.labels, F32)
            return (record, sample) if ((items == click.item_id) & (labels > 0)).any() else None

        since_us = click.appended_us - SLACK_US
        found = await self._first(topics.SAMPLES, since_us, take, self._patience_s)
        if found is None:
            raise StoryEnds(await self._why_not_joined(since_us))
        record, sample = found
        waited_s = (to_us(sample.acted_at) - to_us(sample.impressed_at)) / MICROS
        what = f"a positive {waited_s:.1f} s after it was shown, {_place(record)}"
        self._story.add(to_us(sample.joined_at), "joined", what)
        return found

    async def delta(self, record: ConsumerRecord, sample: TrainingSample, item_id: int) -> Contains:
        """The delta that contains the sample, in the lineage that scored it. StoryEnds when it was refused,
        taken back, or none comes."""
        lineage = sample.model.lineage
        behind = (None if back is None else record.timestamp * 1000 - back for back in _BEHIND_US)
        for since_us in behind:
            chain = _Chain(lineage.generation, lineage.policy, Search(record.partition, record.offset))
            partition = topics.delta_partition(lineage.generation, lineage.policy)
            found = await self._log.first(
                topics.MODEL_DELTAS, partition, since_us or 0, chain.take, self._patience_s
            )
            if not chain.search.too_late:
                break
        if chain.search.too_late:
            raise StoryEnds("the deltas before the first one with it are no longer in the log")
        if found is None or chain.contains is None:
            named = f"{lineage.generation}/{lineage.policy}"
            raise StoryEnds(f"no delta of {named} with it has come in {self._patience_s:.0f} s")
        await self._require_learned(record)
        rows = rows_of(delta.open_body(found), item_id, sample.user_id)
        self._trained(chain.contains, record, rows)
        await self._require_kept(record, chain.contains.delta.header)
        return chain.contains

    async def _require_learned(self, sample: ConsumerRecord) -> None:
        def refused(record: ConsumerRecord) -> str | None:
            said = dict(record.headers)
            origin = (
                said.get(topics.HEADER_ORIGIN_TOPIC, b"").decode(),
                int(said.get(topics.HEADER_ORIGIN_PARTITION, -1)),
                int(said.get(topics.HEADER_ORIGIN_OFFSET, -1)),
            )
            mine = origin == (topics.SAMPLES.name, sample.partition, sample.offset)
            return said.get(topics.HEADER_REASON, b"unknown").decode() if mine else None

        since_us = sample.timestamp * 1000 - SLACK_US
        reason = await self._log.first(topics.DEAD_LETTERS, 0, since_us, refused)
        if reason is not None:
            raise StoryEnds(f"the trainer has refused the sample: {reason}")

    async def _require_kept(self, sample: ConsumerRecord, header: Header) -> None:
        def take(record: ConsumerRecord) -> int | None:
            release = Release.FromString(record.value or b"")
            return taken_back(release, header.lineage, sample.partition, sample.offset)

        if (sequence := await self._log.first(topics.MODEL_RELEASES, 0, 0, take)) is not None:
            raise StoryEnds(f"a rollback has taken it back, with delta {sequence}")

    def _snapshot(self, record: ConsumerRecord, snapshot: Any) -> None:
        model = snapshot.model
        lineage = model.lineage
        version = f"{lineage.generation}/{lineage.policy} at {model.sequence}"
        scored = f"by model {version}, arm {snapshot.arm}, {len(snapshot.item_ids) // 8} items kept"
        self._story.add(to_us(snapshot.scored_at), "scored", scored)
        self._story.add(record.timestamp * 1000, "snapshot", _place(record))

    def _trained(self, contains: Contains, sample: ConsumerRecord, rows: Sequence[str]) -> None:
        seen = contains.delta
        header = seen.header
        step = f"step {contains.step} of {contains.steps} of delta {header.sequence}"
        self._story.add(contains.trained_us, "trained", step)
        where = f"{topics.SAMPLES.name}/{sample.partition}"
        read = f"{where} from {contains.read_from} to {contains.read_to}"
        moved = f", rows of {' and '.join(rows)}" if rows else ""
        partition = topics.delta_partition(header.generation, header.policy)
        place = f"{topics.MODEL_DELTAS.name}/{partition} at {seen.offset}, {seen.bytes:,} bytes"
        version = f"{header.generation}/{header.policy} at {header.sequence}"
        self._story.add(seen.appended_us, "delta", f"{version}: {read}{moved}; {place}")

    async def _of_request(
        self, topic: topics.Topic, kind: str, since_us: int
    ) -> tuple[ConsumerRecord, Any] | None:
        def take(record: ConsumerRecord) -> tuple[ConsumerRecord, Any] | None:
            event = _event(record, kind) if record.key == self._key else None
            return None if event is None else (record, event)

        return await self._first(topic, since_us, take)

    async def _first(
        self, topic: topics.Topic, since_us: int, take: Any, patience_s: float = _ARRIVES_S
    ) -> Any:
        return await self._log.first(topic, self._partition, since_us, take, patience_s)

    def _own_click(self, record: ConsumerRecord) -> Click | None:
        return click_of(record) if record.key == self._key else None

    def _own_sample(self, record: ConsumerRecord) -> TrainingSample | None:
        if record.key != self._key:
            return None
        message = SampleRecord.FromString(record.value)
        return message.sample if message.WhichOneof("record") == "sample" else None

    async def _why_not_joined(self, since_us: int) -> str:
        def take(record: ConsumerRecord) -> str | None:
            reason = dict(record.headers).get(topics.HEADER_REASON, b"unknown")
            return reason.decode() if record.key == self._key else None

        reason = await self._log.first(topics.LATE_EVENTS, 0, since_us, take)
        if reason is not None:
            return f"the joiner made no sample of it: {reason}"
        return f"no sample of it has come in {self._patience_s:.0f} s"


class _Chain:
    """The deltas of one lineage as they are read."""

    def __init__(self, generation: int, policy: str, search: Search) -> None:
        self._key = topics.lineage_key(generation, policy)
        self.search = search
        self.contains: Contains | None = None

    def take(self, record: ConsumerRecord) -> delta.Sealed | None:
        """The delta at which the search ends: it contains the sample, or the search began too late."""
        if record.key != self._key or record.value is None:
            return None
        try:
            sealed = delta.unseal(record.value)
        except delta.BadDelta:  # nobody applies it
            return None
        at_us, size = record.timestamp * 1000, len(record.value)
        self.contains = self.search.take(Seen(sealed.header, sealed.hash, record.offset, at_us, size))
        return sealed if self.contains or self.search.too_late else None


def _event(record: ConsumerRecord, kind: str) -> Any:
    """The event of this kind in an EventRecord; None when it holds another one, or does not decode."""
    try:
        event = EventRecord.FromString(record.value or b"")
    except DecodeError:
        return None
    return getattr(event, kind) if event.WhichOneof("record") == kind else None


def _place(record: ConsumerRecord) -> str:
    return f"{record.topic}/{record.partition} at {record.offset}"
