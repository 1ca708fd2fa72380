"""The online interpreter: events in the order of their partitions -> packed states, once each.

A repeat stands at or below the mark of its origin (topic/partition): first appearances rise there. The marks
belong to whoever folds a set of entities, and are stored together with what they led to, in one write: so
every state holds exactly the events at or below the marks, wherever a process died.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from services.contract.feature_view import FeatureView
from services.contract.view_events import KINDS, Event
from services.contract.view_plan import Plan, plan_of
from services.contract.view_state import ViewState

# (definition hash of the view, entity): what a state belongs to.
StateKey = tuple[int, bytes]
# An event, and the states that take it.
Touched = tuple[Event, list[tuple[Plan, StateKey]]]


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

    The ``keep`` states used last stay unpacked between rounds. They are what has been written only if every
    round has been: whoever cannot write one begins anew with another fold.
    """

    def __init__(
        self,
        views: Sequence[FeatureView],
        marks: OriginMarks,
        load: Callable[[StateKey], bytes | None],
        owns: Callable[[bytes], bool] = lambda entity: True,
        keep: int = 0,
    ) -> None:
        self._owns = owns
        self._plans: dict[str, list[Plan]] = {kind: [] for kind in KINDS}
        for view in views:
            self.add(view)
        self._marks = marks
        self._load = load
        self._keep = keep
        self._states: OrderedDict[StateKey, ViewState] = OrderedDict()

    def add(self, view: FeatureView) -> None:
        """From the next event on."""
        for kind in view.sources:
            self._plans[kind].append(plan_of(view))

    def fresh(self, events: Iterable[Event]) -> list[Touched]:
        """Those that are no repeats, with what they touch; moves the marks."""
        take = self._marks.take
        return [(event, self._touches(event)) for event in events if take(event.origin, event.sequence)]

    def missing(self, fresh: Iterable[Touched]) -> dict[StateKey, Plan]:
        """The states that ``fold`` of these will load."""
        states = self._states
        return {key: plan for _, touches in fresh for plan, key in touches if key not in states}

    def fold(self, fresh: Iterable[Touched], before: Callable[[Event], None] = lambda event: None) -> Change:
        """Folds what ``fresh`` gave; ``before`` is told of each event while the states are without it."""
        touched: dict[StateKey, ViewState] = {}
        for event, touches in fresh:
            before(event)
            for plan, key in touches:
                state = touched[key] = self.state(plan, key)
                state.fold(event)
        change = Change({key: state.pack() for key, state in touched.items()}, self._marks.stored())
        for key in touched:
            self._states.move_to_end(key)
        while len(self._states) > self._keep:
            self._states.popitem(last=False)
        return change

    def round(self, events: Iterable[Event]) -> Change:
        """Takes each event once."""
        given = list(events)
        fresh = self.fresh(given)
        change = self.fold(fresh)
        change.repeats = len(given) - len(fresh)
        return change

    def state(self, plan: Plan, key: StateKey) -> ViewState:
        """As of now; not to be changed."""
        state = self._states.get(key)
        if state is None:
            stored = self._load(key)
            # Bytes of another layout hold nothing that can be read: the state begins anew.
            state = ViewState.unpack(plan, stored) if stored and plan.readable(stored) else ViewState(plan)
            self._states[key] = state
        return state

    def _touches(self, event: Event) -> list[tuple[Plan, StateKey]]:
        # Views of one key share the bytes of the entity and the question who owns it.
        entities: dict[tuple[str, ...], bytes | None] = {}
        found = []
        for plan in self._plans[event.kind]:
            view = plan.view
            if view.filter and not view.takes(event):
                continue
            if view.key not in entities:
                made = view.entity(event)
                entities[view.key] = made if self._owns(made) else None
            entity = entities[view.key]
            if entity is not None:
                found.append((plan, (view.definition_hash, entity)))
        return found
