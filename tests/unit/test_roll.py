"""A rolling restart's rules: what counts as failed or lost, in which order, and how the launcher is asked."""

from __future__ import annotations

import socket
import stat
import sys
import threading
from collections.abc import Iterator
from dataclasses import asdict, fields, replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from loadgen.rows import AckRow, RejectedRow, RequestRow, SampleRow
from local import control
from local.audit import Line
from local.errors import LocalError
from local.evidence import TABLES, Evidence
from local.paths import RunPaths
from local.processes import LOOP, PAGE
from local.roll import command
from local.roll.command import _arguments, in_order, summary
from local.roll.replace import BESIDE, Replaced
from local.roll.verdict import report
from services.contract import topics

S = 1_000_000
REQUEST = RequestRow(
    "r1", 5, 10 * S, 10 * S, 10 * S + 20_000, "OK", "online", 1, "online", 0, 0, 0, 10 * S, True,
    1000, "", "a",
)  # fmt: skip
SHOWN = AckRow("r1:shown", "r1", "impression", 0, 2, 10 * S, 10 * S, 10 * S + 5_000)
SAMPLE = SampleRow("r1", 7, 1.0, 0, 0, 0.4, 0, 10, 0, 13 * S, 10 * S, 13 * S, 10 * S, 1, 0, "online")
SAMPLES = [SAMPLE, replace(SAMPLE, item_id=8, label=0.0)]
EVENTS = {"acknowledged": 1, "refused": 0, "lost": 0, "dropped": 0, "pending": 0}
ROLLED = Replaced("ranking", BESIDE, 3.0, 0.5, 0.0, 2, True, 9 * S, 11 * S).said()
FINE = Line("chain breaks", 0, 0, True)


def evidence(**rows: list) -> Evidence:
    given = {"requests": [REQUEST], "events": [SHOWN], "samples": SAMPLES, **rows}
    types = {"requests": RequestRow, "events": AckRow, "samples": SampleRow, "rejected": RejectedRow}

    def columns(name: str) -> dict[str, list]:
        names = [field.name for field in fields(types[name])] if name in types else []
        dicts = [asdict(row) for row in given.get(name, [])]
        return {field: [one[field] for one in dicts] for field in names}

    return Evidence(**{name: columns(name) for name in TABLES})


def judged(counts: dict[str, int] = EVENTS, audit: tuple[Line, ...] = (FINE,), **rows: list) -> dict:
    rolled = rows.pop("rolled", [ROLLED])
    return report(rolled, {"events": counts}, evidence(**rows), audit)


def test_a_roll_that_cost_nothing_has_no_failed_check():
    found = judged()
    assert found["failed_checks"] == []
    assert (found["failed_requests"], found["lost_events"], found["items_shown"]) == (0, 0, 2)
    assert found["services"][0] | {"requests": 1, "failed": 0, "not_sampled": 0} == found["services"][0]
    assert "ranking" in summary(found) and "0 failed" in summary(found)


REJECTED = RejectedRow(topics.LATE_EVENTS.name, "snapshot_lost", topics.IMPRESSIONS.name, 0, 4, 2)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"requests": [REQUEST, replace(REQUEST, status="UNAVAILABLE")]}, "1 requests failed"),
        ({"requests": [replace(REQUEST, status="DROPPED")]}, "1 requests failed"),
        ({"counts": EVENTS | {"lost": 3}}, "3 events lost: 3 not acknowledged"),
        ({"counts": EVENTS | {"pending": 1}}, "1 events lost"),
        ({"samples": SAMPLES[:1]}, "1 events lost: 0 not acknowledged, 1 without a reason"),
        ({"samples": [*SAMPLES, replace(SAMPLE, item_id=9)]}, "-1 without a reason"),
        ({"samples": [], "rejected": [REJECTED]}, "2 events lost: 0 not acknowledged, 0 without a reason, 2"),
        ({"rolled": [ROLLED | {"clean": False}]}, "ranking had to be killed"),
        (
            {"rolled": [ROLLED | {"from_us": 20 * S, "until_us": 21 * S}]},
            "no request was under way while rank",
        ),
        ({"audit": (FINE, Line("ctr", 1, 2, False))}, "the audit differs: ctr"),
        ({"requests": []}, "no load"),
    ],
)
def test_what_a_roll_must_not_cost_is_named(changed, said):
    found = judged(**changed)
    assert any(said in problem for problem in found["failed_checks"]), found["failed_checks"]


