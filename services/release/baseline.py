"""Where the arm that the guard compares with stands: on the lineage that `online` follows, some minutes back.

The arm is pinned, and only to sequences that have a base of their own: ranking loads a pin's base aside and
replays the deltas up to the pin, of which there are none then. A pin is kept until its base is twice the age,
less a look; then it goes to the newest base that has the age. So, as long as bases come at least once in the
age, the baseline is between once and twice that old, and is seldom loaded.

It is taken from its users (RETIRED; the gateway gives them the default arm) when it stands on nothing to
compare with: another lineage than `online`'s, or a state that a rollback has taken back. It comes back with
a base that is neither and has the age. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass

from rec.model.v1 import model_pb2
from services.contract import times
from services.release.decision import NOTHING, Decision, Draft
from services.release.registry import ONLINE_ARM, KnownBase, Registry
from services.release.undone import Undone

SERVING, RETIRED = model_pb2.RELEASE_STATE_SERVING, model_pb2.RELEASE_STATE_RETIRED


@dataclass(frozen=True)
class BaselineRules:
    """``share`` of the users, 0 = none; ``age_us`` and ``look_us`` (between two looks) in microseconds."""

    arm: str
    share: float
    age_us: int
    look_us: int


@dataclass(frozen=True)
class Kept:
    """What is to be decided, and how old the baseline's base then is (None: nobody is served)."""

    decision: Decision
    age_us: int | None


def kept(registry: Registry, rules: BaselineRules, now_us: int) -> Kept:
    """One look. Conflict: too many arms."""
    arms = {one.arm: one for one in registry.arms}
    present, online = arms.get(rules.arm), arms.get(ONLINE_ARM)
    if present is not None and present.state != SERVING:
        present = None
    if rules.share == 0 or online is None:
        # One that was pinned by hand is nobody's business here.
        ours = present is not None and present.standing_share > 0
        return Kept(_retired(registry, present, now_us, "switched off") if ours else NOTHING, None)
    lineage = online.lineage
    undone = Undone.of(registry, lineage)
    bases = [one for one in registry.bases(lineage) if not undone.covers(one.base.sequence)]
    here = _standing(present, lineage, bases, undone)
    if undone.open_order:
        return Kept(NOTHING, _age(here, now_us))
    wanted = _chosen(here, bases, rules, now_us)
    if wanted is None:
        return Kept(_retired(registry, present, now_us, "nothing to compare with"), None)
    draft = Draft(registry.revision, now_us)
    pinned = registry.pointed(rules.arm, lineage, wanted.base.sequence, SERVING)
    pinned.standing_share = rules.share
    age_us = now_us - wanted.registered_us
    if present is not None and (present.pinned_sequence, present.standing_share, present.lineage) == (
        pinned.pinned_sequence,
        pinned.standing_share,
        lineage,
    ):
        return Kept(NOTHING, age_us)
    draft.add(pinned, "arm_set", because="baseline", age_s=age_us / times.MICROS, share=rules.share)
    return Kept(draft.decided(pinned), age_us)


def _standing(
    present: model_pb2.Release | None, lineage: model_pb2.Lineage, bases: list[KnownBase], undone: Undone
) -> KnownBase | None:
    """Where the arm stands, if that is a state to compare with."""
    if present is None or present.lineage != lineage or not present.HasField("pinned_sequence"):
        return None
    if undone.covers(present.pinned_sequence):
        return None
    known = [one for one in bases if one.base.sequence == present.pinned_sequence]
    # Registered so long ago that its age is not known any more.
    return known[0] if known else KnownBase(0, present.base, "")


def _chosen(
    here: KnownBase | None, bases: list[KnownBase], rules: BaselineRules, now_us: int
) -> KnownBase | None:
    """The base to stand on. One that is twice the age is left for a newer one, not for nothing."""
    of_age = [one for one in bases if now_us - one.registered_us >= rules.age_us]
    if here is None:
        fits = of_age and now_us - of_age[-1].registered_us <= 2 * rules.age_us
        return of_age[-1] if fits else None
    due = now_us - here.registered_us + rules.look_us >= 2 * rules.age_us
    newer = of_age and of_age[-1].base.sequence > here.base.sequence
    return of_age[-1] if due and newer else here


def _retired(registry: Registry, present: model_pb2.Release | None, now_us: int, why: str) -> Decision:
    if present is None:
        return NOTHING
    gone = model_pb2.Release()
    gone.CopyFrom(present)
    gone.state, gone.standing_share = RETIRED, 0.0
    draft = Draft(registry.revision, now_us)
    return draft.decided(draft.add(gone, "arm_set", because=why))


def _age(here: KnownBase | None, now_us: int) -> int | None:
    return None if here is None else now_us - here.registered_us
