"""One judged figure, as the gate and the guard give it and as `release-events` keeps it. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Check:
    """``value`` is good within ``low`` and ``high``, both included; a NaN is never good."""

    name: str
    value: float
    low: float = -math.inf
    high: float = math.inf

    @property
    def good(self) -> bool:
        """Whether it passes."""
        return self.low <= self.value <= self.high

    def said(self) -> dict[str, object]:
        """For JSON."""
        found = {name: said(value) for name, value in asdict(self).items()}
        return found | {"good": self.good}


def failed(checks: Sequence[Check]) -> list[str]:
    """Names of the checks that do not pass."""
    return [check.name for check in checks if not check.good]


def said(value: object) -> object:
    """For JSON, which has neither NaN nor infinity."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
