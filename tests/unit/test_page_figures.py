"""The page's pure parts: what metrics say, what changed between two readings, what may be shown."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from services.contract.errors import InvalidInput, MalformedRecord
from services.page import figures
from services.page.change import Change, quantile
from services.page.history import History
from services.page.looks import host_port
from services.page.sources import LIVE, MISSING, PARTIAL, UNSET, Heard, Source
from services.runtime.exposition import Reading, parse


class Pages:
    """What one process would say of itself: real metrics in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

    def counter(self, name: str, *labels: str) -> Counter:
        return Counter(name, "x", labels, registry=self.registry)

    def gauge(self, name: str, *labels: str) -> Gauge:
        return Gauge(name, "x", labels, registry=self.registry)

    def histogram(self, name: str, *labels: str, buckets=(0.1, 0.2, 0.5, 1.0)) -> Histogram:
        return Histogram(name, "x", labels, registry=self.registry, buckets=buckets)

    def read(self) -> Reading:
        return parse(generate_latest(self.registry).decode())


def test_a_reading_sums_what_has_the_labels_that_are_asked_for():
    page = Pages()
    items = page.counter("recloop_joiner_items", "partition", "outcome")
    for partition, outcome, count in (("0", "positive", 3), ("1", "positive", 4), ("1", "late", 2)):
        items.labels(partition, outcome).inc(count)
    read = page.read()
    assert read.total("recloop_joiner_items_total") == 9
    assert read.total("recloop_joiner_items_total", outcome="positive") == 7
    assert read.by("recloop_joiner_items_total", "outcome") == {"positive": 7, "late": 2}
    assert read.total("recloop_other_total") is None


@pytest.mark.parametrize("text", ["{", 'a{b="c"} d', "name words\n"])
def test_what_is_no_metrics_page_is_refused(text):
    with pytest.raises(MalformedRecord, match="Prometheus"):
        parse(text)


def test_a_rate_is_of_the_replicas_that_told_before_and_a_restart_counts_from_zero():
    one, two = Pages(), Pages()
    of_one, of_two = one.counter("served"), two.counter("served")
    of_one.inc(100)
    then = {"a": one.read(), "b": two.read()}
    of_one.inc(20)
    of_two.inc(10)
    assert Change({"a": one.read(), "b": two.read()}, then, 10).rate("served_total") == 3
    # c was not there before: what it counted may be hours old.
    assert Change({"a": one.read(), "c": one.read()}, then, 10).rate("served_total") == 2
    again = Pages()
    again.counter("served").inc(5)
    assert Change({"a": again.read()}, then, 10).rate("served_total") == 0.5
    assert Change({}, then, 10).rate("served_total") is None


def test_a_quantile_is_of_what_came_meanwhile():
    page = Pages()
    took = page.histogram("took", "who")
    for _ in range(1000):
        took.labels("x").observe(0.05)
    then = {"a": page.read()}
    for _ in range(100):
        took.labels("x").observe(0.3)
    change = Change({"a": page.read()}, then, 10)
    assert change.quantile("took", 0.5, who="x") == pytest.approx(0.35)
    assert change.quantile("took", 0.5, who="y") is None
    assert Change(then, then, 10).quantile("took", 0.5) is None


@given(st.lists(st.floats(0.001, 3.0), min_size=1, max_size=60), st.floats(0.01, 1.0))
def test_a_quantile_lies_in_the_bucket_of_the_value_that_it_stands_for(values, q):
    bounds = (0.1, 0.5, 1.0, math.inf)
    counted = {bound: float(sum(value <= bound for value in values)) for bound in bounds}
    found = quantile(counted, q)
    exact = sorted(values)[max(0, math.ceil(q * len(values) - 1e-9) - 1)]
    upper = next(bound for bound in bounds if exact <= bound)
    lower = max((bound for bound in (0.0, *bounds) if bound < exact), default=0.0)
    assert found is not None
    assert lower <= found <= upper or (upper == math.inf and found == 1.0)


def serving() -> tuple[Pages, dict]:
    """Ranking with two arms, one of which nobody serves any more."""
    page = Pages()
    gauges = {name: page.gauge(f"recloop_ranking_{name}", "arm") for name in ("generation", "sequence")}
    gauges["staleness_seconds"] = page.gauge("recloop_ranking_staleness_seconds", "arm")
    for arm, version, age in (("online", (2, 41), 0.7), ("candidate", (1, 9), 0.0)):
        gauges["generation"].labels(arm).set(version[0])
        gauges["sequence"].labels(arm).set(version[1])
        gauges["staleness_seconds"].labels(arm).set(age)
    return page, gauges


