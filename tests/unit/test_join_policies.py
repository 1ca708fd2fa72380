"""Label policies, early negatives with corrections, and sampling, case by case.

Window 10, bound 3, times are microseconds. The request is scored at 100 and shown at 104: its window ends
at 114, an early negative after 5 is due at 109.
"""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest
from oracles.join_logs import (
    IMP,
    A,
    Logs,
    S,
    action,
    barrier,
    canonical,
    crash_and_restore,
    feed_all,
    heartbeat,
    impression,
    snapshot,
)

from rec.events.v1 import events_pb2 as ev
from services.contract.errors import InvalidInput
from services.contract.ids import hash_key
from services.contract.join import JoinTask
from services.contract.join_config import MAX_PRIORITY, JoinConfig, LabelRule
from services.contract.join_events import SOURCES, Source
from services.contract.join_output import Output, Reason, Rejected, Sample

CLICK, LIKE, PURCHASE = ev.ACTION_KIND_CLICK, ev.ACTION_KIND_LIKE, ev.ACTION_KIND_PURCHASE
FINAL = JoinConfig(window_us=10, bound_us=3)
EARLY = replace(FINAL, emission="correcting", early_negative_us=5)
GRADED = (LabelRule(CLICK, 0.25), LabelRule(LIKE, 0.5), LabelRule(PURCHASE, 0.75, priority=1))
ONE_LEVEL = (LabelRule(CLICK, 0.25), LabelRule(LIKE, 0.5), LabelRule(PURCHASE, 0.75))
SHOWN: Logs = {S: [snapshot("r", 100)], IMP: [impression("r", 104)], A: []}
END = {source: [heartbeat(1000)] for source in SOURCES}
Row = tuple[int, float, int, int | None]


def rows(outputs: list[Output]) -> list[Row]:
    """(item, label, version, acted at) in the order said."""
    found: list[Row] = []
    for output in outputs:
        if isinstance(output, Sample):
            *_, acted, cut = canonical(output)
            found += [(row[0], row[1], row[5], acted) for row in cut]
    return found


def of(item: int, outputs: list[Output]) -> list[tuple[float, int, int | None]]:
    """(label, version, acted at) of one item, in the order said."""
    return [row[1:] for row in rows(outputs) if row[0] == item]


def reasons(outputs: list[Output]) -> list[tuple[Reason, Source, int]]:
    return [(o.reason, o.source, o.items) for o in outputs if isinstance(o, Rejected)]


def acts(*actions: tuple[int, int]) -> list[bytes]:
    """Actions (kind, time) on item 1."""
    return [action("r", at, 1, f"e{k}", kind) for k, (kind, at) in enumerate(actions)]


def closed(config: JoinConfig, actions: list[bytes], order: tuple[Source, ...] = ()) -> list[Output]:
    logs = {**SHOWN, A: actions}
    return feed_all(JoinTask(config), {s: [*logs[s], *END[s]] for s in SOURCES}, order)


def shown(
    config: JoinConfig, actions: list[bytes], *, watermark_us: int
) -> tuple[JoinTask, Logs, list[Output]]:
    """A task whose watermark stands there (that of the actions holds it), its logs and what it has said."""
    logs = {**SHOWN, A: actions}
    logs = {s: [*logs[s], heartbeat(1000 if s is not A else watermark_us + 3)] for s in SOURCES}
    task = JoinTask(config)
    return task, logs, feed_all(task, logs, [])


# -- labels ----------------------------------------------------------------------------------------------

