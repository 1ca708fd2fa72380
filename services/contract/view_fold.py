"""The online interpreter: events in the order of their partitions -> packed states, once each.

A repeat stands at or below the mark of its origin (topic/partition): first appearances rise there. The marks
belong to whoever folds a set of entities, and are stored together with what they led to, in one write: so
every state holds exactly the events at or below the marks, wherever a process died.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from services.contract.feature_view import FeatureView
from services.contract.view_events import Event
from services.contract.view_plan import Plan, plan_of
from services.contract.view_state import ViewState

# (definition hash of the view, entity): what a state belongs to.
StateKey = tuple[int, bytes]


def fold(view: FeatureView, value: bytes | None, event: Event) -> bytes | None:
    """The state after one new event; unchanged when the view does not take it. ``value`` None = no state."""
    if not view.takes(event):
        return value
    plan = plan_of(view)
    state = ViewState(plan) if value is None else ViewState.unpack(plan, value)
    state.fold(event)
    return state.pack()


class OriginMarks:
    """The last sequence taken of each origin."""

    def __init__(self, stored: Mapping[str, int] | None = None) -> None:
        self._marks = dict(stored or {})

    def take(self, origin: str, sequence: int) -> bool:
        """Moves the mark; False when it is a repeat."""
        if sequence <= self._marks.get(origin, -1):
            return False
        self._marks[origin] = sequence
        return True

    def stored(self) -> dict[str, int]:
        """To be written beside the states."""
        return dict(self._marks)


@dataclass
class Change:
    """What a round changes, to be written as one."""

    states: dict[StateKey, bytes] = field(default_factory=dict)
    marks: dict[str, int] = field(default_factory=dict)
    repeats: int = 0


class ViewFold:
    """Folds rounds of events under several views. ``load`` reads a stored state.

    ``owns``: whether an entity's state is written here. An event that touches a user and an item stands on
    the partitions of both, and each fold takes what it owns.
    """

    def __init__(
        self,
        views: Sequence[FeatureView],
        marks: OriginMarks,
        load: Callable[[StateKey], bytes | None],
        owns: Callable[[bytes], bool] = lambda entity: True,
    ) -> None:
        self._owns = owns
        self._plans: list[Plan] = [plan_of(view) for view in views if view.kind != "instant"]
        self._marks = marks
        self._load = load

    def round(self, events: Iterable[Event]) -> Change:
        """Takes each event once. Nothing is kept here but the marks: a crash forgets nothing else."""
        change = Change()
        states: dict[StateKey, ViewState] = {}
        for event in events:
            if not self._marks.take(event.origin, event.sequence):
                change.repeats += 1
                continue
            for plan in self._plans:
                entity = plan.view.entity(event) if plan.view.takes(event) else None
                if entity is not None and self._owns(entity):
                    self._state(states, plan, entity).fold(event)
        change.states = {key: state.pack() for key, state in states.items()}
        change.marks = self._marks.stored()
        return change

    def _state(self, states: dict[StateKey, ViewState], plan: Plan, entity: bytes) -> ViewState:
        key = (plan.view.definition_hash, entity)
        state = states.get(key)
        if state is None:
            stored = self._load(key)
            # Bytes of another layout hold nothing that can be read: the state begins anew.
            state = ViewState.unpack(plan, stored) if stored and plan.readable(stored) else ViewState(plan)
            states[key] = state
        return state
