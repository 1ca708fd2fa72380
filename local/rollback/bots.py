"""``python -m local.rollback.bots``: users who click everything that they are shown, each seen once.

Open loop, through the doors that all users come in by: Recommend, an impression of the first ten, a click on
each of them. Every request is of a new user: what one of them did teaches nothing about the next, only that
everything is clicked. Writes what became of them as JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections import Counter
from pathlib import Path

import grpc

from rec.events.v1.events_pb2 import ACTION_KIND_CLICK, Action, Impression
from rec.v1 import collector_pb2, collector_pb2_grpc, gateway_pb2, gateway_pb2_grpc
from services.contract.ids import action_event_id, hash_key, impression_event_id
from services.contract.times import from_us

SHOWN = 10
DEADLINE_S = 5.0
CLICK_AFTER_S = 0.3


class Bots:
    """One run of them; ``counts``: requests, errors, clicks."""

    def __init__(self, gateway: grpc.aio.Channel, collector: grpc.aio.Channel, candidates: int) -> None:
        self._candidates = candidates
        self._gateway = gateway_pb2_grpc.GatewayServiceStub(gateway)
        self._collector = collector_pb2_grpc.CollectorServiceStub(collector)
        self._run = f"bots-{time.time_ns():x}"
        self.counts: Counter[str] = Counter(requests=0, errors=0, clicks=0)

    async def come(self, rate: float, seconds: float) -> None:
        """Sends ``rate`` requests a second; returns when all are answered and clicked on."""
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for number in range(int(rate * seconds)):
                await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))
                group.create_task(self._visit(number))

    async def _visit(self, number: int) -> None:
        self.counts["requests"] += 1
        request_id, user_id = f"{self._run}-{number:06d}", hash_key(f"{self._run}-{number}")
        try:
            request = gateway_pb2.RecommendRequest(
                user_id=user_id, n=100, request_id=request_id, candidates=self._candidates
            )
            answer = await self._gateway.Recommend(request, timeout=DEADLINE_S)
            items = [item.item_id for item in answer.items][:SHOWN]
            shown = Impression(
                event_id=impression_event_id(request_id),
                request_id=request_id,
                occurred_at=from_us(time.time_ns() // 1000),
                user_id=user_id,
                item_ids=items,
                unscored=not answer.provenance.scored,
            )
            await self._log(collector_pb2.LogEventsRequest(impressions=[shown]))
            await asyncio.sleep(CLICK_AFTER_S)
            clicks = [_click(request_id, user_id, item) for item in items]
            await self._log(collector_pb2.LogEventsRequest(actions=clicks))
            self.counts["clicks"] += len(clicks)
        except grpc.aio.AioRpcError as error:
            self.counts["errors"] += 1
            print(f"bots: {error.code().name}: {error.details()}", file=sys.stderr)

    async def _log(self, events: collector_pb2.LogEventsRequest) -> None:
        await self._collector.LogEvents(events, timeout=DEADLINE_S)


def _click(request_id: str, user_id: int, item_id: int) -> Action:
    return Action(
        event_id=action_event_id(request_id, item_id, ACTION_KIND_CLICK),
        request_id=request_id,
        occurred_at=from_us(time.time_ns() // 1000),
        user_id=user_id,
        item_id=item_id,
        kind=ACTION_KIND_CLICK,
    )


async def _run(given: argparse.Namespace) -> Counter[str]:
    gateway = grpc.aio.insecure_channel(given.gateway)
    collector = grpc.aio.insecure_channel(given.collector)
    async with gateway, collector:
        bots = Bots(gateway, collector, given.candidates)
        await bots.come(given.rate, given.seconds)
    return bots.counts


def main(argv: list[str]) -> int:
    """Runs them; 0 when no request failed."""
    parser = argparse.ArgumentParser(prog="python -m local.rollback.bots", description=__doc__)
    parser.add_argument("--gateway", required=True, help="host:port")
    parser.add_argument("--collector", required=True, help="host:port")
    parser.add_argument("--rate", type=float, required=True, help="requests per second")
    parser.add_argument("--candidates", type=int, required=True, help="scored per request")
    parser.add_argument("--seconds", type=float, required=True, help="for how long")
    parser.add_argument("--out", type=Path, required=True, help="the file to write")
    given = parser.parse_args(argv)
    counts = asyncio.run(_run(given))
    given.out.write_text(json.dumps(counts) + "\n")
    return 1 if counts["errors"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