TWICE = ((CLICK, 105), (CLICK, 106))
UP = ((CLICK, 105), (LIKE, 106))
DOWN = ((LIKE, 105), (CLICK, 106))
BOUGHT_LAST = ((LIKE, 105), (PURCHASE, 107))
BOUGHT_FIRST = ((PURCHASE, 105), (LIKE, 107))
POLICIES = [
    ("any", ONE_LEVEL, UP, (0.25, 105), 1),
    ("any", GRADED, UP, (0.25, 105), 1),
    ("any", GRADED, BOUGHT_LAST, (0.75, 107), 0),
    ("any", GRADED, BOUGHT_FIRST, (0.75, 105), 1),
    ("max", ONE_LEVEL, UP, (0.5, 106), 0),
    ("max", ONE_LEVEL, DOWN, (0.5, 105), 1),
    ("max", ONE_LEVEL, TWICE, (0.25, 105), 1),
    ("max", (LabelRule(CLICK, 0.25, priority=2), LabelRule(LIKE, 0.5)), DOWN, (0.25, 106), 0),
    ("max", (LabelRule(CLICK, 0.5, priority=2), LabelRule(LIKE, 0.5)), DOWN, (0.5, 105), 1),
    ("sum", ONE_LEVEL, TWICE, (0.5, 106), 0),
    ("sum", ONE_LEVEL, (*UP, (PURCHASE, 107), (CLICK, 108)), (1.0, 107), 1),
    ("sum", GRADED, (*UP, (PURCHASE, 107), (CLICK, 108)), (0.75, 106), 2),
    ("sum", GRADED, ((CLICK, 106), (PURCHASE, 107), (CLICK, 108)), (0.75, 107), 1),
    ("sum", GRADED, ((PURCHASE, 105), (PURCHASE, 106)), (1.0, 106), 0),
]


@pytest.mark.parametrize(("reducer", "labels", "actions", "label", "unused"), POLICIES)
def test_the_highest_priority_is_reduced_and_what_changes_nothing_is_already_labelled(
    reducer: str, labels: tuple[LabelRule, ...], actions: tuple, label: tuple[float, int], unused: int
) -> None:
    config = replace(FINAL, reducer=reducer, labels=labels)
    out = closed(config, acts(*actions))
    assert of(1, out) == [(label[0], 0, label[1])]
    assert reasons(out) == [(Reason.ALREADY_LABELLED, A, 0)] * unused
    assert sorted(rows(out))[1:] == [(2, 0.0, 0, None), (3, 0.0, 0, None)]


def test_an_override_to_the_same_label_still_shuts_out_the_lower_priority() -> None:
    labels = (LabelRule(CLICK, 0.5), LabelRule(LIKE, 1.0), LabelRule(PURCHASE, 0.5, priority=1))
    out = closed(
        replace(FINAL, reducer="max", labels=labels), acts((CLICK, 105), (PURCHASE, 106), (LIKE, 107))
    )
    assert of(1, out) == [(0.5, 0, 105)]
    assert reasons(out) == [(Reason.ALREADY_LABELLED, A, 0)] * 2


@pytest.mark.parametrize(
    ("reducer", "labels", "at_once"),
    [("any", ONE_LEVEL, True), ("any", GRADED, False), ("max", ONE_LEVEL, False), ("sum", ONE_LEVEL, False)],
)
def test_a_label_that_may_still_change_is_final_only_at_the_windows_end(
    reducer: str, labels: tuple[LabelRule, ...], at_once: bool
) -> None:
    config = replace(FINAL, reducer=reducer, labels=labels)
    task, _, before = shown(config, acts((CLICK, 105)), watermark_us=114)
    assert rows(before) == ([(1, 0.25, 0, 105)] if at_once else [])
    after = task.feed(A, 2, heartbeat(118))
    assert of(1, before + after) == [(0.25, 0, 105)]
    assert len(rows(before + after)) == 3


@pytest.mark.parametrize(("bought_at", "label"), [(110, 0.75), (111, 0.25)])
def test_a_kind_counts_within_its_own_window_under_every_policy(bought_at: int, label: float) -> None:
    labels = (LabelRule(CLICK, 0.25), LabelRule(PURCHASE, 0.75, window_us=6, priority=1))
    out = closed(replace(FINAL, labels=labels), acts((CLICK, 105), (PURCHASE, bought_at)))
    assert of(1, out)[0][0] == label
    assert reasons(out) == ([] if label == 0.75 else [(Reason.AFTER_WINDOW, A, 0)])


