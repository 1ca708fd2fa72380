"""One retrieval: asks all sources at once, each in its own time, and merges what came.

A source that is missing, late or old is named; the others fill its places. Only the vectors and the
co-clicks are work per request (one on the vectors' thread, the other asks Redis); the rest are
references to lists that background tasks keep.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from services.recall import kernel, merge, metrics
from services.recall.catalogue import Catalogue
from services.recall.co_click import CoClicks
from services.recall.popular import PopularItems
from services.recall.settings import RecallSettings
from services.recall.sources import NO_IDS, Proposal, Source
from services.recall.vectors import Found, VectorSource, VectorVersion

Ids = NDArray[np.uint64]

_CO_CLICK_SECONDS = metrics.SECONDS.labels(Source.CO_CLICK.label)
_CANDIDATES = {source: metrics.CANDIDATES.labels(source.label) for source in Source}


@dataclass
class Retrieved:
    """ids: [m] uint64, distinct, best first; bits: [m] uint8; degraded: reason by source that gave less."""

    ids: Ids
    bits: NDArray[np.uint8]
    degraded: dict[Source, str] = field(default_factory=dict)
    version: VectorVersion | None = None


class Retriever:
    """Holds the sources; no state of a request."""

    def __init__(
        self,
        settings: RecallSettings,
        *,
        vectors: VectorSource,
        popular: PopularItems,
        catalogue: Catalogue,
        co_clicks: CoClicks,
    ) -> None:
        self._settings = settings
        self._shares = {source: settings.shares.of(source) for source in Source}
        self._vectors = vectors
        self._popular = popular
        self._catalogue = catalogue
        self._co_clicks = co_clicks

    async def retrieve(self, request_id: str, user_id: int, n: int, budget_s: float) -> Retrieved:
        """n distinct candidates (fewer only when there are fewer items), within about budget_s seconds."""
        vectors_deadline = time.monotonic() + min(budget_s, self._settings.vectors_budget_ms / 1000)
        degraded: dict[Source, str] = {}
        searching = self._begin_vectors(user_id, n, degraded)
        co_clicked = await self._co_clicked(user_id, n, budget_s, degraded)
        found = await self._end_vectors(searching, vectors_deadline, degraded)
        ids = {
            Source.VECTOR: found.ids if found else NO_IDS,
            Source.POPULAR: self._popular_ids(n, degraded),
            Source.FRESH: self._catalogue.fresh()[: self._wanted(Source.FRESH, n)],
            Source.CO_CLICK: co_clicked,
        }
        chosen, bits = merge.merge(
            [Proposal(source, self._listed(ids[source]), self._shares[source]) for source in ids],
            self._catalogue.ids,
            n=n,
            exploration_share=self._shares[Source.EXPLORATION],
            request_id=request_id,
        )
        _count(bits, n, degraded)
        return Retrieved(chosen, bits, degraded, found.version if found else self._vectors.version)

    def sizes(self) -> dict[str, int]:
        """What each source holds."""
        return {
            Source.VECTOR.label: self._vectors.sizes()["items"],
            Source.POPULAR.label: len(self._popular),
            Source.FRESH.label: len(self._catalogue.fresh()),
            Source.EXPLORATION.label: len(self._catalogue),
        }

    def _wanted(self, source: Source, n: int) -> int:
        return merge.wanted(n, self._shares[source])

    def _listed(self, ids: Ids) -> Ids:
        withdrawn = self._catalogue.withdrawn
        return ids[kernel.absent(ids, withdrawn)] if len(withdrawn) else ids

    def _begin_vectors(
        self, user_id: int, n: int, degraded: dict[Source, str]
    ) -> asyncio.Future[Found] | None:
        if not self._shares[Source.VECTOR]:
            return None
        searching = self._vectors.begin_search(user_id, self._wanted(Source.VECTOR, n))
        if searching is None:
            degraded[Source.VECTOR] = "unavailable"
        elif self._vectors.stale:
            degraded[Source.VECTOR] = "stale"
        return searching

    async def _end_vectors(
        self, searching: asyncio.Future[Found] | None, deadline: float, degraded: dict[Source, str]
    ) -> Found | None:
        if searching is None:
            return None
        try:
            async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                found = await searching
        except TimeoutError:
            degraded[Source.VECTOR] = "deadline"
            return None
        metrics.COLD_USERS.inc(found.cold)
        return found

    def _popular_ids(self, n: int, degraded: dict[Source, str]) -> Ids:
        wanted = self._wanted(Source.POPULAR, n)
        if not wanted:
            return NO_IDS
        ids, reason = self._popular.propose(wanted)
        if reason is not None:
            degraded[Source.POPULAR] = reason
        return ids

    async def _co_clicked(self, user_id: int, n: int, budget_s: float, degraded: dict[Source, str]) -> Ids:
        wanted = self._wanted(Source.CO_CLICK, n)
        if not wanted:
            return NO_IDS
        # The popular source asks Redis once a second: while it gets no answer, no request waits for one.
        if not self._popular.redis_alive:
            degraded[Source.CO_CLICK] = "unavailable"
            return NO_IDS
        try:
            budget_s = min(budget_s, self._settings.co_click_budget_ms / 1000)
            with _CO_CLICK_SECONDS.time():
                async with asyncio.timeout(budget_s):
                    return await self._co_clicks.propose(user_id, wanted)
        except TimeoutError:
            degraded[Source.CO_CLICK] = "deadline"
        except OSError:
            degraded[Source.CO_CLICK] = "unavailable"
        metrics.REDIS_ERRORS.labels(Source.CO_CLICK.label).inc()
        return NO_IDS


def _count(bits: NDArray[np.uint8], n: int, degraded: dict[Source, str]) -> None:
    for source, counter in _CANDIDATES.items():
        counter.inc(int(np.count_nonzero(bits & source.bit)))
    for source, reason in degraded.items():
        metrics.DEGRADED.labels(source.label, reason).inc()
    metrics.SHORT.inc(len(bits) < n)
