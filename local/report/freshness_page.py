"""What is lost when the model is synchronised less often, as a page. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from local.report.charts import Bar, Range, bars, ranges
from local.report.numbers import count, decimal, interval, seconds, size
from local.report.page import beside, head, made_with, page, section, table, verdict
from local.report.plot import Axis, Series, few_ticks, plot

AREAS = (
    "AUC of the scores that each event got before its label was known, over the last 80 % of the events. All "
    "arms of a pass learn from the same samples in the same steps and see the same features: only the age of "
    "their parameters differs. Bars: standard deviation over the seeds of the model; no bar: one seed. "
    "<b>never</b>: synchronised for the first fifth, then frozen."
)
COSTS = (
    "What each interval costs over the whole log: bytes of its deltas, and seconds in which the trainer "
    "gathered and hashed them and ranking applied them."
)
# Where never stands on an axis of intervals: that many times the longest one.
_NEVER = 6.0
_COLOURS = ("c2", "k0")
WORLD = (
    "The simulated world as a log, replayed in the same way, with the same users, items and arrivals twice: "
    "in <b>drift</b> tastes, trends and qualities move within minutes, in <b>still</b> nothing moves. What a "
    "stale model loses in still is what it has not learned yet; what it loses beyond that, in drift, is age."
)
WINDOWS = (
    "Too little data against data that is too old. {every} of event time a new model is trained in one pass "
    "over the last minutes only, and scores the traffic that comes next: {judged} rows by {models} models, "
    "the same rows for all. <b>Served</b>: the model that has learned everything step by step, synchronised "
    "at each barrier. Bars: standard deviation over the seeds."
)


def freshness_page(figures: Mapping[str, Any]) -> str:
    """The whole file; ``figures`` as in out/freshness.json."""
    rows, world = figures["rows"], figures.get("world")
    parts = [
        head("What freshness is worth", _said(figures) if rows else "In the simulated world only."),
        verdict([*figures["failed_checks"], *(world["failed_checks"] if world else ())]),
    ]
    if rows:
        parts += [
            section("AUC by how often the model is synchronised", areas([("", rows)]) + _table(rows), AREAS),
            section("What it costs", costs(rows), COSTS),
            section("Passes", _passes(figures["passes"]), "Each is a replay of the log, with its own stack."),
            made_with(figures["setup"]),
        ]
    if world:
        parts += [*_world(world), made_with(world["setup"])]
    return page("freshness", parts)


def places(rows: Sequence[Mapping[str, Any]]) -> list[float]:
    """Where each row's interval stands on a log axis, in seconds."""
    longest = max((row["interval_s"] for row in rows if row["interval_s"] is not None), default=1.0)
    return [longest * _NEVER if row["interval_s"] is None else row["interval_s"] for row in rows]


def areas(lines: Sequence[tuple[str, Sequence[Mapping[str, Any]]]]) -> str:
    """AUC over intervals, error bars over seeds: a line for each (name, rows), of the same intervals."""
    rows = lines[0][1]
    where = places(rows)
    series = [
        Series(
            name or "AUC, last 80 %",
            where,
            [row["auc"]["mean"] for row in of],
            [row["auc"]["std"] for row in of],
            colour,
        )
        for (name, of), colour in zip(lines, _COLOURS, strict=False)
    ]
    ticks = list(zip(where, (interval(row["interval_s"]) for row in rows), strict=True))
    across = Axis("synchronised every (event time, log scale)", log=True, ticks=ticks)
    return plot("AUC by interval", series, across, Axis("AUC"))


def costs(rows: Sequence[Mapping[str, Any]]) -> str:
    """Bytes and CPU beside each other, a bar for each interval."""
    sent = [
        Bar(interval(row["interval_s"]), row["delta_bytes"], size(row["delta_bytes"]), "c2") for row in rows
    ]
    used = [Bar(interval(row["interval_s"]), row["cpu_s"], seconds(row["cpu_s"]), "k0") for row in rows]
    return beside(
        [
            f"<h3>Bytes of deltas</h3>{bars('bytes of deltas by interval', sent)}",
            f"<h3>CPU seconds</h3>{bars('CPU seconds by interval', used)}",
        ]
    )


# -- parts -------------------------------------------------------------------------------------------------


