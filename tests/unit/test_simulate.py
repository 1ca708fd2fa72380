"""What a simulated run counts, and what it calls a failure."""

import copy
from dataclasses import replace

import numpy as np
import pytest

from loadgen import __main__ as command_line
from loadgen import demo_report, memory, world_clock
from loadgen.arrivals import SHOWN
from loadgen.demo_report import Limits
from loadgen.evidence import Summary
from loadgen.exposures import Exposures
from loadgen.live import Live
from loadgen.load import in_share
from loadgen.rows import AckRow
from loadgen.visit import BOT_EXAMINATION, EXAMINATION, answered_row, clicks, failed_row, judge, judge_bot
from loadgen.world import World, examination
from loadgen.world_clock import WorldClock
from loadgen.world_config import WorldConfig
from rec.v1 import gateway_pb2
from services.contract.errors import Conflict, MalformedRecord, NotFound

SMALL = WorldConfig(items=20_000, users=2_000)
US = 1_000_000


@pytest.fixture(scope="module")
def world() -> World:
    return World(SMALL)


def answer(**changes) -> gateway_pb2.RecommendResponse:
    response = gateway_pb2.RecommendResponse(candidates=1_000)
    response.provenance.arm = "online"
    response.provenance.scored = True
    response.provenance.model.lineage.generation = 1
    response.provenance.model.sequence = 5
    for name, value in changes.items():
        setattr(response, name, value)
    return response


def row(intended_us: int, latency_us: int = 20_000, **changes):
    made = answered_row("r", 1, (intended_us, intended_us, intended_us + latency_us), answer(), truth=None)
    return replace(made, **changes)


def ack(request_id: str, occurred_us: int, items: int = 0) -> AckRow:
    kind = "impression" if items else "click"
    return AckRow("e", request_id, kind, 0, items or 1, occurred_us, occurred_us, occurred_us)


def test_an_answer_is_judged_by_truth_and_remembered(world):
    exposures = Exposures(len(world.users))
    items = [int(i) for i in world.items.ids[:30]]
    truth = judge(world, exposures, 4, items, shadow_ids=items[10:25], t_s=3.0)
    p = world.true_p(np.array([4]), np.arange(30), np.array([3.0]))
    assert truth.shown == pytest.approx(p[:10].mean())
    assert truth.frozen == pytest.approx(p[10:20].mean())
    assert truth.ideal == pytest.approx(np.sort(p)[-10:].mean())
    assert truth.unknown == 0
    again = judge(world, exposures, 4, items, shadow_ids=None, t_s=3.0)
    assert again.shown < truth.shown and again.frozen is None


def test_an_item_of_no_world_is_never_clicked_and_counted(world):
    truth = judge(world, Exposures(len(world.users)), 4, [1, 2, 3], shadow_ids=None, t_s=0.0)
    assert truth.unknown == 3 and truth.shown == 0
    assert clicks(truth.shown_p, EXAMINATION, *np.zeros((2, SHOWN), np.float32), 20.0) == []


def test_clicks_follow_true_probability_and_position():
    rng = np.random.default_rng(0)
    p = np.full(SHOWN, 0.3, np.float32)
    counts = np.zeros(SHOWN)
    for _ in range(20_000):
        for place, delay_s in clicks(p, EXAMINATION, *rng.random((2, SHOWN), np.float32), 20.0):
            counts[place] += 1
            assert 0 <= delay_s <= 15
    np.testing.assert_allclose(counts / 20_000, 0.3 * examination(np.arange(SHOWN)), rtol=0.08)


def test_a_bot_clicks_on_every_bad_item_and_has_no_true_probability(world):
    items = [int(i) for i in world.items.ids[:30]] + [1]
    truth = judge_bot(world, items)
    bad = world.items.quality[:SHOWN] < 0
    draws = np.full((2, SHOWN), 0.999, np.float32)
    assert [place for place, _ in clicks(truth.shown_p, BOT_EXAMINATION, *draws, 20.0)] == np.flatnonzero(
        bad
    ).tolist()
    assert 0 < bad.sum() < SHOWN and truth.unknown == 1
    made = answered_row("r", 1, (1, 2, 3), answer(), truth, bot=True)
    assert made.bot and made.shown_true_p is None and made.ideal_true_p is None and made.shown_p == b""


def test_a_bot_clicks_on_no_item_of_another_world():
    all_bad = World(SMALL)
    all_bad.items.quality[:] = -1
    truth = judge_bot(all_bad, [1, int(all_bad.items.ids[0])])
    assert truth.shown_p.tolist() == [0, 1] and truth.unknown == 1