# -- early negatives and corrections ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("clicked_at", "said"),
    [
        (101, [(1.0, 0, 101)]),
        (109, [(1.0, 0, 109)]),
        (110, [(0.0, 0, None), (1.0, 1, 110)]),
        (114, [(0.0, 0, None), (1.0, 1, 114)]),
        (115, [(0.0, 0, None)]),
    ],
)
@pytest.mark.parametrize("order", [(S, IMP, A), (A, IMP, S), (IMP, A, S), (S, S, IMP, IMP, A)])
def test_the_stamp_of_an_action_decides_whether_it_corrects_whenever_it_comes(
    clicked_at: int, said: list, order: tuple[Source, ...]
) -> None:
    out = closed(EARLY, acts((CLICK, clicked_at)), order)
    assert of(1, out) == said
    assert of(2, out) == of(3, out) == [(0.0, 0, None)]


def test_an_early_negative_is_said_when_the_watermark_is_above_its_time_and_not_at_it() -> None:
    task, _, said = shown(EARLY, [], watermark_us=109)
    assert rows(said) == []
    assert rows(task.feed(A, 1, heartbeat(113))) == [(item, 0.0, 0, None) for item in (1, 2, 3)]
    assert task.open_impressions == 1
    (correction,) = task.feed(A, 2, action("r", 114, item=2))
    assert isinstance(correction, Sample)
    assert (correction.positive, correction.correction) == (True, True)
    assert rows([correction]) == [(2, 1.0, 1, 114)]
    assert task.feed(A, 3, heartbeat(1000)) == []
    assert task.stats.items == {"negative": 3, "correction": 1}


def test_a_click_behind_the_early_time_lets_an_earlier_one_that_comes_after_it_decide() -> None:
    later, earlier = acts((CLICK, 111), (CLICK, 109))
    out = closed(EARLY, [later, earlier])
    assert of(1, out) == [(1.0, 0, 109)]
    assert reasons(out) == [(Reason.ALREADY_LABELLED, A, 0)]


@pytest.mark.parametrize(
    ("shown_as", "later"), [(EARLY, True), (replace(EARLY, early_negative_us=10), False)]
)
def test_each_change_of_a_label_is_one_more_version_and_nothing_else_is(
    shown_as: JoinConfig, later: bool
) -> None:
    config = replace(shown_as, reducer="max", labels=GRADED)
    out = closed(config, acts((CLICK, 110), (CLICK, 111), (LIKE, 112), (PURCHASE, 113), (LIKE, 114)))
    assert of(1, out) == [
        *([(0.0, 0, None)] if later else []),
        (0.25, 0 + later, 110),
        (0.5, 1 + later, 112),
        (0.75, 2 + later, 113),
    ]
    assert reasons(out) == [(Reason.ALREADY_LABELLED, A, 0)] * 2


def test_without_delay_the_negatives_wait_for_the_snapshot_and_for_the_watermark() -> None:
    config = replace(EARLY, early_negative_us=0)
    task = JoinTask(config)
    for source in SOURCES:
        assert task.feed(source, 0, impression("r", 104) if source is IMP else heartbeat(104)) == []
    assert task.feed(A, 1, action("r", 105, item=2)) == []
    for source in (IMP, A):
        assert task.feed(source, 2, heartbeat(108)) == []
    # The watermark is that of the snapshots, 101: below the impression.
    assert rows(task.feed(S, 1, snapshot("r", 107))) == []
    assert rows(task.feed(S, 2, heartbeat(108))) == [
        *((item, 0.0, 0, None) for item in (1, 2, 3)),
        (2, 1.0, 1, 105),
    ]


@pytest.mark.parametrize("order", [(IMP, IMP, A, A, A), (S, S, S), (S, IMP, A, A, IMP, A), (A, S, IMP)])
def test_a_snapshot_behind_the_early_time_gives_the_same(order: tuple[Source, ...]) -> None:
    logs = {
        S: [heartbeat(108), snapshot("r", 106)],
        IMP: [impression("r", 104), heartbeat(108)],
        A: [action("r", 106), action("r", 104, 2), heartbeat(108)],
    }
    out = feed_all(JoinTask(replace(EARLY, early_negative_us=0)), logs, order)
    assert of(1, out) == [(0.0, 0, None), (1.0, 1, 106)]
    assert of(2, out) == [(1.0, 0, 104)]
    assert of(3, out) == [(0.0, 0, None)]


