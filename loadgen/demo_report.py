"""The figures of a simulated run: out/demo.json, its readable table, and the checks on it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from loadgen.evidence import Summary
from loadgen.live import Live
from loadgen.settings import SimulateSettings

EVENT_FATES = ("acknowledged", "refused", "lost", "dropped", "retries")


@dataclass(frozen=True)
class Limits:
    """What a run must reach."""

    min_answered_per_s: float
    min_candidates: int
    min_delta_rows: int
    max_freshness_p50_s: float
    require_uplift: bool

    @classmethod
    def of(cls, settings: SimulateSettings) -> Limits:
        """The limits in the settings."""
        return cls(
            settings.min_answered_per_s,
            settings.candidates,
            settings.min_delta_rows,
            settings.max_freshness_p50_s,
            settings.require_uplift and bool(settings.shadow_arm),
        )


def figures(live: Live, summary: Summary, run: dict[str, Any]) -> dict[str, Any]:
    """The content of out/demo.json (keys: docs/results.md)."""
    generation, sequence = live.newest
    return {
        "requests": live.requests,
        "errors": live.requests - live.answered,
        "requests_per_s": live.requests_per_s(),
        "latency_ms": live.latency_ms(),
        "impressions": live.impressions,
        "clicks": live.clicks,
        "ctr": live.clicks / live.impressions if live.impressions else None,
        "ctr_per_20s": live.ctr_per_span(),
        "samples": summary.samples,
        "duplicates": summary.duplicates,
        "rejected_items": summary.rejected_items,
        "dead_letters": summary.dead_letters,
        "auc_served": summary.auc,
        "auc_second_half": summary.auc_second_half,
        "log_loss_served": summary.log_loss,
        "base_rate": summary.base_rate,
        "deltas_published": summary.deltas_published,
        "deltas_applied": summary.deltas_applied,
        "delta_rows_applied": summary.delta_rows_applied,
        "candidates_min": live.candidates_min,
        "ctr_true_last_30s": live.true_ctr_last(),
        "ctr_true": live.true_ctr(),
        "generation": generation,
        "sequence": sequence,
        "freshness_s": summary.freshness_s,
        "freshness_stage_s": summary.freshness_stage_s,
        "freshness_clicks": summary.freshness_clicks,
        "clicks_unserved": summary.clicks_unserved,
        "label_wait_s": summary.label_wait_s,
        "late_sends": live.late_sends,
        "dropped_sends": live.dropped_sends,
        "unscored": live.unscored,
        "unknown_items": live.unknown_items,
        "statuses": dict(live.statuses),
        "degraded": dict(live.degraded),
        **run,
    }


def failures(found: dict[str, Any], limits: Limits) -> list[str]:
    """What shows that the loop did not close, by name; empty when it did."""
    explained = found["samples"] + sum(found["rejected_items"].values())
    fresh = found["freshness_s"].get("p50")
    true_ctr = found["ctr_true_last_30s"]
    online, frozen = true_ctr["online"], true_ctr["frozen"]
    lost = found["events"]["lost"] + found["events"]["refused"] + found["events"]["pending"]
    checks = {
        f"errors = {found['errors']}, not 0 ({found['statuses']})": found["errors"] == 0,
        f"requests_per_s = {found['requests_per_s']:.1f}, below {limits.min_answered_per_s}": (
            found["requests_per_s"] >= limits.min_answered_per_s
        ),
        f"samples = {found['samples']}, not the {found['impressions']} items shown": (
            found["samples"] == found["impressions"] > 0
        ),
        f"{found['impressions'] - explained} shown items are neither a sample nor a reason": (
            explained == found["impressions"]
        ),
        f"duplicates = {found['duplicates']}, not 0": found["duplicates"] == 0,
        f"events lost, refused or pending: {found['events']}": lost + found["events"]["dropped"] == 0,
        "clicks = 0": found["clicks"] > 0,
        "deltas_applied = 0": found["deltas_applied"] > 0,
        f"delta_rows_applied = {found['delta_rows_applied']}, below {limits.min_delta_rows}": (
            found["delta_rows_applied"] >= limits.min_delta_rows
        ),
        f"candidates_min = {found['candidates_min']}, below {limits.min_candidates}": (
            (found["candidates_min"] or 0) >= limits.min_candidates
        ),
        f"freshness_s.p50 = {fresh}, above {limits.max_freshness_p50_s}": (
            fresh is not None and fresh <= limits.max_freshness_p50_s
        ),
        f"ctr_true_last_30s: online {online} is not above frozen {frozen}": (
            not limits.require_uplift or (online is not None and frozen is not None and online > frozen)
        ),
        f"generation {found['generation']}, sequence {found['sequence']}: no answer came from a delta": (
            found["generation"] > 0 and found["sequence"] > 0
        ),
    }
    return [said for said, passed in checks.items() if not passed]


def table(found: dict[str, Any]) -> str:
    """The figures for people."""
    latency, fresh, wait = found["latency_ms"], found["freshness_s"], found["label_wait_s"]
    true_ctr, run_ctr = found["ctr_true_last_30s"], found["ctr_true"]
    reasons = ", ".join(f"{name} {count}" for name, count in found["rejected_items"].items()) or "none"
    rows = [
        ("requests", f"{found['requests']:,} ({found['errors']} errors)"),
        ("offered, answered", f"{found['offered_rps']:.1f}/s, {found['requests_per_s']:.1f}/s"),
        ("latency p50, p99", f"{_number(latency['p50'], 1)} ms, {_number(latency['p99'], 1)} ms"),
        ("late, dropped sends", f"{found['late_sends']}, {found['dropped_sends']}"),
        ("generator's CPU", f"{found['generator_cpu_ms_per_request']:.2f} ms a request"),
        ("candidates, at least", found["candidates_min"]),
        ("items shown, clicks", f"{found['impressions']:,}, {found['clicks']:,}"),
        ("samples joined", f"{found['samples']:,} ({found['duplicates']} duplicates; reasons: {reasons})"),
        ("CTR per 20 s", "  ".join(_number(rate, 3) for rate in found["ctr_per_20s"])),
        (
            "AUC, log loss served",
            f"{_number(found['auc_served'], 4)}, {_number(found['log_loss_served'], 4)}",
        ),
        ("deltas published, applied", f"{found['deltas_published']}, {found['deltas_applied']}"),
        ("delta rows applied", f"{found['delta_rows_applied']:,}"),
        ("model at the end", f"generation {found['generation']}, sequence {found['sequence']}"),
        (
            "true CTR, last 30 s",
            f"online {_number(true_ctr['online'], 4)}, frozen {_number(true_ctr['frozen'], 4)}",
        ),
        (
            "true CTR, whole run",
            f"shown {_number(run_ctr['shown'], 4)}, best ten of each answer {_number(run_ctr['ideal'], 4)}",
        ),
        ("freshness p50, p99", f"{_number(fresh['p50'], 2)} s, {_number(fresh['p99'], 2)} s"),
    ]
    for name, stage in found["freshness_stage_s"].items():
        rows.append((f"  {name}", f"{_number(stage['p50'], 3)} s, {_number(stage['p99'], 3)} s"))
    rows.append(("label wait p50, p99", f"{_number(wait['p50'], 2)} s, {_number(wait['p99'], 2)} s"))
    rows.append(("drain after the load", f"{found['drain_s']} s"))
    memory = found["peak_memory_mb"]
    rows.append(("peak memory", f"{sum(memory.values()):,.0f} MB"))
    rows += [(f"  {name}", f"{peak:,.0f} MB") for name, peak in memory.items()]
    return "\n".join(f"  {name:<28}{value}" for name, value in rows)


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
