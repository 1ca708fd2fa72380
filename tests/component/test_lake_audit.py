"""The audit of served features: states of the real fold, the real encoding, a lake of the real writer."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from lake_kit import ITEMS_SHOWN, START_US, STEP_US, Loop, Plant

from services.contract.feature_sets import FEATURE_SETS
from services.contract.feature_view import FeatureView
from services.contract.lake_files import scan
from services.contract.lake_store import LakeStore
from services.contract.view_events import Event
from services.contract.view_registry import FeatureSet
from services.lake import metrics
from services.lake.audit import COLUMNS, Audit, AuditRules, audit, sampled
from services.lake.auditor import Auditor, count
from services.lake.feature_commands import command
from services.lake.view_log import LakeEvents

SET = FEATURE_SETS["world"]
REQUESTS = 250
BROKEN = "item_activity"
Make = Callable[..., str]


def head_tile_off_by_one(view: FeatureView, event: Event) -> Event:
    """The online fold of one view puts each event one tile too early."""
    return replace(event, occurred_us=event.occurred_us - view.hop_us) if view.name == BROKEN else event


def clicks_of_another_item(view: FeatureView, event: Event) -> Event:
    """The online fold of one view keeps an item's clicks under another one."""
    if view.name != "item_popularity" or event.kind != "acted":
        return event
    return replace(event, fields=event.fields | {"item_id": event.fields["item_id"] + 1})


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    made: dict[object, str] = {}

    def lake(plant: Plant | None = None, lag_us: int = 250_000) -> str:
        if (plant, lag_us) not in made:
            loop = Loop(SET, plant=plant, lag_us=lag_us).run(REQUESTS)
            made[plant, lag_us] = loop.write(tmp_path_factory.mktemp("audit") / "lake")
        return made[plant, lag_us]

    return lake


def audited(root: str, feature_set: FeatureSet = SET, **rules) -> Audit:
    wanted = AuditRules(**rules)
    log = LakeEvents(LakeStore(root), 10**6).read()
    return audit(feature_set, log, sampled(scan(root, "snapshots", None, COLUMNS), wanted.share), wanted)


@pytest.mark.parametrize("lag_us", [0, 250_000, 5_000_000])
def test_a_sound_loop_has_no_mismatch_however_late_its_fold_is_and_the_lag_is_measured(make, lag_us) -> None:
    said = audited(make(lag_us=lag_us), tolerated=0.0)
    assert (said.requests, said.other_schema, said.unreadable) == (REQUESTS, 0, 0)
    assert said.skewed() == []
    for name, one in said.columns.items():
        rows = REQUESTS * (1 if name in {c.name for c in SET.request_columns} else ITEMS_SHOWN)
        assert one.as_served.rows == one.ideal.rows == rows
        assert (one.behind_us <= lag_us).all()
    assert sum(one.nondefault for one in said.columns.values()) > 0.5 * sum(
        one.as_served.rows for one in said.columns.values()
    )
    shown = said.columns["item_activity_shown"]
    if lag_us:
        assert len(shown.behind_us) and shown.behind_us.max() > lag_us / 2
    # Late events and lag are what a model sees otherwise than it should have.
    assert shown.ideal.missing + shown.ideal.mismatches > 0


def test_a_head_tile_off_by_one_is_found_within_a_minute_and_nowhere_else(make) -> None:
    began = time.monotonic()
    said = audited(make(head_tile_off_by_one), share=0.5)
    assert time.monotonic() - began < 60
    assert 0.3 * REQUESTS < said.requests < 0.7 * REQUESTS
    windows = {f"{BROKEN}_{name}" for name in ("ctr_1m", "shown_1m", "ctr_10m", "shown_10m")}
    assert set(said.skewed()) == windows
    one = said.columns[f"{BROKEN}_shown_1m"].as_served
    assert one.mismatches > 0 and one.missing > 0 and one.extra == 0


def test_a_state_of_another_entity_is_missing_here_and_extra_there(make) -> None:
    said = audited(make(clicks_of_another_item))
    assert said.skewed() == ["item_popularity_clicks_decayed"]
    one = said.columns["item_popularity_clicks_decayed"].as_served
    assert one.mismatches > 0 and one.missing > 0 and one.extra > 0


def test_snapshots_of_another_schema_are_counted_apart(make) -> None:
    other = FeatureSet(view for view in SET.views if view.name != "user_history")
    said = audited(make(), other)
    assert (said.requests, said.other_schema, said.unreadable) == (0, REQUESTS, 0)
    assert said.skewed() == []