@pytest.mark.parametrize("watermark_us", [109, 110, 114])
def test_a_restart_says_neither_an_early_negative_nor_a_correction_again(watermark_us: int) -> None:
    task, logs, said = shown(EARLY, acts((CLICK, 111)), watermark_us=watermark_us)
    restored = crash_and_restore(task, EARLY, logs, [A, A])
    more = restored.feed(A, 2, action("r", 114, item=2))
    more += restored.feed(A, 3, heartbeat(1000))
    assert of(1, said + more) == [(0.0, 0, None), (1.0, 1, 111)]
    assert of(2, said + more) == [(0.0, 0, None), (1.0, 1, 114)]
    assert of(3, said + more) == [(0.0, 0, None)]


def test_a_restart_keeps_the_label_that_waits_for_the_windows_end() -> None:
    config = replace(FINAL, reducer="sum", labels=ONE_LEVEL)
    task, logs, said = shown(config, acts((CLICK, 105), (CLICK, 106)), watermark_us=112)
    restored = crash_and_restore(task, config, logs, [])
    more = restored.feed(A, 3, action("r", 114, 1, "last", LIKE)) + restored.feed(A, 4, heartbeat(1000))
    assert of(1, said + more) == [(1.0, 0, 114)]


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (EARLY, [(0.0, 0, None), (1.0, 1, 110)]),
        (replace(FINAL, reducer="max"), [(1.0, 0, 110)]),
    ],
)
def test_a_barrier_says_at_once_what_was_to_wait(config: JoinConfig, said: list) -> None:
    logs = {s: [*SHOWN[s], barrier("b", 111)] for s in SOURCES}
    logs[A] = [action("r", 110), barrier("b", 111), action("r", 111, item=2)]
    out = feed_all(JoinTask(config), logs, [])
    assert of(1, out) == said
    assert of(2, out) == of(3, out) == [(0.0, 0, None)]
    assert reasons(out) == [(Reason.AFTER_WINDOW, A, 0)]


def test_a_full_state_gives_up_what_was_never_said_and_the_actions_that_waited() -> None:
    for config in (EARLY, replace(FINAL, reducer="max")):
        logs = {**SHOWN, A: [action("r", 106, item=2), action("r", 112)]}
        task = JoinTask(replace(config, max_held_events=3))
        out = feed_all(task, logs, [])
        once = config is EARLY
        assert rows(out) == ([(2, 1.0, 0, 106)] if once else [])
        assert reasons(out) == [
            *[(Reason.EVICTED, A, 0)] * (1 if once else 2),
            (Reason.EVICTED, IMP, 2 if once else 3),
        ]


def test_a_full_state_does_not_give_up_what_was_said() -> None:
    config = replace(EARLY, max_held_events=2)
    task, _, said = shown(config, [], watermark_us=110)
    assert len(rows(said)) == 3
    out = task.feed(A, 1, action("x", 111))
    assert task.stats.evicted_events > 0
    assert rows(out) == reasons(out) == []


# -- sampling --------------------------------------------------------------------------------------------

# The hashes of r:1, r:2 and r:3 lie here in [0, 1).
PLACES = [hash_key(f"r:{item}") / 2**64 for item in (1, 2, 3)]
LOWEST, MIDDLE, HIGHEST = sorted(PLACES)
E = 1e-9


def test_the_place_of_a_sample_id_is_the_same_everywhere() -> None:
    assert [round(place, 4) for place in PLACES] == [0.9287, 0.9902, 0.9557]


