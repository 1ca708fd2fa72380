"""Whether what a source said may be shown. Pure: moments are given.

| state | when |
|---|---|
| live | it answered in the newest look |
| partial | some of its replicas did |
| missing | none did; since when, and why, is said. Nothing that it said before is shown |
| unset | the page was not told where it is |
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

LIVE, PARTIAL, MISSING, UNSET = "live", "partial", "missing", "unset"


@dataclass(frozen=True)
class Heard:
    """What came of asking one source: ``answers`` by replica, or why there is none, by replica too."""

    answers: Mapping[str, object] = field(default_factory=dict)
    errors: Mapping[str, str] = field(default_factory=dict)

    @property
    def state(self) -> str:
        """See the table."""
        if not self.answers:
            return MISSING if self.errors else UNSET
        return PARTIAL if self.errors else LIVE


@dataclass
class Source:
    """One source through time; ``heard_ms`` is when it last answered (wall), 0 = never."""

    name: str
    state: str = UNSET
    heard_ms: int = 0
    error: str = ""

    def note(self, heard: Heard, now_ms: int) -> None:
        """A look is over."""
        self.state = heard.state
        self.error = "; ".join(f"{where}: {why}" for where, why in sorted(heard.errors.items()))
        if heard.answers:
            self.heard_ms = now_ms

    def said(self) -> dict[str, object]:
        """For the page."""
        return {"name": self.name, "state": self.state, "heard_ms": self.heard_ms, "error": self.error}
