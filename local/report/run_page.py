"""A run under load as a page: the demo, and any experiment that leaves the same evidence. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from local.evidence import STAGES, Evidence
from local.report import decisions as decided
from local.report.charts import Bar, bars
from local.report.lanes import lanes
from local.report.numbers import count, decimal, percent, seconds
from local.report.page import beside, head, made_with, page, section, table, verdict
from local.report.plot import Axis, plot
from local.report.series import ORACLE, Run

CLICKS = (
    "Clicks / shown items: what users did, with one standard error (by requests). <b>True</b>: the "
    "simulated world's own click probability of what was shown, without luck and position; the dashed lines "
    "are what a model frozen at the start would have chosen from the same candidates, and the best ten of "
    "each answer."
)
ORDER = (
    "How well the scores that were <em>served</em> order clicked before unclicked items (0.5 = not at all), "
    "judged on their own labels, which no model had seen then; bars: one standard error."
)
REGRET = (
    f"The oracle knows every true click probability. Regret: <b>{ORACLE}</b> above what was shown, per item; "
    "summed up it is the clicks that were lost."
)
FRESHNESS = (
    "From a click to the first answer whose model has learned it. <b>Collect</b>: sent to acknowledged; "
    "<b>join</b>: to its sample on Kafka; <b>train</b>: to the end of the step that learned it; "
    "<b>publish</b>: to its delta on Kafka; <b>apply</b>: to the first answer with it. <b>All</b> counts "
    "from acknowledged on."
)
LATENCY = (
    "From the moment at which a request was <em>meant</em> to be sent, so that a slow answer delays nobody."
)
MODELS = (
    "Above: which lineage (generation/policy) answered for each arm, with the decisions by number. Age: "
    "seconds since the model that answered was last changed, of the median answer."
)
# (what, key of out/demo.json, how it is said).
TOP_FIGURES = (
    ("requests", "requests", count),
    ("errors", "errors", count),
    ("answered per second", "requests_per_s", lambda value: decimal(value, 1)),
    ("items shown", "impressions", count),
    ("clicks", "clicks", count),
    ("samples", "samples", count),
    ("duplicate samples", "duplicates", count),
    ("AUC served", "auc_served", lambda value: decimal(value, 4)),
    ("log loss served, nats", "log_loss_served", lambda value: decimal(value, 4)),
    ("deltas applied", "deltas_applied", count),
    ("late sends", "late_sends", count),
)


def run_page(title: str, figures: Mapping[str, Any], evidence: Evidence, setup: Mapping[str, Any]) -> str:
    """The whole file; ``figures`` as in out/demo.json (none of its keys is needed)."""
    run = Run(evidence)
    time = Axis(f"time since the first request, {run.bins.unit}", low=0.0, high=run.bins.ends()[-1])
    parts = [
        head(title, _said(figures)),
        verdict(figures.get("failed_checks", ())),
        section("Clicks", _clicks(run, time), CLICKS),
        section("Order", plot("AUC of served scores", run.order(), time, Axis("AUC")), ORDER),
        section("Regret", _regret(run, time), REGRET),
        section("Freshness", _freshness(figures, run, time), FRESHNESS),
        section("Latency", plot("Latency of answers", run.latency(), time, Axis("ms", low=0.0)), LATENCY),
        section("Models and decisions", _models(run, time), MODELS),
        section("Figures", _figures(figures)),
        made_with(setup),
    ]
    return page(title, parts)


# -- parts -------------------------------------------------------------------------------------------------


def _said(figures: Mapping[str, Any]) -> str:
    parts = []
    if "requests" in figures:
        parts.append(f"{count(figures['requests'])} requests, {count(figures['errors'])} errors.")
    if "ctr" in figures:
        parts.append(f"Of the items shown <b>{percent(figures['ctr'])}</b> were clicked.")
    if "freshness_s" in figures:
        fresh = seconds(figures["freshness_s"]["p50"])
        parts.append(f"A click is served by a model that has learned it after <b>{fresh}</b> (median).")
    last = figures.get("ctr_true_last_30s") or {}
    if last.get("online") is not None and last.get("frozen"):
        gain = last["online"] / last["frozen"] - 1
        parts.append(
            f"In the last 30 s the true click probability of what was shown was <b>{abs(gain):.0%} "
            f"{'above' if gain > 0 else 'below'}</b> what a model frozen at the start would have shown."
        )
    return " ".join(parts)


def _clicks(run: Run, time: Axis) -> str:
    return beside(
        [
            plot("Click rate", run.click_rate(), time, Axis("clicks / shown", low=0.0)),
            plot("True click probability", run.truth(), time, Axis("mean probability", low=0.0)),
        ]
    )


def _regret(run: Run, time: Axis) -> str:
    return beside(
        [
            plot("Regret per shown item", run.regret(), time, Axis("probability", low=0.0)),
            plot("Clicks lost to the oracle, summed", run.lost_clicks(), time, Axis("clicks", low=0.0)),
        ]
    )


def _freshness(figures: Mapping[str, Any], run: Run, time: Axis) -> str:
    drawn = beside(
        [plot(f"Each stage, p{q}", run.freshness(q), time, Axis("seconds", low=0.0)) for q in (50, 99)]
    )
    stages = figures.get("freshness_stage_s")
    if not stages:
        return drawn
    rows = [(escape(name), seconds(stages[name]["p50"]), seconds(stages[name]["p99"])) for name in STAGES]
    fresh = figures["freshness_s"]
    rows.append(("<b>all</b>", seconds(fresh["p50"]), seconds(fresh["p99"])))
    note = (
        f"<p class='text'>Measured on {count(figures['freshness_clicks'])} clicks; "
        f"{count(figures['clicks_unserved'])} more had no answer that contained them when the run ended.</p>"
    )
    return drawn + table(("over the whole run", "p50", "p99"), rows) + note


def _models(run: Run, time: Axis) -> str:
    notable, bins = decided.notable(run.decisions()), run.bins
    end = bins.ends()[-1]
    marks = decided.marks(notable, bins.unit_s)
    return (
        lanes("What answered for each arm", run.stretches(), end, bins.unit, marks)
        + plot("Age of the model that answered", run.age(), time, Axis("seconds", low=0.0), marks)
        + decided.compared(notable)
        + decided.listed(notable, bins.unit, bins.unit_s)
    )


def _figures(figures: Mapping[str, Any]) -> str:
    rows = [(name, said(figures[key])) for name, key, said in TOP_FIGURES if key in figures]
    reasons = [
        (f"no sample: {escape(name)}", count(found))
        for name, found in figures.get("rejected_items", {}).items()
    ]
    degraded = [
        (f"degraded: {escape(name)}", count(found)) for name, found in figures.get("degraded", {}).items()
    ]
    memory = figures.get("peak_memory_mb", {})
    used = bars("peak memory", [Bar(name, peak, f"{peak:,.0f} MB") for name, peak in memory.items()])
    parts = [table(("", ""), [*rows, *reasons, *degraded])]
    parts += [f"<h3>Peak memory of each process</h3>{used}"] if memory else []
    return beside(parts)