@pytest.mark.parametrize(
    ("rate", "kept"), [(1.0, 3), (HIGHEST + E, 3), (HIGHEST - E, 2), (MIDDLE - E, 1), (LOWEST - E, 0), (E, 0)]
)
@pytest.mark.parametrize("config", [FINAL, EARLY])
def test_a_negative_is_kept_iff_its_place_is_below_the_rate(
    config: JoinConfig, rate: float, kept: int
) -> None:
    out = closed(replace(config, negative_rate=rate), [])
    wanted = sorted((1, 2, 3), key=lambda item: PLACES[item - 1])
    samples = [o for o in out if isinstance(o, Sample)]
    assert [row[0] for row in rows(out)] == sorted(wanted[:kept])
    assert [o.message.sample_rate for o in samples] == pytest.approx([rate] * bool(kept))
    left_out = [o for o in out if isinstance(o, Rejected)]
    assert len(left_out) == (kept < 3)
    for row in left_out:
        assert (row.reason, row.source, row.items, row.raw) == (Reason.SAMPLED_OUT, IMP, 3 - kept, b"")
        assert (row.request_id, row.offset) == ("r", 0)
        assert row.item_ids == struct.pack(f"<{3 - kept}Q", *sorted(wanted[kept:]))


def test_positives_are_never_sampled_and_say_so() -> None:
    for config in (FINAL, EARLY, replace(FINAL, reducer="sum")):
        out = closed(replace(config, negative_rate=1e-9), acts((CLICK, 105)))
        (positive,) = [o for o in out if isinstance(o, Sample)]
        assert rows(out) == [(1, 1.0, 0, 105)]
        assert positive.message.sample_rate == 1.0
        assert reasons(out) == [(Reason.SAMPLED_OUT, IMP, 2)]


def test_a_dropped_early_negative_that_is_clicked_later_is_a_first_positive() -> None:
    config = replace(EARLY, negative_rate=1e-9)
    task, _, before = shown(config, acts((CLICK, 111)), watermark_us=110)
    assert rows(before) == [(1, 1.0, 0, 111)]
    assert reasons(before) == [], "what is left out is known only at the window's end"
    assert [o.correction for o in before if isinstance(o, Sample)] == [False]
    assert reasons(task.feed(A, 2, heartbeat(1000))) == [(Reason.SAMPLED_OUT, IMP, 2)]
    assert task.stats.items == {"positive": 1, "sampled_out": 2}


def test_the_correction_of_a_kept_negative_weighs_one() -> None:
    out = closed(replace(EARLY, negative_rate=0.9999), acts((CLICK, 111)))
    rates = [o.message.sample_rate for o in out if isinstance(o, Sample)]
    assert rates == pytest.approx([0.9999, 1.0])


# -- the rules as a whole --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "bad"),
    [
        ("reducer", {"reducer": "mean"}),
        ("emission", {"emission": "soon"}),
        ("early_negative_us", {"early_negative_us": 1}),
        ("early_negative_us", {"emission": "correcting", "early_negative_us": 11}),
        ("early_negative_us", {"emission": "correcting", "early_negative_us": -1}),
        ("negative_rate", {"negative_rate": 0.0}),
        ("negative_rate", {"negative_rate": 1.1}),
        ("negative_rate", {"negative_rate": float("nan")}),
        ("labels.priority", {"labels": (LabelRule(CLICK, priority=-1),)}),
        ("labels.priority", {"labels": (LabelRule(CLICK, priority=MAX_PRIORITY + 1),)}),
    ],
)
def test_contradictory_policies_die_in_the_constructor(field: str, bad: dict) -> None:
    with pytest.raises(InvalidInput) as caught:
        replace(FINAL, **bad)
    assert [violation.field for violation in caught.value.violations] == [field]


def test_the_fingerprint_of_the_defaults_is_that_of_the_first_states() -> None:
    assert FINAL.fingerprint() == "w10b3s10l1:1.0:10"
    labels = (LabelRule(CLICK), LabelRule(LIKE, 0.5, window_us=4))
    assert replace(FINAL, labels=labels).fingerprint() == "w10b3s10l1:1.0:10,2:0.5:4"


def test_every_decision_has_its_own_fingerprint() -> None:
    configs = [
        FINAL,
        replace(FINAL, labels=(LabelRule(CLICK, priority=1),)),
        replace(FINAL, reducer="max"),
        replace(FINAL, reducer="sum"),
        replace(FINAL, emission="correcting"),
        EARLY,
        replace(FINAL, negative_rate=0.1),
        replace(FINAL, negative_rate=0.11),
    ]
    assert len({config.fingerprint() for config in configs}) == len(configs)
