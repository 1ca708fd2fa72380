"""A generation's life, as a table. Pure.

    registered -> gated -> shadow -> ab -> promoted -> (superseded)
         |          |        |       |        |
         '----------'-- rejected ----'   rolled_back

A step that is not in the table is refused with what is allowed instead; the same step twice is a repeat.
"""

from __future__ import annotations

from enum import StrEnum

from services.contract.errors import Conflict


class State(StrEnum):
    """Where a generation stands."""

    REGISTERED = "registered"
    GATED = "gated"
    SHADOW = "shadow"
    AB = "ab"
    PROMOTED = "promoted"
    SUPERSEDED = "superseded"
    REJECTED = "rejected"
    ROLLED_BACK = "rolled_back"


class Step(StrEnum):
    """What is decided about a generation; the decision of its event."""

    GATE_PASSED = "gate_passed"
    GATE_FAILED = "gate_failed"
    SHADOWED = "shadow_started"
    COMPARED = "ab_started"
    PROMOTED = "promoted"
    REJECTED = "rejected"
    SUPERSEDED = "superseded"
    ROLLED_BACK = "generation_rolled_back"


# The first generation is promoted by being the first: there is nothing to compare it with.
TABLE: dict[tuple[State, Step], State] = {
    (State.REGISTERED, Step.GATE_PASSED): State.GATED,
    (State.REGISTERED, Step.GATE_FAILED): State.REJECTED,
    (State.GATED, Step.GATE_FAILED): State.REJECTED,
    (State.GATED, Step.SHADOWED): State.SHADOW,
    (State.SHADOW, Step.COMPARED): State.AB,
    (State.SHADOW, Step.REJECTED): State.REJECTED,
    (State.AB, Step.PROMOTED): State.PROMOTED,
    (State.AB, Step.REJECTED): State.REJECTED,
    # By hand: a person has looked.
    (State.GATED, Step.PROMOTED): State.PROMOTED,
    (State.SHADOW, Step.PROMOTED): State.PROMOTED,
    (State.GATED, Step.REJECTED): State.REJECTED,
    (State.REGISTERED, Step.REJECTED): State.REJECTED,
    # A rejected one is judged anew only from the start.
    (State.REJECTED, Step.GATE_PASSED): State.GATED,
    (State.PROMOTED, Step.SUPERSEDED): State.SUPERSEDED,
    (State.PROMOTED, Step.ROLLED_BACK): State.ROLLED_BACK,
    (State.SUPERSEDED, Step.PROMOTED): State.PROMOTED,
}


# Every step leads to one state.
_REACHED = {step: state for (_, step), state in TABLE.items()}


def taken(state: State, step: Step) -> bool:
    """Whether a generation stands where the step leads: told again, it changes nothing."""
    return _REACHED[step] is state


def after(state: State, step: Step) -> State:
    """Where a step leads; Conflict when it is not allowed from there."""
    found = TABLE.get((state, step))
    if found is None:
        allowed = [str(one) for known, one in TABLE if known is state]
        raise Conflict(f"{step} of a generation that is {state}: allowed are {', '.join(allowed) or 'none'}")
    return found
