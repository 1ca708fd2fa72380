"""One look after another at all sources, and who is told.

Looks come every ``interval_ms`` while somebody watches, every ``idle_interval_ms`` while nobody does; the
first watcher wakes the loop at once. A look never fails: what did not answer is missing in it. Watchers have
no queue: each asks for what it has not seen, so a slow one gets several points at once and holds nobody up.
Belongs to the event loop.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from services.contract.errors import Overloaded
from services.page import asks, figures, metrics
from services.page.asks import StatusAsks
from services.page.change import Change
from services.page.history import History, Point
from services.page.looks import MetricsLook
from services.page.settings import Settings
from services.page.sources import Heard, Source
from services.runtime.exposition import Reading

Ask = Callable[[], Awaitable[Heard]]


@dataclass(frozen=True)
class Kept:
    """Readings of one look, by source and replica."""

    at_s: float
    readings: dict[str, dict[str, Reading]] = field(default_factory=dict)


class Watch:
    """The page's state: sources, history, newest tables."""

    def __init__(
        self,
        settings: Settings,
        look: MetricsLook,
        status: StatusAsks,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._monotonic = monotonic
        self._asks = _asks(settings, look, status)
        self._sources = {name: Source(name) for name in self._asks}
        self._kept: deque[Kept] = deque()
        self._wake = asyncio.Event()
        self._news = asyncio.Event()
        self.watchers = 0
        self.history = History(settings.history_points, settings.max_lines)
        self.tables: dict[str, Any] = {}

    async def run(self) -> None:
        """Looks until cancelled."""
        while True:
            self._wake.clear()
            began = self._monotonic()
            with metrics.LOOK_SECONDS.time():
                await self.look()
            await self._pause(began)

    async def _pause(self, began: float) -> None:
        """Until the next look is due; sooner when the first watcher comes."""
        settings = self._settings
        interval_ms = settings.interval_ms if self.watchers else settings.idle_interval_ms
        left_s = began + interval_ms / 1000 - self._monotonic()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), max(left_s, 0.0))

    async def look(self) -> Point:
        """Asks every source at once and adds a point."""
        names = list(self._asks)
        heard = dict(zip(names, await asyncio.gather(*(self._asks[name]() for name in names)), strict=True))
        now_ms = time.time_ns() // 1_000_000
        for name, one in heard.items():
            self._sources[name].note(one, now_ms)
            metrics.LOOKS.labels(name, one.state).inc()
        point = self._take(heard, now_ms)
        self._news.set()
        self._news = asyncio.Event()
        return point

    def _take(self, heard: Mapping[str, Heard], now_ms: int) -> Point:
        readings = {name: _readings(heard[name]) for name in figures.NAMES}
        changes = self._changes(readings)
        asked = [name for name in heard if name not in readings]
        answers = {name: next(iter(heard[name].answers.values()), None) for name in asked}
        workers = {name: answers.get(source) for name, source in asks.WORKERS.items()}
        lags = {
            name: float(sum(answer["behind"].values()))
            for name, answer in workers.items()
            if isinstance(answer, dict)
        }
        scenarios = answers.get(asks.SCENARIOS)
        on = tuple(one["name"] for one in scenarios if one["on"]) if isinstance(scenarios, list) else ()
        before = self.history.left_out
        values = figures.lines(changes, readings, lags, _followed(answers.get(asks.RELEASES)))
        point = self.history.add(now_ms, values, on)
        metrics.LEFT_OUT.labels("lines").inc(self.history.left_out - before)
        self.tables = {
            "models": figures.models(readings, now_ms),
            "served": figures.served(readings["release"]),
            "outcomes": figures.outcomes(readings["joiner"]),
            "degraded": figures.degraded(readings["gateway"]),
            "workers": workers,
            "releases": answers.get(asks.RELEASES),
            "scenarios": scenarios,
        }
        return point

    def _changes(self, readings: dict[str, dict[str, Reading]]) -> dict[str, Change]:
        """Of each source that answers now, since the oldest look kept in which it did."""
        now_s = self._monotonic()
        # The one before is kept whatever the pause was.
        while len(self._kept) > 1 and now_s - self._kept[0].at_s > self._settings.window_s:
            self._kept.popleft()
        changes = {}
        for name, now in readings.items():
            then = next((kept for kept in self._kept if kept.readings.get(name)), None)
            if now and then is not None:
                changes[name] = Change(now, then.readings[name], now_s - then.at_s)
        self._kept.append(Kept(now_s, readings))
        return changes

    # -- watchers

    def enter(self) -> None:
        """Somebody watches from now on; Overloaded when too many do."""
        if self.watchers >= self._settings.web.max_watchers:
            metrics.REFUSED.labels("watchers").inc()
            raise Overloaded(f"{self.watchers} pages are open, which is what max_watchers allows")
        self.watchers += 1
        metrics.WATCHERS.set(self.watchers)
        if self.watchers == 1:
            self._wake.set()

    def leave(self) -> None:
        """Nobody's any more."""
        self.watchers -= 1
        metrics.WATCHERS.set(self.watchers)

    async def news(self, number: int) -> None:
        """Returns when there is a point of this number."""
        while self.history.end <= number:
            await self._news.wait()

    def said(self, number: int) -> dict[str, Any]:
        """For a page that has seen all points below ``number``."""
        points = self.history.since(number)
        return {
            "now_ms": time.time_ns() // 1_000_000,
            "next": self.history.end,
            "interval_ms": self._settings.interval_ms,
            "window_s": self._settings.window_s,
            "sources": [source.said() for source in self._sources.values()],
            "points": [point.said() for point in points],
            "tables": self.tables,
        }


def _followed(releases: object) -> set[str]:
    arms = releases["arms"] if isinstance(releases, dict) else ()
    return {one["arm"] for one in arms if one["pinned"] is None}


def _readings(heard: Heard) -> dict[str, Reading]:
    return {where: one for where, one in heard.answers.items() if isinstance(one, Reading)}


def _asks(settings: Settings, look: MetricsLook, status: StatusAsks) -> dict[str, Ask]:
    """How each source is asked, by name. A worker has its metrics page and its status."""
    timeout_s = settings.timeout_ms / 1000

    def metrics_of(name: str) -> Ask:
        target = str(getattr(settings.metrics, name))
        return lambda: look.ask(target, figures.NAMES[name], timeout_s)

    def status_of(name: str) -> Ask:
        return lambda: status.ask(name)

    found: dict[str, Ask] = {name: metrics_of(name) for name in figures.NAMES}
    return found | {name: status_of(name) for name in status.names}
