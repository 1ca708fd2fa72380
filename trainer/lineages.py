"""Which lineages this process trains: every lineage that one of its arms follows.

| arm | its lineage is |
|---|---|
| ``arm`` (`online`) | the process's own: its state is what WorkerService tells, its failure ends the process |
| ``candidate_arm`` (`candidate`) | trained aside: a new full model catches up with the samples behind its cut, while the other one goes on serving |
| ``extra_arms`` | trained aside for as long as they follow it: other policies, to be compared |

So a generation is switched by two decisions of release: the candidate arm is pointed to the new lineage, and
when that one has caught up, the arm itself. A lineage that nobody follows any more is trained on for
``lineage_linger_s``, until the last replica of ranking has swapped; then it publishes what it has learned
and ends. An order of release to take a lineage back drops its line, with what it has learned and not
published, and opens it anew: opening carries the order out (taking_back.py). Each lineage has its own reader,
offsets and chain: nothing that one learns reaches the other.
"""

# ruff: noqa: E501 - a table row is one line
from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Protocol

from rec.model.v1 import model_pb2
from services.contract.errors import LoopError
from services.runtime.telemetry import counter, gauge, get_logger
from trainer.orders import LineageId, Orders, lineage_of

log = get_logger(__name__)


class Line(Protocol):
    """A lineage in training (trainer.line)."""

    async def run(self) -> None:
        """Trains until ``stop`` was called; ends with the last delta acknowledged."""

    def stop(self) -> None:
        """Asks it to end."""

    async def close(self) -> None:
        """Gives everything back; after ``run`` has ended."""


OpenLine = Callable[[model_pb2.Release, Orders], Coroutine[Any, Any, Line]]


def followed(
    releases: Mapping[str, model_pb2.Release], arms: tuple[str, ...]
) -> dict[LineageId, model_pb2.Release]:
    """The lineages that arms follow, each with the release that names its newest base; the first arm's first.
    A pinned or retired arm follows nothing."""
    found: dict[LineageId, model_pb2.Release] = {}
    for arm in arms:
        release = releases.get(arm)
        if release is None or release.HasField("pinned_sequence"):
            continue
        if release.state != model_pb2.RELEASE_STATE_RETIRED:
            found.setdefault(lineage_of(release), release)
    return found