def test_what_is_late_has_a_reason_and_is_told_and_not_counted_as_lost():
    found = judged(samples=[], rejected=[replace(REJECTED, reason="late")])
    assert (found["lost_events"], found["rejected"]) == (0, {"late": 2})
    assert found["services"][0]["not_sampled"] == 2


def test_a_repeated_event_is_counted_once():
    found = report([ROLLED], {"events": EVENTS}, evidence(), [FINE])
    doubled = evidence()
    for column in doubled.events.values():
        column.extend(column)
    assert report([ROLLED], {"events": EVENTS}, doubled, [FINE]) == found


def test_writers_come_first_and_the_page_last():
    order = in_order([], [PAGE, *reversed(LOOP)])
    assert order[0] == "release" and order[-2:] == ["gateway", PAGE]
    assert in_order(["gateway", "trainer"], list(LOOP)) == ["trainer", "gateway"]
    with pytest.raises(LocalError, match="lake: this stack has"):
        in_order(["lake"], list(LOOP))


def test_what_stands_behind_two_dashes_is_the_loads():
    own, load = _arguments(["ranking", "--rate", "5", "--", "--sim.items", "3000"])
    assert (own.services, own.rate, load) == (["ranking"], 5.0, ["--sim.items", "3000"])


# -- the launcher is asked


def test_a_load_that_leaves_no_figures_is_not_judged_by_those_of_a_former_roll(tmp_path, monkeypatch):
    (tmp_path / "demo.json").write_text("{}")
    asking = "import sys, time; print('20 requests/s for 9 s', file=sys.stderr, flush=True); time.sleep(60)"
    monkeypatch.setattr(command, "guard", lambda: (sys.executable, "-c", asking))
    monkeypatch.setattr(command.control, "ask", lambda *_args, **_named: {})
    for pause in ("LEAD_S", "AFTER_S"):
        monkeypatch.setattr(command, pause, 0.0)
    with pytest.raises(LocalError, match="the load ended with status -15"):
        command._under_load(RunPaths(tmp_path / "run"), tmp_path, [], 20.0, [])


@pytest.fixture
def launcher(tmp_path: Path) -> Iterator[Path]:
    """A launcher that only knows its environment, deep in a folder."""
    folder = tmp_path / ("d" * 100)
    folder.mkdir()
    where = folder / "control.sock"
    stack = SimpleNamespace(
        paths=SimpleNamespace(control=where),
        config=SimpleNamespace(services=LOOP),
        own_environment=lambda module: {"MODULE": module},
    )
    with control.listening(where) as listener:
        threading.Thread(
            target=control.serve, args=(listener, stack, lambda _text: None), daemon=True
        ).start()
        yield where


def test_a_launcher_answers_one_request_after_the_other(launcher: Path):
    assert control.ask(launcher, "environment", module="loadgen") == {"MODULE": "loadgen"}
    assert control.ask(launcher, "services") == list(LOOP)
    assert stat.S_IMODE(launcher.stat().st_mode) == 0o600


def test_a_request_that_cannot_be_done_is_refused_by_name_and_the_launcher_goes_on(launcher: Path):
    with pytest.raises(LocalError, match="lake is not a service of this stack"):
        control.ask(launcher, "replace", service="lake")
    with pytest.raises(LocalError, match="not a request of this launcher"):
        control.ask(launcher, "destroy")
    with socket.socket(socket.AF_UNIX) as rude, control._short(launcher) as path:
        rude.connect(path)
        rude.sendall(b"no JSON\n")
    assert control.ask(launcher, "services") == list(LOOP)


def test_where_no_launcher_listens_the_user_is_told_what_to_do(tmp_path: Path):
    with pytest.raises(LocalError, match="make up"):
        control.ask(tmp_path / "control.sock", "services")