def test_models_are_told_by_replica_and_an_arm_that_is_gone_is_not():
    page, _ = serving()
    trainer = Pages()
    trainer.gauge("recloop_trainer_sequence", "lineage").labels("2/online").set(43)
    readings = {"ranking": {"r1:1": page.read(), "r2:1": page.read()}, "trainer": {"t:1": trainer.read()}}
    rows = figures.models(readings, now_ms=0)
    assert [(row["service"], row["replica"], row["what"], row["sequence"]) for row in rows] == [
        ("trainer", "t:1", "2/online", 43),
        ("ranking", "r1:1", "online", 41),
        ("ranking", "r2:1", "online", 41),
    ]


def test_the_age_of_a_pinned_arm_is_no_line():
    page, gauges = serving()
    gauges["staleness_seconds"].labels("frozen").set(900)
    found = figures.lines({}, {"ranking": {"r:1": page.read()}}, {}, followed={"online"})
    assert {name: value for name, value in found.items() if name.startswith("age.")} == {"age.online": 0.7}


def test_figures_that_an_arm_has_too_little_for_are_none():
    page = Pages()
    told = page.gauge("recloop_release_served", "arm", "figure")
    told.labels("online", "ctr").set(0.1)
    told.labels("online", "auc").set(math.nan)
    assert figures.served({"r:1": page.read()}) == {"online": {"ctr": 0.1, "auc": None}}


def test_freshness_has_a_sum_only_when_every_stage_is_told():
    changes = {}
    for source, name, labels in figures.STAGES.values():
        page = Pages()
        made = page.histogram(name, *labels)
        child = made.labels(*labels.values()) if labels else made
        before = page.read()
        child.observe(0.15)
        now = page.read()
        # Both of the trainer's stages are read from one page.
        known = changes.get(source)
        samples = {**(known.now["x"].samples if known else {}), **now.samples}
        earlier = {**(known.then["x"].samples if known else {}), **before.samples}
        changes[source] = Change({"x": Reading(samples)}, {"x": Reading(earlier)}, 10)
    found = figures.lines(changes, {}, {}, ())
    assert found["fresh.all"] == pytest.approx(5 * 0.15)
    del changes["collector"]
    found = figures.lines(changes, {}, {}, ())
    assert "fresh.all" not in found and "fresh.collect" not in found and found["fresh.join"] is not None


def test_every_name_that_is_asked_for_is_one_that_a_process_tells():
    """A metric that is renamed would leave a line empty for good."""
    from pathlib import Path

    root = Path(__file__).parents[2]
    texts = "".join(
        path.read_text() for folder in ("services", "trainer") for path in (root / folder).rglob("*.py")
    )
    for names in figures.NAMES.values():
        for name in names:
            bare = name.removeprefix("recloop_").removesuffix("_total").removesuffix("_bucket")
            assert f'"{bare}"' in texts, name


def test_a_source_says_since_when_and_why_it_is_missing():
    source = Source("ranking")
    source.note(Heard(), 5)
    assert source.said() == {"name": "ranking", "state": UNSET, "heard_ms": 0, "error": ""}
    source.note(Heard({"a:1": 1}), 10)
    assert (source.state, source.heard_ms) == (LIVE, 10)
    source.note(Heard({"a:1": 1}, {"b:1": "no answer"}), 20)
    assert (source.state, source.heard_ms, source.error) == (PARTIAL, 20, "b:1: no answer")
    source.note(Heard(errors={"a:1": "gone", "b:1": "gone"}), 30)
    assert (source.state, source.heard_ms, source.error) == (MISSING, 20, "a:1: gone; b:1: gone")


def test_history_keeps_the_newest_looks_and_counts_lines_beyond_the_limit():
    history = History(points=3, lines=2)
    for n in range(5):
        history.add(n, {"a": n / 3, "b": None, "c": math.nan, "d": 1.0}, ("bots",))
    assert [point.at_ms for point in history.since(0)] == [2, 3, 4]
    assert [point.at_ms for point in history.since(4)] == [4]
    assert history.since(5) == [] and history.end == 5 and history.left_out == 0
    assert history.since(4)[0].said() == {"t": 4, "v": {"a": 1.3333, "d": 1.0}, "on": ["bots"]}
    history.add(9, {"a": 1.0, "b": 2.0, "c": 3.0}, ())
    assert history.left_out == 1 and dict(history.since(5)[0].values) == {"a": 1.0, "b": 2.0}


@pytest.mark.parametrize("target", ["", "nobody", "host:", ":7", "host:x", "host:7x"])
def test_a_target_without_host_or_port_is_named(target):
    with pytest.raises(InvalidInput, match="host:port"):
        host_port(target)


def test_targets_are_read():
    assert host_port("ranking.recloop.svc:7254") == ("ranking.recloop.svc", 7254)
    assert host_port("[::1]:7254") == ("::1", 7254)
