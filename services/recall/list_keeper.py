"""Keeps the lists of the served model's items good: made when there are enough items, checked on live
queries, made anew when they have aged.

A check compares the last query's answer with one through everything, on a thread of its own, at most once per
``check_s``: what it costs does not grow with the traffic.
"""

from __future__ import annotations

import asyncio
import time

from services.recall import list_build, metrics
from services.recall.list_watch import PROMISED_RECALL
from services.recall.vectors import VectorModel, VectorSource

# Whatever happens, searches have the machine for themselves this much longer than the making of lists.
_REST_FACTOR = 10.0
_CHANGED_SHARE = 0.1


def due(model: VectorModel, from_items: int) -> str | None:
    """Why a model's lists have to be made (again), or go; None: they are as they should be."""
    items, listing = model.items.size, model.listing
    if listing is None:
        return "first" if items >= from_items else None
    if items < from_items // 2:
        return "few"
    if not listing.items / 2 < items < listing.items * 2:
        return "size"
    if listing.lists.changes - listing.changes < items * _CHANGED_SHARE:
        # Of the same items they would be the same again; more of them are probed.
        return None
    if listing.watch.recall < PROMISED_RECALL:
        return "recall"
    return "drift" if listing.watch.probes > 2 * listing.probes else None


class ListKeeper:
    """One task; ``run`` it."""

    def __init__(self, source: VectorSource, *, from_items: int, check_s: float) -> None:
        self._source = source
        self._from_items = from_items
        self._check_s = check_s
        self._rest_until_s = 0.0

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(self._check_s)
            model = self._source.model
            if model is not None:
                await self.look(model)

    async def look(self, model: VectorModel) -> None:
        """Checks the lists and does what is due."""
        await self._check(model)
        reason = due(model, self._from_items)
        if reason is not None and time.monotonic() >= self._rest_until_s:
            await self._make(model, reason)
        _show(model)

    async def _make(self, model: VectorModel, reason: str) -> None:
        began = time.monotonic()
        if reason == "few":
            await self._source.do(lambda: setattr(model, "listing", None))
        else:
            await asyncio.to_thread(list_build.build, model, self._source.turn)
        took_s = time.monotonic() - began
        self._rest_until_s = time.monotonic() + _REST_FACTOR * took_s
        metrics.LISTINGS.labels(reason).inc()
        metrics.log.info("lists made", reason=reason, items=model.items.size, seconds=round(took_s, 3))

    async def _check(self, model: VectorModel) -> None:
        listing = model.listing
        rows, asked = await self._source.do(lambda: (model.items.rows, model.asked))
        if listing is None or asked is None:
            return
        model.asked = None
        query, k = asked
        ranks = await asyncio.to_thread(list_build.check, listing.lists, rows, query, k)
        if ranks is not None:
            answer = await self._source.do(lambda: listing.watch.add(ranks))
            metrics.CHECKS.inc()
            metrics.CHECKS_BELOW.inc(answer < PROMISED_RECALL)


def _show(model: VectorModel) -> None:
    listing = model.listing
    metrics.RECALL.set(1.0 if listing is None else listing.watch.recall)
    metrics.LISTS.set(0 if listing is None else len(listing.lists))
    metrics.PROBES.set(0 if listing is None or not listing.watch.pays else listing.watch.probes)
