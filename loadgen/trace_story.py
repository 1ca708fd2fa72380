"""What became of one click: moments in the order of cause, as a table for people, JSON for programs. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from services.contract.times import MICROS
from services.contract.trace_ids import trace_id_of

# What only the client knows: in the story of a request that this command has made.
CLIENTS = frozenset({"request", "answered", "acknowledged", "served"})
# Each is the cause of the next.
STEPS = (
    *("request", "scored", "answered", "snapshot", "shown", "clicked", "acknowledged"),
    *("joined", "trained", "delta", "applied", "served"),
)


@dataclass(frozen=True)
class Moment:
    """``at_us`` is wall time as the process said it that did the step."""

    at_us: int
    step: str
    what: str


@dataclass
class Story:
    """Of one request and the click on one of its items. ``ends``: why it went no further; empty = it did."""

    request_id: str
    ends: str = ""
    _moments: list[Moment] = field(default_factory=list)

    @property
    def trace_id(self) -> str:
        """In hexadecimal digits, as in logs and spans."""
        return f"{trace_id_of(self.request_id):032x}"

    @property
    def missing(self) -> list[str]:
        """Steps that have not been found."""
        found = {moment.step for moment in self._moments}
        return [step for step in STEPS if step not in found and step not in CLIENTS]

    @property
    def moments(self) -> list[Moment]:
        """In the order of cause, whatever was found first."""
        return sorted(self._moments, key=lambda moment: STEPS.index(moment.step))

    def add(self, at_us: int, step: str, what: str) -> None:
        """One more moment of a step in STEPS."""
        self._moments.append(Moment(at_us, step, what))

    def at(self, step: str) -> int | None:
        """When the first of these happened."""
        return next((moment.at_us for moment in self._moments if moment.step == step), None)


def table(story: Story, note: str) -> str:
    """For a terminal; ``note`` says what there is of the trace elsewhere."""
    lines = [f"request   {story.request_id}", f"trace id  {story.trace_id}  ({note})", ""]
    lines += _rows(story.moments)
    begin, end = story.at("acknowledged") or story.at("clicked"), story.at("served") or story.at("applied")
    if begin is not None and end is not None:
        until = "an answer that has learned it" if story.at("served") else "a model that has learned it"
        lines += ["", f"from the click to {until}: {_seconds(end - begin)}"]
    if story.ends:
        lines += ["", f"ends here: {story.ends}"]
    return "\n".join(lines)


def _rows(moments: Sequence[Moment]) -> list[str]:
    if not moments:
        return []
    first = previous = moments[0].at_us
    rows = [f"{'at':>10} {'after':>10}  step"]
    for one in moments:
        # Clocks of several machines, and Kafka's milliseconds: what came later may say an earlier time.
        after = max(0, one.at_us - previous)
        rows.append(
            f"{_seconds(one.at_us - first):>10} {_seconds(after) if after else '':>10}  "
            f"{one.step:<13}{one.what}"
        )
        previous = max(previous, one.at_us)
    return rows


def _seconds(span_us: int) -> str:
    return f"{span_us / MICROS:.3f} s"


def as_json(story: Story) -> str:
    """One object: request_id, trace_id, moments (at_us, step, what), missing, ends."""
    moments = [vars(moment) for moment in story.moments]
    whole = {
        "request_id": story.request_id,
        "trace_id": story.trace_id,
        "moments": moments,
        "missing": story.missing,
        "ends": story.ends,
    }
    return json.dumps(whole, indent=2)