class Lineages:
    """Keeps the lines that are trained equal to the lineages that are followed.

    ``opened`` is told of the line of the first arm whenever it becomes another one. Belongs to the event loop.
    """

    def __init__(
        self,
        arms: tuple[str, ...],
        open_line: OpenLine,
        opened: Callable[[Line], None],
        *,
        linger_s: float,
        retry_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._arms = arms
        self._open = open_line
        self._opened = opened
        self._linger_s = linger_s
        self._retry_s = retry_s
        self._clock = clock
        self._releases: dict[str, model_pb2.Release] = {}
        self._lines: dict[LineageId, Line] = {}
        self._tasks: dict[LineageId, asyncio.Task[None]] = {}
        self._opening: dict[LineageId, asyncio.Task[Line]] = {}
        # Since when nobody follows a lineage; when a lineage that could not be opened is tried again.
        self._left_s: dict[LineageId, float] = {}
        self._retry_at_s: dict[LineageId, float] = {}
        self._own: LineageId | None = None
        self._orders = Orders()
        # The newest order that a line was opened with.
        self._obeyed: dict[LineageId, int] = {}
        self._failures = counter("trainer_lineage_failures", "Lineages beside the own one that failed.")
        self._trained = gauge("trainer_lineages", "Lineages in training.")

    def take(self, release: model_pb2.Release) -> None:
        """A record of model-releases; ``settle`` acts on it."""
        self._orders.take(release)
        known = self._releases.get(release.arm)
        if release.arm in self._arms and (known is None or release.revision >= known.revision):
            self._releases[release.arm] = release

    async def settle(self) -> None:
        """Opens, switches and ends lines as the releases say. Raises what the own line raised.

        Waits for a line to open only as long as there is none at all."""
        await self._reap()
        await self._drop_ordered()
        wanted = followed(self._releases, self._arms)
        now_s = self._clock()
        for lineage, release in wanted.items():
            self._left_s.pop(lineage, None)
            known = lineage in self._lines or lineage in self._opening
            if not known and now_s >= self._retry_at_s.get(lineage, 0.0):
                name = f"open {lineage[0]}/{lineage[1]}"
                self._obeyed[lineage] = self._order_of(lineage)
                self._opening[lineage] = asyncio.create_task(self._open(release, self._orders), name=name)
        if self._own is None:
            await asyncio.gather(*self._opening.values(), return_exceptions=True)
        self._start()
        self._take_over(next(iter(wanted), None))
        for lineage in [one for one in self._lines if one not in wanted and one != self._own]:
            if now_s - self._left_s.setdefault(lineage, now_s) >= self._linger_s:
                await self._end(lineage)
        self._trained.set(len(self._lines))

    async def close(self) -> None:
        """Every line publishes what it has learned and ends."""
        opening, self._opening = self._opening, {}
        for task in opening.values():
            task.cancel()
        for done in await asyncio.gather(*opening.values(), return_exceptions=True):
            if not isinstance(done, BaseException):
                await done.close()
        for line in self._lines.values():
            line.stop()
        for lineage in list(self._lines):
            await self._end(lineage)

    def _start(self) -> None:
        """Runs what has been opened."""
        for lineage, opened in list(self._opening.items()):
            if not opened.done():
                continue
            del self._opening[lineage]
            error = opened.exception()
            if error is None:
                line = self._lines[lineage] = opened.result()
                self._tasks[lineage] = asyncio.create_task(
                    line.run(), name=f"train {lineage[0]}/{lineage[1]}"
                )
            elif self._own is None or not isinstance(error, LoopError | OSError):
                raise error
            else:
                self._failed(lineage, error)

    def _order_of(self, lineage: LineageId) -> int:
        order = self._orders.outstanding(lineage)
        return 0 if order is None else order.order

    async def _drop_ordered(self) -> None:
        """Lines that are to be taken back end at once: what they would publish is what is to go."""
        for lineage in list(self._lines):
            if self._order_of(lineage) <= self._obeyed.get(lineage, 0):
                continue
            log.info("line dropped: a rollback is ordered", lineage=f"{lineage[0]}/{lineage[1]}")
            self._tasks[lineage].cancel()
            await self._end(lineage)
            if lineage == self._own:
                self._own = None

    def _take_over(self, first: LineageId | None) -> None:
        """The first arm's lineage becomes the own one, once it is trained."""
        wanted = self._releases.get(self._arms[0])
        if first is None or wanted is None or lineage_of(wanted) != first or first == self._own:
            return
        if first in self._lines:
            log.info("lineage taken over", before=self._own, now=first)
            self._own = first
            self._opened(self._lines[first])

    async def _reap(self) -> None:
        for lineage, task in list(self._tasks.items()):
            if not task.done():
                continue
            error = None if task.cancelled() else task.exception()
            if lineage == self._own:
                if error is not None:
                    raise error
                continue
            await self._end(lineage)
            if error is not None:
                self._failed(lineage, error)

    def _failed(self, lineage: LineageId, error: BaseException) -> None:
        self._failures.inc()
        self._retry_at_s[lineage] = self._clock() + self._retry_s
        log.error("lineage not trained", lineage=f"{lineage[0]}/{lineage[1]}", error=repr(error))

    async def _end(self, lineage: LineageId) -> None:
        line, task = self._lines.pop(lineage), self._tasks.pop(lineage)
        self._left_s.pop(lineage, None)
        line.stop()
        # Told by _reap, of a line that nobody follows, or cancelled for a rollback.
        await asyncio.gather(task, return_exceptions=True)
        await line.close()