def test_an_auditor_takes_each_settled_snapshot_once(make) -> None:
    root = make()
    store = LakeStore(root)
    auditor = Auditor(store, LakeEvents(store, 10**6), SET, AuditRules(), 10.0)
    moments = (START_US, START_US + REQUESTS * STEP_US // 3, START_US + 2 * REQUESTS * STEP_US)
    counts = [auditor.audit(at_us / 1e6 + 10.0).requests for at_us in moments]
    assert counts[0] == 0 and counts[1] == pytest.approx(REQUESTS / 3, abs=8)
    assert sum(counts) == REQUESTS
    assert auditor.audit(time.time() + 1e9).requests == 0
    fresh = Auditor(store, LakeEvents(store, 10**6), SET, AuditRules(), 10.0)
    fresh.skip_to_end()
    assert fresh.audit(time.time() + 1e9).requests == 0


def test_metrics_count_every_value_once(make) -> None:
    said = audited(make(head_tile_off_by_one))
    name = f"{BROKEN}_shown_1m"

    def now() -> dict[str, float]:
        outcomes = ("equal", "mismatch", "missing", "extra")
        return {o: metrics.AUDIT_ROWS.labels(name, "as_served", o)._value.get() for o in outcomes}

    before = now()
    count(said)
    grown = {outcome: value - before[outcome] for outcome, value in now().items()}
    one = said.columns[name].as_served
    assert grown == {
        "equal": one.rows - one.wrong,
        "mismatch": one.mismatches,
        "missing": one.missing,
        "extra": one.extra,
    }
    assert 0 < metrics.AUDIT_NONDEFAULT.labels(name)._value.get() < 1


def test_the_command_reports_and_fails_on_skew(make, tmp_path: Path, capsys) -> None:
    for root, code in ((make(), 0), (make(head_tile_off_by_one), 1)):
        out = tmp_path / "audit.json"
        assert (
            command("audit-features", ["--lake_uri", root, "--audit_share", "1", "--out", str(out)]) == code
        )
        said = json.loads(out.read_text())
        assert said["requests"] == REQUESTS
        assert bool(said["skewed"]) == bool(code)
        assert said["features"][f"{BROKEN}_shown_1m"]["as_served"]["rows"] == REQUESTS * ITEMS_SHOWN
        table = capsys.readouterr().out
        assert f"{BROKEN}_shown_1m" in table and f"{REQUESTS} requests audited" in table


def test_a_sample_by_hash_is_the_same_wherever_it_is_drawn(make) -> None:
    snapshots = scan(make(), "snapshots", None, COLUMNS)
    some = set(sampled(snapshots, 0.3)["request_id"].to_pylist())
    assert 0.15 * REQUESTS < len(some) < 0.45 * REQUESTS
    shuffled = snapshots.take(np.random.default_rng(1).permutation(snapshots.num_rows))
    assert set(sampled(shuffled, 0.3)["request_id"].to_pylist()) == some
    assert some < set(sampled(snapshots, 0.6)["request_id"].to_pylist())


class SideBySide(Loop):
    """A loop whose fold is ahead in some origin partitions and behind in others."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._origins: dict[str, list[tuple[int, list[Event]]]] = {}

    def _fold(self, now_us: int) -> None:
        while self._folded < len(self.online):
            at_us, events = self.online[self._folded]
            if events:
                self._origins.setdefault(events[0].origin, []).append((at_us, events))
            self._folded += 1
        taken: list[Event] = []
        for number, origin in enumerate(sorted(self._origins)):
            waiting = self._origins[origin]
            # Nothing at all, or seconds: far more than what lies between two events of an item.
            lag_us = (number % 3) * 3_000_000
            while waiting and waiting[0][0] + lag_us < now_us:
                taken += waiting.pop(0)[1]
        for _, fold in self._folds:
            self.states.update(fold.round(taken).states)


def test_partitions_that_are_ahead_of_one_another_are_lag_and_no_mismatch(tmp_path: Path) -> None:
    root = SideBySide(SET, users=4, items=9).run(REQUESTS).write(tmp_path / "lake")
    said = audited(root, tolerated=0.0)
    assert said.requests == REQUESTS and said.skewed() == []
    shown = said.columns["item_activity_shown"]
    assert shown.ideal.wrong > 0 and len(shown.behind_us) and shown.behind_us.max() <= 15_000_000


def test_what_no_beginnings_of_the_partitions_explain_stays_a_mismatch(tmp_path: Path) -> None:
    loop = SideBySide(SET, users=4, items=9)
    # A fold that loses one event in five of one view, whatever its partition.
    keeps = loop._folds[[view.name for view in SET.views].index(BROKEN)][1]
    whole, count = keeps.round, iter(range(10**9))
    keeps.round = lambda events: whole([event for event in events if next(count) % 5])  # type: ignore[method-assign]
    said = audited(loop.run(60).write(tmp_path / "lake"))
    assert {name.rpartition("_")[0] for name in said.skewed()} >= {BROKEN}
    assert (
        said.columns[f"{BROKEN}_shown"].as_served.wrong > 0.3 * said.columns[f"{BROKEN}_shown"].as_served.rows
    )
    assert all(name.startswith(BROKEN) for name in said.skewed())
