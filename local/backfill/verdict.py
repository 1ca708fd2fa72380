"""The figures of out/backfill.json, and what must hold of them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from local.backfill.run import Run

MIN_ROWS = 10_000
MIN_NOT_DEFAULT = 0.5
WRONG = ("mismatches", "missing", "extra")
LOAD = ("requests", "errors", "requests_per_s", "latency_ms", "samples", "duplicates", "degraded")
US = 1e6


def figures(
    run: Run, view: str, said: Mapping[str, Mapping[str, Any]], learned: Mapping[str, Any]
) -> dict[str, Any]:
    """Keys: docs/results.md. ``said``: by audit-states (states), audit-features (served), the load generator
    (load)."""
    states, served, load = said["states"], said["served"], said["load"]
    audited = states["views"][view]
    return {
        "view": view,
        "rows": audited["rows"],
        "rows_not_default": audited["rows_not_default"],
        **{name: audited[name] for name in WRONG},
        "columns": audited["columns"],
        "default_views": {name: one for name, one in states["views"].items() if name != view},
        "steps_s": dict(run.steps_s),
        "trainable_s": round(sum(run.steps_s.values()), 2),
        "trainable_rows": run.trainable_rows,
        "states_filled": run.states,
        "forward_logging": forward_logging(run, learned, load),
        **learned,
        "served_audit": served_audit(served),
        "load": {name: load[name] for name in LOAD},
        "unexplained": load["impressions"] - load["samples"] - sum(load["rejected_items"].values()),
        "deaths": list(run.deaths),
    }


def forward_logging(run: Run, learned: Mapping[str, Any], load: Mapping[str, Any]) -> dict[str, Any]:
    """What waiting would have given: rows by the time that the backfilled ones were there, at which rate, and
    how long until there were as many. Null where nothing was logged."""
    rows = learned["auc"]["forward"]["rows"]
    rate = load["samples"] / load["duration_s"]
    return {
        "rows": rows,
        "seconds": round((run.trainable_us - run.live_us) / US, 2),
        "samples_per_s": round(rate, 2),
        "seconds_to_as_many": round(run.trainable_rows / rate, 1) if rate else None,
    }


def served_audit(served: Mapping[str, Any]) -> dict[str, Any]:
    """As served, while the load ran: totals, and the features of which anything differs."""
    return {
        "requests": served["requests"],
        "other_schema": served["other_schema"],
        "unreadable": served["unreadable"],
        **{name: served["as_served"][name] for name in ("rows", *WRONG)},
        "differ": {
            name: {**{key: one["as_served"][key] for key in WRONG}, "behind_ms": one["behind_ms"]}
            for name, one in served["features"].items()
            if any(one["as_served"][key] for key in WRONG)
        },
        "behind_ms_max": max((one["behind_ms"]["p100"] for one in served["features"].values()), default=0.0),
        "skewed": list(served["skewed"]),
    }


def failures(found: Mapping[str, Any], min_rows: int) -> list[str]:
    """What must show and does not; empty when all does."""
    view, rows = found["view"], found["rows"]
    share = found["rows_not_default"] / max(rows, 1)
    wrong = {view: {name: found[name] for name in WRONG}}
    wrong |= {name: {key: one[key] for key in WRONG} for name, one in found["default_views"].items()}
    served = found["served_audit"]
    checks = {
        f"rows = {rows}, below {min_rows}": rows >= min_rows,
        f"{share:.1%} of the rows are not the default, below {MIN_NOT_DEFAULT:.0%}": share >= MIN_NOT_DEFAULT,
        **{f"{name}: {counts}, not 0": not any(counts.values()) for name, counts in wrong.items()},
        f"errors = {found['load']['errors']}, not 0": found["load"]["errors"] == 0,
        f"{found['unexplained']} shown items are neither a sample nor a reason": found["unexplained"] == 0,
        f"duplicates = {found['load']['duplicates']}, not 0": found["load"]["duplicates"] == 0,
        f"died: {', '.join(found['deaths'])}": not found["deaths"],
        f"trainable_rows = {found['trainable_rows']}": found["trainable_rows"] > 0,
        "no request that was served meanwhile has been audited": served["requests"] > 0,
        f"served features skewed: {', '.join(served['skewed'])}": not served["skewed"],
    }
    return [said for said, holds in checks.items() if not holds]
