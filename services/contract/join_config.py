"""What the join may decide by: windows, bounds, labels, limits. Contradictions die in the constructor.

**Labels.** The label of an item is that of the highest ``priority`` among its actions in the window, reduced
within that priority: ``any`` = of the first one, ``max`` = the largest, ``sum`` = their sum, at most 1.

**Emission** says when:

- ``final``: each row once. Where the first action decides (``any``, all priorities equal), a positive is
  said on arrival; where a later action may still change the label, at the window's end. Negatives are said
  at the window's end.
- ``correcting``: the time impression + ``early_negative_us`` divides the actions by their own stamps. One
  stamped up to it takes effect on arrival. When the watermark is above it, no such action can follow: rows
  without a label are said as negatives (version 0), and only then the later actions take effect, however
  early they came. So stamps decide what is a correction, and arrival never does. Each action that changes
  the label says the row again with the next version; the window's end says no row again.

**Sampling.** A negative is kept iff xxh64 of its sample id (seed 0) < ``negative_rate`` x 2^64. In
``correcting`` a dropped row that is clicked later is a positive, version 0. What was never said is
``sampled_out`` at the window's end, so that each item still has exactly one first row or one reason.

All durations are event time in microseconds. From the given numbers follow:

- ``skew_us`` (= the disorder bound): how far before its impression an action, or after it a snapshot, may
  be stamped and still belong to it (clocks of two writers).
- ``reach_us``: an action up to this long after an impression is *about* it, even when outside its window.
- ``memory_us``: how long, by an input's own watermark, an event of that input is remembered. Longer than the
  widest interval in which two events can be about each other, so two remembered-apart impressions (or
  snapshots) of one request id never compete for the same event.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import ceil
from typing import Literal, get_args

from rec.events.v1 import events_pb2 as ev
from services.contract.errors import FieldViolation, InvalidInput
from services.contract.join_position import NEVER_US

MAX_WINDOW_US = 30 * 24 * 3600 * 1_000_000
MAX_PRIORITY = 1_000

Emission = Literal["final", "correcting"]
Reducer = Literal["any", "max", "sum"]
Scheme = Literal["stream", "label-first", "lookup"]


@dataclass(frozen=True)
class LabelRule:
    """One kind of action that labels a shown item.

    ``window_us`` is how long after the impression the action still counts (its end included); None = the
    join's whole window. An action of higher ``priority`` overrides the label by those of lower ones.
    """

    kind: int
    label: float = 1.0
    window_us: int | None = None
    priority: int = 0


DEFAULT_LABELS = (LabelRule(ev.ACTION_KIND_CLICK),)


@dataclass(frozen=True)
class JoinConfig:
    """Everything that the outcome of a join depends on, besides its inputs."""

    window_us: int
    bound_us: int
    labels: tuple[LabelRule, ...] = DEFAULT_LABELS
    # How long after its request a list may be shown and still find its snapshot; None = window_us.
    show_within_us: int | None = None
    # Snapshots, impressions and actions held at once (closed ones that are still remembered included).
    max_held_events: int = 2_000_000
    max_items: int = 10_000
    # Among the actions of the highest priority.
    reducer: Reducer = "any"
    emission: Emission = "final"
    # Only with correcting: how long after the impression an unlabelled row is said as a negative.
    early_negative_us: int = 0
    # Share of negatives kept.
    negative_rate: float = 1.0
    # Whose state this is: see join_schemes.
    scheme: Scheme = "stream"

    def __post_init__(self) -> None:
        """Refuses contradictions, all of them at once (InvalidInput)."""
        bad: list[FieldViolation] = []

        def need(ok: bool, field: str, value: object, allowed: str) -> None:
            if not ok:
                bad.append(FieldViolation(field, str(value), allowed))

        need(0 < self.window_us <= MAX_WINDOW_US, "window_us", self.window_us, f"1 to {MAX_WINDOW_US}")
        need(0 <= self.bound_us <= MAX_WINDOW_US, "bound_us", self.bound_us, f"0 to {MAX_WINDOW_US}")
        need(
            self.show_within_us is None or 0 < self.show_within_us <= MAX_WINDOW_US,
            "show_within_us",
            self.show_within_us,
            f"None or 1 to {MAX_WINDOW_US}",
        )
        need(self.max_held_events >= 1, "max_held_events", self.max_held_events, "at least 1")
        need(self.max_items >= 1, "max_items", self.max_items, "at least 1")
        need(self.reducer in get_args(Reducer), "reducer", self.reducer, " or ".join(get_args(Reducer)))
        need(self.emission in get_args(Emission), "emission", self.emission, " or ".join(get_args(Emission)))
        need(
            0 <= self.early_negative_us <= (self.window_us if self.emission == "correcting" else 0),
            "early_negative_us",
            self.early_negative_us,
            "0 to window_us when emission is correcting, else 0: final says negatives at the window's end",
        )
        need(0.0 < self.negative_rate <= 1.0, "negative_rate", self.negative_rate, "above 0, at most 1")
        need(self.scheme in get_args(Scheme), "scheme", self.scheme, " or ".join(get_args(Scheme)))
        need(len(self.labels) > 0, "labels", "()", "at least one kind, or nothing is ever positive")
        kinds = [rule.kind for rule in self.labels]
        need(len(set(kinds)) == len(kinds), "labels", kinds, "each kind once")
        for rule in self.labels:
            need(
                rule.kind in ev.ActionKind.values() and rule.kind != ev.ACTION_KIND_UNSPECIFIED,
                "labels.kind",
                rule.kind,
                "a known kind of action",
            )
            need(0.0 < rule.label <= 1.0, "labels.label", rule.label, "above 0, at most 1")
            need(
                rule.window_us is None or 0 < rule.window_us <= self.window_us,
                "labels.window_us",
                rule.window_us,
                "within window_us: an item is decided when that has passed",
            )
            need(0 <= rule.priority <= MAX_PRIORITY, "labels.priority", rule.priority, f"0 to {MAX_PRIORITY}")
        if bad:
            raise InvalidInput(bad)

    @cached_property
    def show_us(self) -> int:
        """Largest time from request to impression."""
        return self.window_us if self.show_within_us is None else self.show_within_us

    @cached_property
    def skew_us(self) -> int:
        """Largest time by which effect may be stamped before cause."""
        return self.bound_us

    @cached_property
    def reach_us(self) -> int:
        """An action later than this after an impression is not about it."""
        return max(self.window_us, self.show_us) + self.skew_us

    @cached_property
    def memory_us(self) -> int:
        """How long past its time an event is remembered, by the watermark."""
        return self.reach_us + self.skew_us

    @cached_property
    def label_may_change(self) -> bool:
        """A later action may change the label that an item's first one gave."""
        return self.reducer != "any" or len({rule.priority for rule in self.labels}) > 1

    @cached_property
    def instant_us(self) -> int:
        """An action stamped up to this long after its impression takes effect on arrival, a later one when
        the watermark has passed that time (NEVER_US: at the window's end)."""
        if self.emission == "correcting":
            return self.early_negative_us
        return NEVER_US if self.label_may_change else self.window_us

    @cached_property
    def keep_below(self) -> int:
        """A negative is kept iff the hash of its sample id is below this (2^64: every one)."""
        return ceil(self.negative_rate * (1 << 64))

    def label_windows(self) -> dict[int, tuple[float, int]]:
        """kind -> (label, window in microseconds)."""
        return {
            rule.kind: (rule.label, self.window_us if rule.window_us is None else rule.window_us)
            for rule in self.labels
        }

    def fingerprint(self) -> str:
        """Equal for equal decisions. A state built under another one cannot be continued.

        Of what is newer than the first states it names only what is not at its default."""
        priority = {rule.kind: f":p{rule.priority}" if rule.priority else "" for rule in self.labels}
        labels = ",".join(
            f"{kind}:{label}:{window}{priority[kind]}"
            for kind, (label, window) in sorted(self.label_windows().items())
        )
        newer = "" if self.reducer == "any" else f"r{self.reducer}"
        newer += f"e{self.early_negative_us}" if self.emission == "correcting" else ""
        newer += "" if self.negative_rate == 1.0 else f"n{self.negative_rate}"
        newer += "" if self.scheme == "stream" else f":{self.scheme}"
        return f"w{self.window_us}b{self.bound_us}s{self.show_us}l{labels}{newer}"
