"""A feature view: one definition, which the online fold, the as-of join and the replay all interpret.

**What a view says about an entity at event time t**, given a set S of its events (those that pass the view's
sources and filter). Let h be the hop, H = t // h the hop of t, ``newest`` the largest occurred_at in S, N its
hop. Then, whatever order S came in:

1. S empty, or N - H > ``slack_hops`` (the state is too far ahead of the request): the row is *missing*, and
   every feature has its declared default.
2. A window of w = k x h is right-open and sawtooth: the k full hops before H, and the *head*, which is the
   part of H before t. So it is w to w + h long. Window 0 is all time.
3. The head counts iff ``newest`` < t. Then all of S happened before t and the window ends exactly at t.
   Otherwise something in S overtook the request; tiles cannot say which part of one is before t, so the
   window ends at H x h. Nothing at or after t ever counts.
4. A LastK keeps the k + SPARE newest by (occurred_at, event hash), a repeated pair with equal fields once; of
   those it says the ones before t, in the window, at most k.

S is what decides between two modes:

- ``ideal``: S = all events with occurred_at < t. So the head always counts: right-open at t.
- ``as_served``: S = what was there: append time + measured lag < the wall time of the request. An event that
  came late counts from then on, in the tile where it belongs.

A ``batch`` view moves once a hop: its head never counts, its windows and lists end at H x h whatever S is.
(So an ordinary state, folded as events come, says what a job that runs once a hop would have written. What a
feature says in seconds is still counted to t.)

An online state that holds exactly the events of S answers the same bits, because it is a function of the set
S: tiles are sums, minima, maxima, and only tiles that no admissible t can reach are given up. Features are
computed from integers by IEEE +, -, x, / alone (view_values), so that no processor rounds another way.

**Identity.** ``definition_hash`` covers everything that decides values; owner and descriptions may change.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property

import xxhash

from services.contract.errors import InvalidInput
from services.contract.view_aggregates import MATCHING_READS, Feature, Instant, LastK
from services.contract.view_check import violations
from services.contract.view_codec import arguments, canonical
from services.contract.view_events import Condition, Event

# Events that a LastK keeps beyond k, for those that overtook the request.
SPARE = 2
_MASK = (1 << 64) - 1


@dataclass(frozen=True)
class FeatureView:
    """Contradictions are refused by the constructor: InvalidInput names every one.

    ``key``: fields that name the entity, () = everything is one entity. ``kind``: batch, streaming, instant
    (no key, source or hop: from the request alone). ``slack_hops``: how far a state may be ahead of a
    request; where event time runs faster than the wall, a request is behind by more hops.
    """

    name: str
    version: int
    key: tuple[str, ...]
    sources: tuple[str, ...]
    features: tuple[Feature, ...]
    hop_us: int
    filter: tuple[Condition, ...] = ()
    kind: str = "streaming"
    slack_hops: int = 2
    owner: str = ""
    description: str = ""

    def __post_init__(self) -> None:
        bad = violations({field.name: getattr(self, field.name) for field in fields(self)})
        if bad:
            raise InvalidInput(bad)

    def __hash__(self) -> int:
        # Computed once: plans are looked up by view for every request.
        return self.definition_hash

    def takes(self, event: Event) -> bool:
        """Whether an event belongs to the view (rule 1)."""
        if event.kind not in self.sources:
            return False
        stored = event.fields
        return all(condition.holds(stored[condition.field]) for condition in self.filter)

    def entity(self, event: Event) -> bytes:
        """The key of the entity that an event touches: 8 bytes LE per key field."""
        return b"".join((event.fields[name] & _MASK).to_bytes(8, "little") for name in self.key)

    @property
    def full_name(self) -> str:
        """name.version: how topics, sets and reports call it."""
        return f"{self.name}.{self.version}"

    def hops(self, feature: Feature) -> int:
        """k of a feature's window; 0 = all time."""
        return feature.window_us // self.hop_us if self.hop_us else 0

    @cached_property
    def window_hops(self) -> int:
        """The longest window; 0 = none is bounded."""
        return max((self.hops(feature) for feature in self.features), default=0)

    @cached_property
    def has_all_time(self) -> bool:
        """Whether something besides a LastK looks at all time."""
        return any(not f.window_us and not isinstance(f.aggregate, LastK | Instant) for f in self.features)

    @cached_property
    def operands(self) -> tuple[str, ...]:
        """Fields of the candidate that features are compared with: the view is read once per candidate."""
        lasts = [f.aggregate for f in self.features if isinstance(f.aggregate, LastK)]
        return tuple(sorted({last.field for last in lasts if last.read in MATCHING_READS}))

    @cached_property
    def definition_hash(self) -> int:
        """xxh64 of the canonical form without owner and descriptions."""
        return xxhash.xxh64_intdigest(canonical(self, with_notes=False).encode(), seed=0)


def view_from(text: str) -> FeatureView:
    """The view of a canonical text; InvalidInput when it is none, or contradicts itself."""
    given = arguments(text, FeatureView.__name__)
    try:
        return FeatureView(**given)
    except TypeError as error:
        raise InvalidInput.one("view", text, f"the fields of a FeatureView ({error})") from error