def test_a_share_of_the_requests_is_chosen_by_their_id_alone():
    ids = [f"run-{n}" for n in range(20_000)]
    chosen = [in_share(request_id, 0.3) for request_id in ids]
    assert 0.28 < np.mean(chosen) < 0.32
    assert chosen == [in_share(request_id, 0.3) for request_id in ids]
    assert not any(in_share(i, 0.0) for i in ids) and all(in_share(i, 1.0) for i in ids)


def test_latency_counts_from_the_intended_time():
    live = Live(start_us=0)
    for n in range(100):
        live.request(row(n * US, latency_us=10_000 * (n + 1)))
    assert live.latency_ms()["p50"] == pytest.approx(500, rel=0.01)
    assert live.latency_ms()["p99"] == pytest.approx(990, rel=0.01)
    assert live.requests_per_s() == pytest.approx(100 / 100, rel=0.02)


def test_a_request_without_answer_is_an_error_and_counted_by_its_status():
    live = Live(start_us=0)
    live.request(row(0))
    live.request(failed_row("r2", 1, (5, 6, 7), "DEADLINE_EXCEEDED"))
    assert (live.requests, live.answered) == (2, 1)
    assert live.statuses == {"OK": 1, "DEADLINE_EXCEEDED": 1}


def test_the_newest_version_counts_only_answers_of_the_online_arm():
    live = Live(start_us=0)
    live.request(row(0, sequence=9, arm="frozen"))
    live.request(row(0, sequence=7))
    live.request(row(0, sequence=3))
    assert live.newest == (1, 7)


def test_ctr_by_span_counts_a_click_where_its_item_was_shown():
    live = Live(start_us=0)
    live.acknowledged(ack("a", 19 * US))
    live.acknowledged(ack("a", 18 * US, items=10))
    live.acknowledged(ack("b", 25 * US, items=10))
    live.acknowledged(ack("a", 30 * US))
    assert live.ctr_per_span() == [0.2, 0.0]
    assert (live.impressions, live.clicks) == (20, 2)


def test_only_the_last_30_s_of_shadow_scored_requests_are_compared():
    live = Live(start_us=0)
    for second, shown, frozen in ((0, 0.9, 0.1), (69, 0.9, 0.1), (70, 0.2, 0.1), (100, 0.4, 0.1)):
        live.request(row(second * US, shown_true_p=shown, frozen_true_p=frozen))
    live.request(row(100 * US, shown_true_p=0.9))
    assert live.true_ctr_last() == {"online": pytest.approx(0.3), "frozen": pytest.approx(0.1)}
    assert live.paired == 4


LIMITS = Limits(60.0, 1_000, 10_000, 1.5, require_uplift=True)
QUANTILES = {"p50": 0.5, "p99": 1.0}


