"""``python -m loadgen trace``: one click, from the request to the model that has learned it.

It proves and does not guess: the sample is found by the request's id, the delta by the sample's offset, the
replicas by what each says that it has applied. Exit code 0 when the story goes to its end, 1 when it does not
(the last line says why), 2 when it could not begin.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import grpc

from loadgen import trace_follow, trace_replicas
from loadgen.settings import TraceSettings
from loadgen.trace_follow import Click, StoryEnds, Trail
from loadgen.trace_log import SLACK_US, TopicLog
from loadgen.trace_proof import Contains
from loadgen.trace_story import Story, as_json, table
from loadgen.trace_visit import Visitor
from services.contract import topics
from services.contract.errors import InvalidInput, NotFound, Unavailable
from services.contract.times import MICROS
from services.runtime import grpc_client, tracing

if TYPE_CHECKING:
    from services.runtime.otel import Tracing

# Until an id is found that is traced: enough for a share of one in ten thousand.
_MAX_TRIES = 100_000


def run(settings: TraceSettings) -> int:
    """Prints the story; see the module docstring for the exit code. LoopError when it could not begin."""
    if settings.request_id and settings.newest_click:
        raise InvalidInput.one("request_id", settings.request_id, "no id beside --newest-click")
    with tracing.configured(settings.tracing, settings.name) as traced:
        story = asyncio.run(_follow(settings))
        note = _note(traced, story.request_id)
    print(as_json(story) if settings.json_out else table(story, note))
    return 1 if story.ends else 0


def _note(traced: Tracing | None, request_id: str) -> str:
    if traced is None:
        return "no spans: tracing is off"
    return "spans are sent" if traced.sampled_root(request_id) else "no spans: not among the requests traced"


async def _follow(settings: TraceSettings) -> Story:
    log = TopicLog(settings.kafka)
    await log.start()
    try:
        if settings.request_id or settings.newest_click:
            return await _past(settings, log)
        return await _own(settings, log)
    finally:
        await log.stop()


async def _past(settings: TraceSettings, log: TopicLog) -> Story:
    since_us = time.time_ns() // 1000 - int(settings.since_s * MICROS)
    story = Story(settings.request_id or (await _newest(log, since_us)).request_id)
    trail = Trail(story, log, settings.patience_s)
    try:
        await _to_the_replicas(settings, story, trail, since_us)
    except StoryEnds as end:
        story.ends = str(end)
    return story


async def _own(settings: TraceSettings, log: TopicLog) -> Story:
    gateway = grpc_client.channel(settings.gateway_target, settings.grpc_client, settings.tls)
    collector = grpc_client.channel(settings.collector_target, settings.grpc_client, settings.tls)
    async with gateway, collector:
        visitor = Visitor(settings, gateway, collector)
        story = Story(_new_request_id())
        with _root(story.request_id):
            try:
                await _visit(settings, story, visitor, log)
            except StoryEnds as end:
                story.ends = str(end)
            except grpc.aio.AioRpcError as error:
                raise Unavailable(f"{error.code().name} {error.details()}") from error
        return story


async def _visit(settings: TraceSettings, story: Story, visitor: Visitor, log: TopicLog) -> None:
    since_us = time.time_ns() // 1000 - SLACK_US
    visit = await visitor.ask(story)
    await visitor.click(visit)
    contains = await _to_the_replicas(settings, story, Trail(story, log, settings.patience_s), since_us)
    await visitor.see(visit, contains)


def _new_request_id() -> str:
    """One that is traced, where any is."""
    traced = tracing.active()
    for _ in range(_MAX_TRIES):
        request_id = f"trace-{uuid.uuid4().hex[:16]}"
        if traced is None or traced.sampled_root(request_id) is not None:
            break
    return request_id


@contextmanager
def _root(request_id: str) -> Iterator[None]:
    """The root span of the request's trace, where there is one: from the request to the end of the story."""
    traced = tracing.active()
    root = None if traced is None else traced.sampled_root(request_id)
    if traced is None or root is None:
        yield
        return
    from services.runtime.otel import SpanKind

    span = traced.begin("one click", SpanKind.INTERNAL, root, attributes={"recloop.request_id": request_id})
    try:
        with traced.inside(span):
            yield
    finally:
        span.end()


async def _to_the_replicas(settings: TraceSettings, story: Story, trail: Trail, since_us: int) -> Contains:
    click = await trail.events(since_us)
    record, sample = await trail.sample(click)
    contains = await trail.delta(record, sample, click.item_id)
    targets = await trace_replicas.replicas(settings.ranking_target, settings.tls)
    await trace_replicas.applied(story, targets, settings.tls, contains, settings.patience_s)
    return contains


async def _newest(log: TopicLog, since_us: int) -> Click:
    clicks: list[Click] = []

    def take(record: trace_follow.ConsumerRecord) -> None:
        if (click := trace_follow.click_of(record)) is not None:
            clicks.append(click)

    await log.first(topics.ACTIONS, None, since_us, take)
    if not clicks:
        raise NotFound("no click stands in the log since then (--since-s)")
    return max(clicks, key=lambda click: click.appended_us)
