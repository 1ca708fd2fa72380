"""What the join may decide by: windows, bounds, labels, limits. Contradictions die in the constructor.

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

from rec.events.v1 import events_pb2 as ev
from services.contract.errors import FieldViolation, InvalidInput

MAX_WINDOW_US = 30 * 24 * 3600 * 1_000_000


@dataclass(frozen=True)
class LabelRule:
    """One kind of action that labels a shown item.

    ``window_us`` is how long after the impression the action still counts (its end included); None = the
    join's whole window.
    """

    kind: int
    label: float = 1.0
    window_us: int | None = None


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

    def label_windows(self) -> dict[int, tuple[float, int]]:
        """kind -> (label, window in microseconds)."""
        return {
            rule.kind: (rule.label, self.window_us if rule.window_us is None else rule.window_us)
            for rule in self.labels
        }

    def fingerprint(self) -> str:
        """Equal for equal decisions. A state built under another one cannot be continued."""
        labels = ",".join(
            f"{kind}:{label}:{window}" for kind, (label, window) in sorted(self.label_windows().items())
        )
        return f"w{self.window_us}b{self.bound_us}s{self.show_us}l{labels}"