def closed() -> dict:
    live = Live(start_us=0)
    for n in range(120):
        live.request(row(n * US // 66, latency_us=10_000, shown_true_p=0.3, frozen_true_p=0.2))
        live.acknowledged(ack(str(n), n * US // 66, items=10))
    live.acknowledged(ack("0", US))
    summary = Summary(
        samples=1_200,
        duplicates=0,
        rejected_items={},
        dead_letters=0,
        auc=0.7,
        auc_second_half=0.7,
        log_loss=0.3,
        base_rate=0.1,
        deltas_published=10,
        deltas_applied=10,
        delta_rows_applied=20_000,
        freshness_s=QUANTILES,
        freshness_stage_s={"join": QUANTILES},
        freshness_clicks=1,
        clicks_unserved=0,
        label_wait_s=QUANTILES,
    )
    run = {
        "offered_rps": 66.0,
        "drain_s": 1.0,
        "generator_cpu_ms_per_request": 1.0,
        "peak_memory_mb": {"loadgen": 100.0},
        "events": {"acknowledged": 121, "refused": 0, "lost": 0, "dropped": 0, "retries": 2, "pending": 0},
    }
    return demo_report.figures(live, summary, run)


def test_a_closed_loop_has_no_failures_and_a_table():
    found = closed()
    assert demo_report.failures(found, LIMITS) == []
    assert "1,200 (0 duplicates" in demo_report.table(found)


BROKEN = {
    "errors": ({"errors": 1}, "errors = 1"),
    "slow": ({"requests_per_s": 59.0}, "requests_per_s = 59.0"),
    "samples lost": ({"samples": 1_199}, "neither a sample nor a reason"),
    "samples rejected": ({"samples": 1_199, "rejected_items": {"unscored": 1}}, "samples = 1199"),
    "nothing shown": ({"impressions": 0, "samples": 0}, "samples = 0"),
    "duplicates": ({"duplicates": 1}, "duplicates = 1"),
    "events lost": ({"events": {"refused": 0, "lost": 1, "dropped": 0, "pending": 0}}, "events lost"),
    "events dropped": ({"events": {"refused": 0, "lost": 0, "dropped": 1, "pending": 0}}, "events lost"),
    "no clicks": ({"clicks": 0}, "clicks = 0"),
    "nothing applied": ({"deltas_applied": 0}, "deltas_applied = 0"),
    "few rows": ({"delta_rows_applied": 9_999}, "delta_rows_applied = 9999"),
    "few candidates": ({"candidates_min": 999}, "candidates_min = 999"),
    "no candidates": ({"candidates_min": None}, "candidates_min = None"),
    "stale": ({"freshness_s": {"p50": 1.6}}, "freshness_s.p50 = 1.6"),
    "never fresh": ({"freshness_s": {"p50": None}}, "freshness_s.p50 = None"),
    "no uplift": ({"ctr_true_last_30s": {"online": 0.2, "frozen": 0.2}}, "is not above frozen"),
    "no shadow": ({"ctr_true_last_30s": {"online": None, "frozen": None}}, "is not above frozen"),
    "no delta served": ({"sequence": 0}, "sequence 0"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_each_sign_of_an_open_loop_is_named(case):
    changes, said = BROKEN[case]
    problems = demo_report.failures({**copy.deepcopy(closed()), **changes}, LIMITS)
    assert any(said in problem for problem in problems), problems


def test_uplift_is_not_asked_for_without_a_shadow_arm():
    found = {**closed(), "ctr_true_last_30s": {"online": None, "frozen": None}}
    assert demo_report.failures(found, replace(LIMITS, require_uplift=False)) == []


def test_a_run_in_which_nothing_happened_still_has_a_table():
    found = {**closed(), "latency_ms": {"p50": None, "p99": None}, "auc_served": None}
    assert "-, " in demo_report.table(found)


def test_the_world_clock_is_read_back_and_begins_at_a_whole_tile(tmp_path):
    clock = WorldClock.starting(1_800_000_000_123_456)
    assert clock.origin_us % 60_000_000 == 0
    world_clock.write(tmp_path / "run", clock, SMALL)
    assert world_clock.read(tmp_path / "run", SMALL) == clock
    assert clock.event_us(clock.world_s(clock.origin_us + 5_000_001)) == clock.origin_us + 5_000_001


def test_a_world_that_was_not_seeded_is_named(tmp_path):
    with pytest.raises(NotFound, match="loadgen seed"):
        world_clock.read(tmp_path, SMALL)
    world_clock.write(tmp_path, WorldClock(0), SMALL)
    with pytest.raises(Conflict, match="another world"):
        world_clock.read(tmp_path, WorldConfig())
    (tmp_path / world_clock.NAME).write_text("{}")
    with pytest.raises(MalformedRecord, match="origin_us"):
        world_clock.read(tmp_path, SMALL)


def test_peak_memory_names_this_process_and_skips_the_dead(tmp_path):
    (tmp_path / "state.json").write_text('{"processes": {"gone": {"pid": 2147483646}}}')
    peaks = memory.peak_mb(tmp_path)
    assert set(peaks) <= {"loadgen"}
    assert all(peak > 1 for peak in peaks.values())


def test_the_commands_are_listed_and_an_unknown_one_is_refused(capsys):
    assert command_line.main(["--help"]) == 0
    assert command_line.main(["nosuch"]) == command_line.main([]) == 2
    said = capsys.readouterr().err
    assert all(name in said for name in ("day0", "seed", "simulate", "replay"))


@pytest.mark.parametrize("command", ["day0", "seed", "simulate"])
def test_every_command_prints_its_settings_with_their_reasons(command, capsys):
    with pytest.raises(SystemExit) as left:
        command_line.main([command, "--help"])
    assert left.value.code == 0
    assert "--sim.seed" in capsys.readouterr().out


def test_a_command_that_cannot_begin_says_why_in_one_line(tmp_path, capsys):
    assert command_line.main(["simulate", "--run-dir", str(tmp_path), "--time-scale", "1"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("loadgen simulate: no ") and said.count("\n") == 1
    assert command_line.main(["simulate", "--run-dir", str(tmp_path), "--time-scale", "0"]) == 2


def test_every_bad_setting_is_named_at_once(capsys):
    with pytest.raises(SystemExit) as left:
        command_line.main(["simulate", "--rate", "0", "--shadow-share", "2"])
    assert left.value.code == 2
    said = capsys.readouterr().err
    assert "rate" in said and "shadow_share" in said
