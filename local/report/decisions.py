"""Release events as rows: when, about what, and what it was decided by. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from local.report.charts import Range, ranges
from local.report.numbers import ABSENT, decimal
from local.report.page import table
from local.report.plot import Mark, few_ticks
from local.report.series import Decision
from rec.model.v1.model_pb2 import ReleaseEvent
from services.contract.times import MICROS, to_us

# They come by the clock and decide nothing about who is served.
ROUTINE = ("base_registered",)
_BAD = ("rollback", "rolled_back", "reject", "fail")
# Said elsewhere in the row, or a path or hash that says nothing to a reader.
_LEFT_OUT = ("manifest_uri", "manifest_digest", "base_sequence", "base_epoch", "delta_offset", "checks")


def of_events(values: Sequence[bytes]) -> list[Decision]:
    """The records of release-events; times from the first one on."""
    events = sorted((ReleaseEvent.FromString(one) for one in values), key=lambda one: to_us(one.decided_at))
    return [
        Decision(
            (to_us(one.decided_at) - to_us(events[0].decided_at)) / MICROS,
            one.arm,
            one.decision,
            json.loads(one.evidence_json or "{}"),
        )
        for one in events
    ]


def notable(decisions: Sequence[Decision]) -> list[Decision]:
    """Those that change who is served by what."""
    return [one for one in decisions if one.decision not in ROUTINE]


def is_bad(decision: Decision) -> bool:
    """Whether something was taken back or refused."""
    return any(part in decision.decision for part in _BAD)


def marks(decisions: Sequence[Decision], unit_s: float) -> list[Mark]:
    """Numbered as the rows of ``listed`` are; what is taken back or refused in red."""
    return [
        Mark(one.at_s / unit_s, str(number), "c1" if is_bad(one) else "c2")
        for number, one in enumerate(decisions, 1)
        if one.at_s >= 0
    ]


def listed(decisions: Sequence[Decision], unit: str, unit_s: float) -> str:
    """A table, one decision a row; ``unit`` is what the first column counts in."""
    if not decisions:
        return "<p class='text'>Nothing was decided meanwhile.</p>"
    rows = [
        (
            str(number),
            f"{decimal(one.at_s / unit_s, 1)} {unit}",
            f"<b>{escape(one.decision.replace('_', ' '))}</b>",
            f"<code>{escape(one.arm)}</code>",
            _evidence(one.evidence),
        )
        for number, one in enumerate(decisions, 1)
    ]
    return table(("", "when", "decision", "about", "by"), rows, prose=True)


def compared(decisions: Sequence[Decision]) -> str:
    """The differences of click rate that experiments ended with, each with its confidence sequence."""
    rows = []
    for number, one in enumerate(decisions, 1):
        middle = _number(one.evidence.get("difference"))
        bounds = [_number(bound) for bound in one.evidence.get("confidence_sequence", ())]
        if not math.isfinite(middle) or len(bounds) != 2 or not all(map(math.isfinite, bounds)):
            continue
        rows.append(Range(f"{number} {one.decision}"[:16], bounds[0], middle, bounds[1], f"{middle:+.4f}"))
    if not rows:
        return ""
    low, high = min([0.0, *(row.low for row in rows)]), max([0.0, *(row.high for row in rows)])
    drawn = ranges("difference of click rates", rows, low, high, few_ticks(low, high))
    return f"<h3>Candidate's click rate above the control's, with its confidence sequence</h3>{drawn}"


def _evidence(found: Mapping[str, Any]) -> str:
    said = []
    for name, value in found.items():
        if name in _LEFT_OUT or value in (None, "", {}, []):
            continue
        inner = f"({_evidence(value)})" if isinstance(value, Mapping) else escape(_said(value))
        said.append(f"{escape(name.replace('_', ' '))} {inner}")
    said += [_check(check) for check in found.get("checks", ()) if isinstance(check, Mapping)]
    return "; ".join(said) or ABSENT


def _check(check: Mapping[str, Any]) -> str:
    good = bool(check.get("good"))
    low, high = check.get("low"), check.get("high")
    text = escape(f"{check.get('name')} {_said(check.get('value'))} (allowed {_said(low)} to {_said(high)})")
    return text if good else f"<strong>{text}</strong>"


def _said(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value)


def _number(value: object) -> float:
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return math.nan
