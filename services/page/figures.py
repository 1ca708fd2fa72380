"""The lines and tables of the page, from what the sources said. Pure.

A line is named ``chart.line`` ("ctr.online"); a source that did not answer gives none of its lines. The
stages of freshness are those of docs/results.md, told by the process that ends each: their medians add up to
about the median of the whole way, no more than about.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

from services.page.change import Change
from services.runtime.exposition import Reading, together

GATEWAY_CALL = {"grpc_service": "rec.v1.GatewayService", "grpc_method": "Recommend"}
# stage -> (source, histogram, labels)
STAGES: Mapping[str, tuple[str, str, Mapping[str, str]]] = {
    "collect": ("collector", "recloop_collector_ack_seconds", {}),
    "join": ("joiner", "recloop_joiner_emit_seconds", {"outcome": "positive"}),
    "train": ("trainer", "recloop_trainer_wait_seconds", {}),
    "publish": ("trainer", "recloop_trainer_held_seconds", {}),
    "apply": ("ranking", "recloop_ranking_delta_seconds", {}),
}
# What is asked of each source: names as they stand in its metrics page.
NAMES: Mapping[str, tuple[str, ...]] = {
    "gateway": (
        "grpc_server_handled_total",
        "grpc_server_handling_seconds_bucket",
        "recloop_gateway_arms_total",
        "recloop_gateway_degraded_total",
    ),
    "recall": (
        "recloop_recall_vector_generation",
        "recloop_recall_vector_sequence",
        "recloop_recall_vector_created_seconds",
        "recloop_recall_catalogue_items",
    ),
    "ranking": (
        "recloop_ranking_generation",
        "recloop_ranking_sequence",
        "recloop_ranking_staleness_seconds",
        "recloop_ranking_rows",
        "recloop_ranking_delta_seconds_bucket",
    ),
    "collector": ("recloop_collector_events_accepted_total", "recloop_collector_ack_seconds_bucket"),
    "joiner": ("recloop_joiner_items_total", "recloop_joiner_emit_seconds_bucket"),
    "feature_pipeline": ("recloop_feature_lag_records", "recloop_feature_folded_total"),
    "release": ("recloop_release_served",),
    "trainer": (
        "recloop_trainer_rows_total",
        "recloop_trainer_sequence",
        "recloop_trainer_wait_seconds_bucket",
        "recloop_trainer_held_seconds_bucket",
    ),
}
SAMPLES = ("positive", "negative", "correction")
Readings = Mapping[str, Mapping[str, Reading]]
Lags = Mapping[str, float]
Lines = dict[str, float | None]
Row = dict[str, object]


def lines(changes: Mapping[str, Change], readings: Readings, lags: Lags, followed: Collection[str]) -> Lines:
    """Every line's value in this look. ``readings``: by source and replica; ``lags``: records behind, by
    worker; ``followed``: the arms whose model is not pinned, which has no other age than the pin's."""
    found: Lines = {}
    found |= _traffic(changes.get("gateway"))
    found |= _freshness(changes)
    for arm, figures in served(readings.get("release", {})).items():
        found |= {f"ctr.{arm}": figures.get("ctr"), f"auc.{arm}": figures.get("auc")}
    found |= _samples(changes)
    found |= {f"lag.{worker}": lag for worker, lag in lags.items()}
    for reading in readings.get("ranking", {}).values():
        for arm, age_s in reading.by("recloop_ranking_staleness_seconds", "arm").items():
            if age_s > 0 and arm in followed:
                found[f"age.{arm}"] = max(age_s, found.get(f"age.{arm}") or 0.0)
    return found


def _traffic(change: Change | None) -> Lines:
    if change is None:
        return {}
    name, seconds = "grpc_server_handled_total", "grpc_server_handling_seconds"
    answered = change.rate(name, grpc_code="OK", **GATEWAY_CALL)
    every = change.rate(name, **GATEWAY_CALL)
    failed = None if every is None else every - (answered or 0.0)
    found = {"requests.answered": answered, "requests.failed": failed}
    for label, q in (("p50", 0.5), ("p99", 0.99)):
        took = change.quantile(seconds, q, **GATEWAY_CALL)
        found[f"latency.{label}"] = None if took is None else took * 1000
    found |= {f"share.{arm}": rate for arm, rate in change.rates("recloop_gateway_arms_total", "arm").items()}
    return found


