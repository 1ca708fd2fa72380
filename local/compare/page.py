"""The report on samples side by side, as local.report makes pages. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from html import escape
from typing import Any

from local.compare import page_text
from local.compare.leak import KINDS
from local.report.charts import Bar, Point, Range, bars, line, ranges
from local.report.numbers import count, decimal, percent, seconds, size
from local.report.page import beside, head, section, table, verdict
from local.report.page import page as whole
from local.report.plot import few_ticks

NAMES = {"lookup": "lookup", "offline": "offline", "stream": "stream", "label_first": "label-first"}
COLOURS = {"lookup": "c1", "offline": "c2", "stream": "c3", "label_first": "c4"}
KIND_COLOURS = {"batch": "k0", "streaming": "k1", "instant": "k2"}
HOW = {
    "lookup": "labels arrive, features are read then, at t6",
    "offline": "a batch join of snapshots and events in the lake",
    "stream": "snapshot, impression and action joined as streams",
    "label_first": "labels wait in the store, a slim snapshot updates them",
}


def page(figures: Mapping[str, Any]) -> str:
    """The whole file; ``figures`` as in out/samples.json."""
    parts = [
        _head(figures),
        verdict(figures["failed_checks"]),
        section("Side by side", _schemes(figures), page_text.SIDE_BY_SIDE),
        section("Leaks", _leaks(figures), page_text.LEAKS),
        section(
            "Leaking follows the speed of a feature",
            _speed(figures["speeds"]),
            page_text.speed(figures["speeds"]),
        ),
        section("What a model learns from each", _models(figures), page_text.models(figures["held_out"])),
        section("From impression to sample", _delays(figures), page_text.DELAYS),
        section("What it costs", _costs(figures), page_text.COSTS),
        section("The columns of lookup", _columns(figures["schemes"]["lookup"]), page_text.COLUMNS),
        section("Every difference from the oracle", _differences(figures), page_text.DIFFERENCES),
        _footer(figures),
    ]
    return whole("samples side by side", parts)


# -- parts -------------------------------------------------------------------------------------------------


def _head(figures: Mapping[str, Any]) -> str:
    traffic, schemes = figures["traffic"], figures["schemes"]
    leaking = schemes["lookup"]["leak_rate"]["streaming"]
    lost = schemes["stream"]["auc"] - schemes["lookup"]["auc"]
    return head(
        "Four ways to build samples, on the same traffic",
        f"{count(traffic['impressed_items'])} shown items, {count(traffic['clicks'])} clicks, "
        f"source <b>{escape(str(traffic['source']))}</b>. "
        f"Looked up when the label arrives, <b>{percent(leaking)}</b> "
        "of all streaming values are not those that were scored; a model trained on them is "
        f"<b>{decimal(abs(lost), 3)} AUC {'worse' if lost > 0 else 'better'}</b> "
        "where it serves.",
    )


def _schemes(figures: Mapping[str, Any]) -> str:
    header = ("scheme", "samples", "complete", "leak", "AUC", "delay p50", "state", "written", "CPU")
    rows = [
        (
            f"<b>{NAMES[name]}</b><small>{HOW[name]}</small>",
            count(one["samples"]),
            percent(one["completeness"]),
            percent(_all_kinds(one)),
            decimal(one["auc"], 4),
            seconds(one["delay_s"]["p50"]),
            size(one["state_bytes"]),
            size(one["written_bytes"]),
            _cpu(one["cpu_s"]),
        )
        for name, one in figures["schemes"].items()
    ]
    return table(header, rows)


def _all_kinds(scheme: Mapping[str, Any]) -> float:
    """Share of all values that leak: every column has as many rows."""
    rates = [column["rate"] for column in scheme["leak_columns"].values()]
    return sum(rates) / len(rates)


def _leaks(figures: Mapping[str, Any]) -> str:
    blocks = []
    for name, one in figures["schemes"].items():
        rows = [
            Bar(kind, one["leak_rate"][kind], percent(one["leak_rate"][kind]), KIND_COLOURS[kind])
            for kind in KINDS
        ]
        blocks.append(f"<h3>{NAMES[name]}</h3>{bars(f'leak rate of {NAMES[name]} by kind', rows, 1.0)}")
    return beside(blocks)


def _speed(speeds: Mapping[str, Any]) -> str:
    points = [Point("static", speeds["static"]["column"], speeds["static"]["leak_rate"],
                    percent(speeds["static"]["leak_rate"]))]  # fmt: skip
    points += [
        Point(one["name"], f"{one['updates_per_min']:.3g} / min", one["leak_rate"], percent(one["leak_rate"]))
        for one in speeds["classes"]
    ]
    return line("leak rate by speed of the feature", points, COLOURS["lookup"])


def _models(figures: Mapping[str, Any]) -> str:
    sets = [
        (NAMES[name], one["auc"], *one["auc_range"], COLOURS[name])
        for name, one in figures["schemes"].items()
    ]
    low = min(one[2] for one in sets) - 0.01
    high = max(one[3] for one in sets) + 0.01
    rows = [
        Range(name, least, mean, most, decimal(mean, 4), colour) for name, mean, least, most, colour in sets
    ]
    header = ("scheme", "AUC", "min to max", "log loss", "calibration", "trained on")
    sets_of = {NAMES[name]: one for name, one in figures["schemes"].items()}
    listed = [
        (
            name,
            decimal(one["auc"], 4),
            " to ".join(decimal(end, 4) for end in one["auc_range"]),
            decimal(one["log_loss"], 4),
            decimal(one["calibration"], 3),
            count(one["trained_samples"]),
        )
        for name, one in (sets_of | {"shuffled labels": figures["shuffled_labels"]}).items()
    ]
    return ranges("AUC on served truth", rows, low, high, few_ticks(low, high)) + table(header, listed)


def _delays(figures: Mapping[str, Any]) -> str:
    rows, listed = [], []
    for name, one in figures["schemes"].items():
        delay = one["delay_s"]
        rows.append(
            Range(NAMES[name], delay["p50"], delay["p50"], delay["p99"], seconds(delay["p50"]), COLOURS[name])
        )
        cells = [
            one[key][q] for key in ("delay_s", "delay_positive_s", "delay_negative_s") for q in ("p50", "p99")
        ]
        listed.append((NAMES[name], *map(seconds, cells)))
    values = [end for row in rows for end in (row.low, row.high)]
    low, high = max(0.05, min(values) / 2), max(values) * 1.5
    steps = [step * 10.0**power for power in range(-1, 5) for step in (1, 2, 5)]
    ticks = [(step, f"{step:g} s") for step in steps if low <= step <= high]
    ticks = ticks if len(ticks) <= 6 else ticks[::3]
    header = ("scheme", "p50", "p99", "positives p50", "p99", "negatives p50", "p99")
    return ranges("delay, p50 to p99", rows, low, high, ticks, log=True) + table(header, listed)


def _costs(figures: Mapping[str, Any]) -> str:
    blocks = []
    for title, key, show in (
        ("state, most at once", "state_bytes", size),
        ("written", "written_bytes", size),
        ("CPU", "cpu_s", _cpu),
    ):
        rows = [
            Bar(NAMES[name], one[key], show(one[key]), COLOURS[name])
            for name, one in figures["schemes"].items()
        ]
        blocks.append(f"<h3>{title}</h3>{bars(title, rows)}")
    parts = [
        (
            NAMES[name],
            _parts(one["written_parts"], size),
            _parts(one["cpu_parts"], _cpu),
        )
        for name, one in figures["schemes"].items()
    ]
    shared = _parts(figures["shared_bytes"], size)
    note = f"<p class='text'>Left out, since every scheme reads them: {shared}.</p>"
    return (
        "".join(blocks) + table(("scheme", "written, by part", "CPU, by process"), parts, prose=True) + note
    )


def _cpu(used_s: float) -> str:
    return f"{decimal(used_s, 1)} s"


def _parts(parts: Mapping[str, float], show: Callable[[float], str]) -> str:
    return ", ".join(f"{escape(name)} {show(value)}" for name, value in parts.items()) or "nothing"


def _columns(scheme: Mapping[str, Any]) -> str:
    found = sorted(scheme["leak_columns"].items(), key=lambda one: -one[1]["rate"])
    rows = [
        (
            f"<code>{name}</code>",
            f'<span class="dot {KIND_COLOURS[one["kind"]]}"></span>{one["kind"]}',
            percent(one["rate"]),
            f"{one['mean_abs']:.3g}",
        )
        for name, one in found
    ]
    return table(("column", "kind", "leak", "mean abs. difference"), rows)


def _differences(figures: Mapping[str, Any]) -> str:
    codes = list(next(iter(figures["schemes"].values()))["differences"])
    rows = [
        (code.replace("_", " "), *(count(one["differences"][code]) for one in figures["schemes"].values()))
        for code in codes
    ]
    reasons = [f"{NAMES[name]}: {_parts(one['reasons'], count)}" for name, one in figures["schemes"].items()]
    found = figures["reconciliation"]
    note = (
        "<p class='text'>Shown items that became a row with a reason instead of a sample: "
        f"{'; '.join(reasons)}. Reconciliation of the lake's stream samples with the batch join: "
        f"{count(found['unexplained'])} unexplained differences in {count(found['streamed_rows'])} rows.</p>"
    )
    return table(("code", *(NAMES[name] for name in figures["schemes"])), rows) + note


def _footer(figures: Mapping[str, Any]) -> str:
    machine = figures["machine"]
    said = ", ".join(f"{escape(str(name))} {escape(str(value))}" for name, value in machine.items())
    return f"<footer><p><code>{escape(figures['command'])}</code></p><p>{said}</p></footer>"
