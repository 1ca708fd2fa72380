"""The arms of this replica: which releases are wished for, and which models serve.

``serving`` is what requests read: one reference per arm, swapped whole. A release with another lineage or
pin gets a follower of its own, built aside; the old model serves until the new one has caught up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from rec.model.v1 import model_pb2
from services.contract.errors import NotFound, Unavailable
from services.contract.topics import GENERATION_PREFIX
from services.ranking.arm_model import ArmModel
from services.ranking.follower import Follower
from services.runtime.telemetry import get_logger

log = get_logger(__name__)
Spawn = Callable[[Coroutine[Any, Any, Any], str], "asyncio.Task[Any]"]


class Arms:
    """Belongs to the event loop; the scoring thread only reads ``serving``."""

    def __init__(
        self, wanted: Iterable[str], spawn: Spawn, follow: Callable[[model_pb2.Release], Follower]
    ) -> None:
        self.serving: dict[str, ArmModel] = {}
        self.followers: dict[str, Follower] = {}
        self._wanted = frozenset(wanted)
        self._spawn = spawn
        self._follow = follow
        # The newest wish of an arm, while the follower of the one before still serves.
        self._building: dict[str, Follower] = {}
        self._tasks: dict[Follower, asyncio.Task[Any]] = {}
        self._revisions: dict[str, int] = {}
        self._changed = asyncio.Event()

    def take(self, release: model_pb2.Release) -> None:
        """Acts on a record of model-releases; older revisions and arms of others are ignored."""
        arm = release.arm
        if arm.startswith(GENERATION_PREFIX) or (self._wanted and arm not in self._wanted):
            return
        if release.revision <= self._revisions.get(arm, 0):
            return
        self._revisions[arm] = release.revision
        if release.state == model_pb2.RELEASE_STATE_RETIRED:
            self._retire(arm)
            return
        newest = self._building.get(arm) or self.followers.get(arm)
        if newest is not None and newest.same_wish(release):
            newest.offer_base(release.base)
            return
        if (superseded := self._building.pop(arm, None)) is not None:
            self._end(superseded)
        follower = self._follow(release)
        self._building[arm] = follower
        self._tasks[follower] = self._spawn(follower.run(), f"follow {arm}")

    def served(self, follower: Follower) -> None:
        """Swaps a caught-up model in, and ends the follower that it replaces."""
        if follower.model is None:
            raise Unavailable(f"arm {follower.arm} has no model")
        self.serving[follower.arm] = follower.model
        if self._building.get(follower.arm) is follower:
            del self._building[follower.arm]
            before = self.followers.get(follower.arm)
            self.followers[follower.arm] = follower
            if before is not None:
                self._end(before)
        self._changed.set()
        self._changed = asyncio.Event()

    def model(self, arm: str) -> ArmModel:
        """What serves an arm now; Unavailable while it is loading, or before releases have been read (all at
        once), NotFound for an unknown one."""
        found = self.serving.get(arm)
        if found is not None:
            return found
        if arm in self._building:
            raise Unavailable(f"arm {arm} is loading")
        known = sorted({*self.serving, *self._building})
        if not known:
            raise Unavailable("releases are not read yet")
        raise NotFound(f"arm {arm[:64]}: known are {', '.join(known)}")

    def all(self) -> list[Follower]:
        """The follower of each arm that serves, else of the one being built; by name."""
        names = sorted({*self.followers, *self._building})
        return [self.followers.get(name) or self._building[name] for name in names]

    async def until_serving(self, arm: str) -> None:
        """Returns when an arm serves for the first time."""
        while arm not in self.serving:
            await self._changed.wait()

    async def until_settled(self) -> None:
        """Returns when every arm known now serves, or has failed to load once."""
        for follower in list(self._building.values()):
            await follower.settled.wait()

    def _retire(self, arm: str) -> None:
        for follower in (self._building.pop(arm, None), self.followers.pop(arm, None)):
            if follower is not None:
                self._end(follower)
        self.serving.pop(arm, None)
        log.info("arm retired", arm=arm)

    def _end(self, follower: Follower) -> None:
        # So that nobody waits for an arm that was superseded before it was loaded.
        follower.settled.set()
        self._tasks.pop(follower).cancel()
