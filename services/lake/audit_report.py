"""An audit as JSON and as text."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from services.lake.audit import Audit, ColumnAudit, Outcome

_HEAD = (
    "feature",
    "rows",
    "wrong",
    "differ",
    "missing",
    "extra",
    "ideal",
    "nondefault",
    "behind",
    "p50 ms",
    "p99 ms",
)


def as_dict(audit: Audit) -> dict[str, Any]:
    """Everything that was counted; ``skewed`` names the columns that are above what is tolerated."""
    return {
        "schema_hash": f"{audit.schema_hash:016x}",
        "requests": audit.requests,
        "other_schema": audit.other_schema,
        "unreadable": audit.unreadable,
        "tolerated": audit.tolerated,
        "skewed": audit.skewed(),
        **_totals(audit),
        "features": {name: _column(one) for name, one in audit.columns.items()},
    }


def _totals(audit: Audit) -> dict[str, Any]:
    columns = audit.columns.values()
    as_served, ideal = Outcome(), Outcome()
    for one in columns:
        as_served.add(one.as_served)
        ideal.add(one.ideal)
    share = sum(one.nondefault for one in columns) / max(as_served.rows, 1)
    return {"as_served": asdict(as_served), "ideal": asdict(ideal), "nondefault_share": share}


def _column(one: ColumnAudit) -> dict[str, Any]:
    rows = max(one.as_served.rows, 1)
    return {
        "as_served": asdict(one.as_served),
        "ideal": asdict(one.ideal),
        "nondefault_share": one.nondefault / rows,
        "behind_share": len(one.behind_us) / rows,
        "behind_ms": {f"p{q}": behind_ms(one, q) for q in (50, 99, 100)},
    }


def behind_ms(one: ColumnAudit, percentile: int) -> float:
    """Of the states that were behind; 0 when none was."""
    return float(np.percentile(one.behind_us, percentile)) / 1000 if len(one.behind_us) else 0.0


def as_text(audit: Audit) -> str:
    """A table, one line per feature, and the verdict."""
    lines: list[tuple[str, ...]] = [_HEAD]
    for name, one in audit.columns.items():
        served, rows = one.as_served, max(one.as_served.rows, 1)
        shares = (f"{one.nondefault / rows:.1%}", f"{len(one.behind_us) / rows:.1%}")
        counts = (served.rows, served.wrong, served.mismatches, served.missing, served.extra, one.ideal.wrong)
        late = (f"{behind_ms(one, 50):.0f}", f"{behind_ms(one, 99):.0f}")
        lines.append((name, *map(str, counts), *shares, *late))
    widths = [max(len(line[at]) for line in lines) for at in range(len(_HEAD))]
    text = [
        "  ".join(
            cell.rjust(width) if at else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    ]
    apart = f"{audit.other_schema} requests of another schema, {audit.unreadable} unreadable"
    skewed = ", ".join(audit.skewed()) or "none"
    text += [
        "",
        f"{audit.requests} requests audited; {apart}",
        f"skewed (above {audit.tolerated:.2%}): {skewed}",
    ]
    return "\n".join(text)