def _freshness(changes: Mapping[str, Change]) -> Lines:
    found: Lines = {}
    for stage, (source, name, labels) in STAGES.items():
        change = changes.get(source)
        if change is not None:
            found[f"fresh.{stage}"] = change.quantile(name, 0.5, **labels)
            found[f"tail.{stage}"] = change.quantile(name, 0.99, **labels)
    known = [found.get(f"fresh.{stage}") for stage in STAGES]
    if all(one is not None for one in known):
        found["fresh.all"] = sum(one or 0.0 for one in known)
    return found


def _samples(changes: Mapping[str, Change]) -> Lines:
    found: Lines = {}
    if (joiner := changes.get("joiner")) is not None:
        rates = joiner.rates("recloop_joiner_items_total", "outcome")
        found |= {f"samples.{kind}": rates.get(kind) for kind in SAMPLES}
        if rates:
            found["samples.rejected"] = sum(rate for kind, rate in rates.items() if kind not in SAMPLES)
    if (collector := changes.get("collector")) is not None:
        found["events.action"] = collector.rate("recloop_collector_events_accepted_total", kind="action")
    if (trainer := changes.get("trainer")) is not None:
        found["samples.trained"] = trainer.rate("recloop_trainer_rows_total")
    return found


def served(release: Mapping[str, Reading]) -> dict[str, Lines]:
    """arm -> figure -> value, of the window that release judges; None where it had too little to say one."""
    found: dict[str, Lines] = {}
    for labels, value in together(release.values()).of("recloop_release_served"):
        found.setdefault(labels["arm"], {})[labels["figure"]] = value if math.isfinite(value) else None
    return found


def models(readings: Readings, now_ms: int) -> list[Row]:
    """What each replica serves, or trains: generation, sequence and age of its newest parameters, seconds."""
    rows: list[Row] = []
    for where, reading in sorted(readings.get("trainer", {}).items()):
        for labels, sequence in reading.of("recloop_trainer_sequence"):
            generation = float(labels["lineage"].partition("/")[0])
            rows.append(_row("trainer", where, labels["lineage"], (generation, sequence)))
    for where, reading in sorted(readings.get("ranking", {}).items()):
        generations = reading.by("recloop_ranking_generation", "arm")
        sequences = reading.by("recloop_ranking_sequence", "arm")
        for arm, age_s in sorted(reading.by("recloop_ranking_staleness_seconds", "arm").items()):
            # An arm that no model serves any more has the age 0 and its last numbers.
            if age_s > 0:
                version = (generations.get(arm, 0.0), sequences.get(arm, 0.0))
                rows.append(_row("ranking", where, arm, version, age_s))
    for where, reading in sorted(readings.get("recall", {}).items()):
        newest = reading.total("recloop_recall_vector_sequence")
        created_s = reading.total("recloop_recall_vector_created_seconds")
        if newest is not None and created_s:
            generation = reading.total("recloop_recall_vector_generation") or 0.0
            age_s = now_ms / 1000 - created_s
            rows.append(_row("recall", where, "vectors", (generation, newest), age_s))
    return rows


def _row(
    service: str, where: str, what: str, version: tuple[float, float], age_s: float | None = None
) -> Row:
    generation, sequence = version
    return {
        "service": service,
        "replica": where,
        "what": what,
        "generation": int(generation),
        "sequence": int(sequence),
        "age_s": None if age_s is None else round(age_s, 2),
    }


def outcomes(joiner: Mapping[str, Reading]) -> dict[str, float]:
    """What became of every impressed item since the joiner began, by outcome."""
    return together(joiner.values()).by("recloop_joiner_items_total", "outcome")


def degraded(gateway: Mapping[str, Reading]) -> list[Row]:
    """What answers lacked, and why, since the gateway began; most first."""
    found: dict[tuple[str, str], float] = {}
    for labels, value in together(gateway.values()).of("recloop_gateway_degraded_total"):
        key = (labels["source"], labels["reason"])
        found[key] = found.get(key, 0.0) + value
    most = sorted(found.items(), key=lambda one: -one[1])
    return [
        {"source": source, "reason": reason, "answers": value} for (source, reason), value in most if value
    ]
