"""One user's visit, the rules: what an answer is truly worth, what is clicked and when. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadgen.arrivals import SHOWN
from loadgen.exposures import Exposures
from loadgen.rows import RequestRow
from loadgen.world import World, click_delays_s, examination
from rec.events.v1.events_pb2 import ACTION_KIND_CLICK, Action, Impression
from rec.v1 import gateway_pb2
from services.contract.ids import action_event_id, impression_event_id
from services.contract.times import from_us, to_us

# How likely each position is looked at; a bot reads the whole list.
EXAMINATION = examination(np.arange(SHOWN))
BOT_EXAMINATION = np.ones(SHOWN, np.float32)
UNKNOWN = -1


@dataclass(frozen=True)
class Truth:
    """True click probabilities of an answer, and how old what it shows is; frozen is None when no shadow arm
    scored it, all but ``shown_p`` for a bot."""

    shown_p: NDArray[np.float32]
    shown_age_s: NDArray[np.float32] | None
    shown: float | None
    ideal: float | None
    frozen: float | None
    unknown: int


def judge(
    world: World,
    exposures: Exposures,
    user: int,
    item_ids: list[int],
    *,
    shadow_ids: list[int] | None,
    t_s: float,
) -> Truth:
    """Judges an answer (best first) and the shadow's choice from the same candidates.

    An item that is not of this world is never clicked, and counted. The shown items join the user's memory.
    """
    shown = min(SHOWN, len(item_ids))
    shadow = (shadow_ids or [])[:SHOWN]
    index = np.array([world.items.index_of.get(i, UNKNOWN) for i in (*item_ids, *shadow)], np.int64)
    known = index >= 0
    users = np.array([user], np.int64)
    seen = exposures.count(users, index[None, :])[0]
    p = np.where(known, world.true_p(users, np.maximum(index, 0), np.array([t_s]), seen), 0).astype(
        np.float32
    )
    exposures.add(users, index[None, :shown])
    answer = p[: len(item_ids)]
    best = np.sort(answer)[-shown:]
    return Truth(
        shown_p=answer[:shown],
        shown_age_s=(t_s - world.born_s(np.maximum(index[:shown], 0))).astype(np.float32),
        shown=float(answer[:shown].mean()),
        ideal=float(best.mean()),
        frozen=float(p[len(item_ids) :].mean()) if shadow else None,
        unknown=int((~known).sum()),
    )


def judge_bot(world: World, item_ids: list[int]) -> Truth:
    """What a bot clicks on: no truth about people, and nobody's memory."""
    index = np.array([world.items.index_of.get(i, UNKNOWN) for i in item_ids], np.int64)
    clicked = np.where(index >= 0, world.bot_clicks(np.maximum(index, 0)), 0).astype(np.float32)
    return Truth(clicked[: min(SHOWN, len(item_ids))], None, None, None, None, int((index < 0).sum()))


def clicks(
    shown_p: NDArray[np.float32],
    looks: NDArray[np.float32],
    click_draws: NDArray[np.float32],
    delay_draws: NDArray[np.float32],
    window_s: float,
) -> list[tuple[int, float]]:
    """(position, seconds after the impression) of the clicks, for the chance that each position is looked at
    and uniform draws, [SHOWN] each."""
    shown = len(shown_p)
    clicked = click_draws[:shown] < shown_p * looks[:shown]
    delays = click_delays_s(delay_draws[:shown], window_s)
    return [(place, float(delays[place])) for place in np.flatnonzero(clicked).tolist()]


def impression(request_id: str, user_id: int, item_ids: list[int], at_us: int, scored: bool) -> Impression:
    """The event that these items were shown, in this order."""
    return Impression(
        event_id=impression_event_id(request_id),
        request_id=request_id,
        occurred_at=from_us(at_us),
        user_id=user_id,
        item_ids=item_ids,
        unscored=not scored,
    )


def click(request_id: str, user_id: int, item_id: int, at_us: int) -> Action:
    """The event of a click."""
    return Action(
        event_id=action_event_id(request_id, item_id, ACTION_KIND_CLICK),
        request_id=request_id,
        occurred_at=from_us(at_us),
        user_id=user_id,
        item_id=item_id,
        kind=ACTION_KIND_CLICK,
    )


def answered_row(
    request_id: str,
    user_id: int,
    times_us: tuple[int, int, int],
    answer: gateway_pb2.RecommendResponse,
    truth: Truth | None,
    *,
    bot: bool = False,
) -> RequestRow:
    """The evidence of an answered request; ``times_us`` = intended, sent, answered."""
    provenance: Any = answer.provenance
    return RequestRow(
        request_id=request_id,
        user_id=user_id,
        intended_us=times_us[0],
        sent_us=times_us[1],
        answered_us=times_us[2],
        status="OK",
        arm=provenance.arm,
        generation=provenance.model.lineage.generation,
        policy=provenance.model.lineage.policy,
        sequence=provenance.model.sequence,
        applied_us=to_us(provenance.applied_at),
        staleness_us=provenance.staleness.ToMicroseconds(),
        served_us=to_us(provenance.served_at),
        scored=provenance.scored,
        candidates=answer.candidates,
        degraded=",".join(f"{one.source}:{one.reason}" for one in provenance.degraded),
        replica=provenance.replica,
        shown_true_p=truth.shown if truth else None,
        frozen_true_p=truth.frozen if truth else None,
        ideal_true_p=truth.ideal if truth else None,
        bot=bot,
        shown_p=b"" if truth is None or bot else truth.shown_p.tobytes(),
        shown_age_s=b"" if truth is None or truth.shown_age_s is None else truth.shown_age_s.tobytes(),
    )


def failed_row(
    request_id: str, user_id: int, times_us: tuple[int, int, int], status: str, *, bot: bool = False
) -> RequestRow:
    """The evidence of a request without an answer."""
    return RequestRow(
        request_id=request_id,
        user_id=user_id,
        intended_us=times_us[0],
        sent_us=times_us[1],
        answered_us=times_us[2],
        status=status,
        arm="",
        generation=0,
        policy="",
        sequence=0,
        applied_us=0,
        staleness_us=0,
        served_us=0,
        scored=False,
        candidates=0,
        degraded="",
        replica="",
        bot=bot,
    )
