"""One visit by hand: a request, its answer shown, a click on the first item; later the same user again."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass

import grpc

from loadgen.arrivals import SHOWN
from loadgen.settings import TraceSettings
from loadgen.trace_follow import StoryEnds
from loadgen.trace_proof import Contains
from loadgen.trace_story import Story
from loadgen.visit import click, impression
from rec.v1 import collector_pb2, collector_pb2_grpc, gateway_pb2, gateway_pb2_grpc, provenance_pb2
from services.contract.ids import hash_key
from services.contract.times import from_us, to_us

_AGAIN_S = 0.05


@dataclass(frozen=True)
class Visit:
    """What was answered, and which item is clicked."""

    story: Story
    items: list[int]
    score: float

    @property
    def clicked(self) -> int:
        """The first item shown."""
        return self.items[0]


class Visitor:
    """The user that the settings name."""

    def __init__(
        self, settings: TraceSettings, gateway: grpc.aio.Channel, collector: grpc.aio.Channel
    ) -> None:
        self._settings = settings
        self._deadline_s = settings.deadline_ms / 1000
        self._gateway = gateway_pb2_grpc.GatewayServiceStub(gateway)
        self._collector = collector_pb2_grpc.CollectorServiceStub(collector)

    async def ask(self, story: Story) -> Visit:
        """The request. StoryEnds when its answer was not scored: nothing is learned from it."""
        story.add(_now_us(), "request", f"of user {self._settings.user_key}")
        answer = await self._recommend(story.request_id, [])
        provenance = answer.provenance
        lacks = ", ".join(f"{one.source}: {one.reason}" for one in provenance.degraded)
        recalled = Counter(source for item in answer.items[:SHOWN] for source in item.sources)
        names = (f"{_name(source)} {count}" for source, count in recalled.most_common())
        what = f"{len(answer.items)} of {answer.candidates:,} candidates; the shown by {', '.join(names)}"
        story.add(_now_us(), "answered", f"{what}; lacks {lacks}" if lacks else what)
        if not provenance.scored or not answer.items:
            raise StoryEnds(f"the answer was not scored ({lacks}): no snapshot, no sample")
        return Visit(story, [item.item_id for item in answer.items[:SHOWN]], answer.items[0].score)

    async def click(self, visit: Visit) -> None:
        """Tells the collector what was shown, and a moment later that it was clicked on."""
        request_id, user_id = visit.story.request_id, hash_key(self._settings.user_key)
        shown = impression(request_id, user_id, visit.items, _now_us(), scored=True)
        await self._log(collector_pb2.LogEventsRequest(impressions=[shown]))
        await asyncio.sleep(self._settings.click_after_ms / 1000)
        clicked = click(request_id, user_id, visit.clicked, _now_us())
        answer = await self._log(collector_pb2.LogEventsRequest(actions=[clicked]))
        visit.story.add(to_us(answer.acknowledged_at), "acknowledged", "the click, by the collector")

    async def see(self, visit: Visit, contains: Contains) -> None:
        """Asks for the same items until a model answers that contains the click. StoryEnds: none in time."""
        header, deadline = contains.delta.header, time.monotonic() + self._settings.patience_s
        while True:
            answer = await self._recommend("", visit.items)
            model = answer.provenance.model
            lineage = (model.lineage.generation, model.lineage.policy)
            if lineage == header.lineage and model.sequence >= header.sequence:
                break
            if time.monotonic() >= deadline:
                raise StoryEnds(
                    f"arm {answer.provenance.arm} still answers from {lineage} at {model.sequence}"
                )
            await asyncio.sleep(_AGAIN_S)
        score = next(item.score for item in answer.items if item.item_id == visit.clicked)
        what = f"an answer by {lineage[0]}/{lineage[1]} at {model.sequence}: the clicked item's score "
        visit.story.add(_now_us(), "served", f"{what}{visit.score:.4f} -> {score:.4f}")

    async def _recommend(self, request_id: str, candidates: list[int]) -> gateway_pb2.RecommendResponse:
        request = gateway_pb2.RecommendRequest(
            user_key=self._settings.user_key,
            n=SHOWN,
            request_id=request_id,
            occurred_at=from_us(_now_us()),
            candidate_ids=candidates,
            arm=self._settings.arm,
        )
        return await self._gateway.Recommend(request, timeout=self._deadline_s)

    async def _log(self, request: collector_pb2.LogEventsRequest) -> collector_pb2.LogEventsResponse:
        return await self._collector.LogEvents(request, timeout=self._deadline_s)


def _name(source: int) -> str:
    return provenance_pb2.RecallSource.Name(source).removeprefix("RECALL_SOURCE_").lower()


def _now_us() -> int:
    return time.time_ns() // 1000