def _said(figures: Mapping[str, Any]) -> str:
    rows = figures["rows"]
    freshest, oldest = rows[0], rows[-1]
    lost = freshest["auc"]["mean"] - oldest["auc"]["mean"]
    events = max((one["events"] for one in figures["passes"]), default=0)
    return (
        f"{count(events)} events of <b>{escape(str(figures['dataset']))}</b>, replayed in event time through "
        f"the real services. Synchronised every {interval(freshest['interval_s'])} the model orders them "
        f"with AUC <b>{decimal(freshest['auc']['mean'], 4)}</b>; {_how(oldest['interval_s'])}, with "
        f"<b>{decimal(oldest['auc']['mean'], 4)}</b>: {decimal(abs(lost), 4)} "
        f"{'less' if lost > 0 else 'more'}."
    )


def _how(interval_s: float | None) -> str:
    return "frozen after a fifth" if interval_s is None else f"every {interval(interval_s)}"


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    header = ("interval", "AUC (last 80 %)", "std", "seeds", "AUC (all)", "log loss, nats")
    return table(
        header,
        [
            (
                interval(row["interval_s"]),
                decimal(row["auc"]["mean"], 4),
                decimal(row["auc"]["std"], 4),
                count(row["auc"]["seeds"]),
                decimal(row["auc_all"], 4),
                decimal(row["log_loss"], 4),
            )
            for row in rows
        ],
    )


def _passes(passes: Sequence[Mapping[str, Any]]) -> str:
    header = ("seed", "barrier", "events", "samples", "barriers", "wait p50", "wait p99", "took")
    return table(
        header,
        [
            (
                count(one["seed"]),
                interval(one["barrier_s"]),
                count(one["events"]),
                count(one["samples"]),
                count(one["barriers"]),
                f"{decimal(one['barrier_wait_ms']['p50'], 0)} ms",
                f"{decimal(one['barrier_wait_ms']['p99'], 0)} ms",
                seconds(one["seconds"]),
            )
            for one in passes
        ],
    )


# -- the simulated world -----------------------------------------------------------------------------------


def _world(world: Mapping[str, Any]) -> list[str]:
    names = [name for name in ("drift", "still") if name in world]
    drawn = areas([(name, world[name]["rows"]) for name in names])
    tables = "".join(f"<h3>{name}</h3>{_table(world[name]['rows'])}" for name in names)
    first = world[names[0]]
    said = WINDOWS.format(
        every=f"Every {interval(first['every_s'])}",
        judged=count(first["judged_rows"]),
        models=count(first["models"]),
    )
    blocks = [f"<h3>{name}</h3>{_windows(world[name])}" for name in names]
    passes = [one for name in names for one in world[name]["passes"]]
    return [
        section("With and without drift", drawn + tables, WORLD),
        section("The last minutes only", beside(blocks), said),
        section("Passes in the simulated world", _passes(passes)),
    ]


def _windows(found: Mapping[str, Any]) -> str:
    ranked = [
        (_last(one), one["auc"]["mean"], one["auc"]["std"] or 0.0, "c2", one) for one in found["windows"]
    ]
    served = found["served"]
    ends = [mean + sign * std for _, mean, std, _, _ in ranked for sign in (-1, 1)] + [served["auc"]]
    low, high = min(ends) - 0.005, max(ends) + 0.005
    rows = [
        Range(name, mean - std, mean, mean + std, decimal(mean, 4), colour)
        for name, mean, std, colour, _ in ranked
    ]
    rows.append(Range("served", served["auc"], served["auc"], served["auc"], decimal(served["auc"], 4), "c3"))
    cells = [
        (
            _last(one),
            decimal(one["auc"]["mean"], 4),
            decimal(one["auc"]["std"], 4),
            count(one["auc"]["seeds"]),
            decimal(one["log_loss"], 4),
            count(one["trained_rows"]),
        )
        for one in found["windows"]
    ]
    cells.append(("served", decimal(served["auc"], 4), "", "", decimal(served["log_loss"], 4), ""))
    header = ("trained on", "AUC", "std", "seeds", "log loss", "rows")
    return ranges("AUC by window", rows, low, high, few_ticks(low, high)) + table(header, cells)


def _last(one: Mapping[str, Any]) -> str:
    return "all so far" if one["window_s"] is None else f"last {interval(one['window_s'])}"
