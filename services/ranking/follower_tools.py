"""What a follower is given, and what it tells."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rec.model.v1 import model_pb2
from services.contract.model_state import ModelState
from services.contract.view_registry import FeatureSet
from services.ranking.delta_feed import DeltaFeed, FeedRecord
from services.ranking.metrics import Metrics
from services.ranking.scorer import Scorer
from services.runtime.clock import WallClock
from services.runtime.throttle import Throttle
from services.runtime.traced_deltas import AppliedDeltas

if TYPE_CHECKING:
    from services.ranking.follower import Follower

LoadBase = Callable[[model_pb2.Release, model_pb2.BaseRef, Throttle], tuple[ModelState, FeatureSet]]


@dataclass(frozen=True)
class Applied:
    """A base or delta that is now in the model. ``barrier_ids``: barriers passed with it."""

    version: model_pb2.ModelVersion
    created_us: int
    rows: int
    bytes: int
    barrier_ids: tuple[str, ...] = ()


@dataclass(frozen=True)
class Tools:
    """What a follower works with.

    ``throttle(release)``: how fast a base of it is to be loaded now.
    ``unserved(arm)``: no model of that arm serves yet. ``on_served(follower)`` swaps the served reference,
    ``on_applied(follower, applied)`` tells what a served model holds, ``on_bad(record, partition, reason)``
    gets records that are no deltas.
    """

    load_base: LoadBase
    throttle: Callable[[model_pb2.Release], Throttle]
    open_feed: Callable[[str], DeltaFeed]
    scorer: Scorer
    clock: WallClock
    metrics: Metrics
    retry_s: float
    unserved: Callable[[str], bool]
    on_served: Callable[[Follower], None]
    on_applied: Callable[[Follower, Applied], None]
    on_bad: Callable[[FeedRecord, int, str], None]
    traces: AppliedDeltas | None = None
