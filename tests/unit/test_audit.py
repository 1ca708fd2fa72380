"""The audit recomputes figures from the evidence files and names the ones that differ."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from loadgen.live import Live
from loadgen.rows import (
    ROW_TYPES,
    AckRow,
    AppliedRow,
    DeltaRow,
    RejectedRow,
    RequestRow,
    RowFile,
    SampleRow,
    ScenarioRow,
)
from local import audit
from local.evidence import Evidence
from rec.events.v1.events_pb2 import SampleRecord
from rec.model.v1.model_pb2 import ParameterDelta
from services.contract import topics
from services.contract.columns import U32, U64

S = 1_000_000

REQUEST = RequestRow(
    request_id="r1",
    user_id=2**63 + 5,
    intended_us=1 * S,
    sent_us=1 * S,
    answered_us=1 * S + 20_000,
    status="OK",
    arm="online",
    generation=1,
    policy="online",
    sequence=0,
    applied_us=0,
    staleness_us=0,
    served_us=1 * S,
    scored=True,
    candidates=1000,
    degraded="",
    replica="ranking-0",
    shown_true_p=0.3,
    frozen_true_p=0.2,
)
SHOWN = AckRow("r1:shown", "r1", "impression", 0, 2, 1 * S, 1 * S, 1 * S + 5_000)
CLICK = AckRow("r1:7:1", "r1", "click", 7, 1, 3 * S, 3 * S, 3 * S + 10_000)
SAMPLE = SampleRow("r1", 7, 1.0, 0, 0, 0.4, 0, 10, 0, 3 * S + 40_000, 1 * S, 3 * S, 1 * S, 1, 0, "online")
NEGATIVE = replace(SAMPLE, item_id=8, label=0.0, score=0.1, offset=11, acted_us=0)
DELTA = DeltaRow(
    1,
    "online",
    1,
    1,
    "aa",
    "00",
    4 * S,
    4 * S,
    5,
    100,
    2,
    '{"0": 12}',
    f'[[{3 * S + 90_000}, {{"0": 12}}]]',
    "[]",
)
APPLIED = AppliedRow("ranking-0", "online", 1, "online", 1, 4 * S, 4 * S + 20_000, 5, 100)
LATER = replace(REQUEST, request_id="r2", intended_us=4 * S, answered_us=5 * S, sequence=1)

GOOD = {
    RequestRow: [REQUEST, LATER],
    AckRow: [SHOWN, CLICK],
    SampleRow: [SAMPLE, NEGATIVE],
    RejectedRow: [],
    DeltaRow: [DELTA],
    AppliedRow: [APPLIED],
    ScenarioRow: [],
}
STATED = {
    "requests": 2,
    "errors": 0,
    "requests_per_s": 0.5,
    "candidates_min": 1000,
    "impressions": 2,
    "clicks": 1,
    "samples": 2,
    "duplicates": 0,
    "auc_served": 1.0,
    "deltas_published": 1,
    "deltas_applied": 1,
    "delta_rows_applied": 5,
    "generation": 1,
    "sequence": 1,
    "ctr_true_last_30s": {"online": 0.3, "frozen": 0.2},
    "freshness_s": {"p50": 1.99},
    "freshness_stage_s": {
        "collect": {"p50": 0.01},
        "join": {"p50": 0.03},
        "train": {"p50": 0.05},
        "publish": {"p50": 0.91},
        "apply": {"p50": 1.0},
    },
    "label_wait_s": {"p50": 2.0},
}


def write(out: Path, rows: dict, stated: dict) -> None:
    folder = out / "evidence"
    folder.mkdir(parents=True)
    for row_type in ROW_TYPES:
        file = RowFile(folder, row_type)
        for row in rows.get(row_type, []):
            file.add(row)
        file.close()
    (out / "demo.json").write_text(json.dumps(stated))


def run(out: Path) -> int:
    return audit.main(["--out", str(out), "--no-topics"])


def test_honest_figures_agree(tmp_path, capsys):
    write(tmp_path, GOOD, STATED)
    assert run(tmp_path) == 0, capsys.readouterr().out


@pytest.mark.parametrize("requests", [1, 2, 10, 149, 150, 151])
def test_latencies_agree_with_the_load_generators_histogram_of_a_few_requests(tmp_path, capsys, requests):
    live = Live(start_us=S)
    rows = []
    for i in range(requests):
        # Each takes half as long again as the one before, up to a minute: between two there is no telling.
        answered_us = S + int(1_000 * 1.5 ** (i % 28))
        rows.append(replace(REQUEST, request_id=f"r{i}", answered_us=answered_us))
        live.request(rows[-1])
    stated = {"latency_ms": live.latency_ms()}
    write(tmp_path, GOOD | {RequestRow: rows, AckRow: [], SampleRow: []}, stated)
    assert run(tmp_path) == 0, capsys.readouterr().out
    wrong = {"latency_ms": {"p50": stated["latency_ms"]["p50"], "p99": stated["latency_ms"]["p99"] * 1.002}}
    (tmp_path / "demo.json").write_text(json.dumps(wrong))
    assert run(tmp_path) == 1
    assert "latency_ms.p99" in capsys.readouterr().out.splitlines()[-1]


@pytest.mark.parametrize(
    "figure, value",
    [
        ("requests", 3),
        ("errors", 1),
        ("samples", 3),
        ("auc_served", 0.9),
        ("delta_rows_applied", 6),
        ("sequence", 2),
        ("ctr_true_last_30s", {"online": 0.31, "frozen": 0.2}),
        ("freshness_s", {"p50": 1.0}),
        ("freshness_stage_s", {"train": {"p50": 0.06}}),
        ("label_wait_s", {"p50": 1.0}),
    ],
)
def test_a_figure_that_the_evidence_does_not_give_is_named(tmp_path, capsys, figure, value):
    write(tmp_path, GOOD, STATED | {figure: value})
    assert run(tmp_path) == 1
    assert figure in capsys.readouterr().out.splitlines()[-1]


def test_a_broken_chain_is_found(tmp_path, capsys):
    forked = replace(DELTA, sequence=2, hash="bb", previous_hash="ff")
    write(tmp_path, GOOD | {DeltaRow: [DELTA, forked]}, STATED | {"deltas_published": 2})
    assert run(tmp_path) == 1
    assert "chain breaks" in capsys.readouterr().out.splitlines()[-1]


def test_lineages_that_are_trained_side_by_side_have_a_chain_each(tmp_path, capsys):
    other = replace(DELTA, policy="hourly", hash="bb", appended_us=DELTA.appended_us - 1, steps="[]")
    following = replace(other, sequence=2, hash="cc", previous_hash="bb")
    write(tmp_path, GOOD | {DeltaRow: [other, DELTA, following]}, STATED | {"deltas_published": 3})
    assert run(tmp_path) == 0, capsys.readouterr().out


def test_a_shown_item_without_sample_or_reason_is_found(tmp_path, capsys):
    write(tmp_path, GOOD | {SampleRow: [SAMPLE]}, STATED | {"samples": 1, "auc_served": None})
    assert run(tmp_path) == 1
    assert "shown items explained" in capsys.readouterr().out.splitlines()[-1]


def test_a_rejected_item_with_its_reason_explains_it(tmp_path, capsys):
    rejected = RejectedRow("late-events", "snapshot_lost", "impressions", 0, 3, 1)
    rows = GOOD | {SampleRow: [SAMPLE], RejectedRow: [rejected]}
    write(tmp_path, rows, STATED | {"samples": 1, "auc_served": None})
    assert run(tmp_path) == 0, capsys.readouterr().out


def test_a_sample_twice_is_a_duplicate(tmp_path, capsys):
    write(tmp_path, GOOD | {SampleRow: [SAMPLE, NEGATIVE, replace(SAMPLE, offset=12)]}, STATED)
    assert run(tmp_path) == 1
    assert "duplicates" in capsys.readouterr().out.splitlines()[-1]


def test_a_sample_twice_counts_once_in_every_other_figure(tmp_path, capsys):
    rows = [SAMPLE, NEGATIVE, replace(SAMPLE, score=0.0, offset=12)]
    write(tmp_path, GOOD | {SampleRow: rows}, STATED | {"duplicates": 1})
    assert run(tmp_path) == 0, capsys.readouterr().out


def test_a_corrected_label_is_no_sample_of_its_own(tmp_path, capsys):
    corrected = replace(NEGATIVE, label=1.0, label_version=1, offset=12)
    write(tmp_path, GOOD | {SampleRow: [corrected, SAMPLE, NEGATIVE]}, STATED)
    assert run(tmp_path) == 0, capsys.readouterr().out


@pytest.mark.parametrize(("topic", "origin"), [("late-events", "actions"), ("dead-letters", "impressions")])
def test_only_a_late_impression_explains_a_shown_item(tmp_path, capsys, topic, origin):
    rows = GOOD | {SampleRow: [SAMPLE], RejectedRow: [RejectedRow(topic, "late", origin, 0, 3, 1)]}
    write(tmp_path, rows, STATED | {"samples": 1, "auc_served": None})
    assert run(tmp_path) == 1
    assert "shown items explained" in capsys.readouterr().out.splitlines()[-1]


def on_topics(samples: list[tuple[str, int]], deltas: list[tuple[bytes, bytes]]) -> dict[str, list]:
    """Values of the two topics that are read again; ``deltas``: (what is hashed, what is there besides)."""
    records = [
        SampleRecord(
            sample={
                "request_id": request_id,
                "item_ids": np.array([item_id], U64).tobytes(),
                "label_versions": np.array([0], U32).tobytes(),
            }
        )
        for request_id, item_id in samples
    ]
    sealed = [
        ParameterDelta(header=header, body=body, hash=hashlib.sha256(header).digest())
        for header, body in deltas
    ]
    return {
        topics.SAMPLES.name: [one.SerializeToString() for one in records],
        topics.MODEL_DELTAS.name: [None, *(one.SerializeToString() for one in sealed)],
    }


@pytest.mark.parametrize(
    ("samples", "deltas", "wrong"),
    [
        ([("r1", 8), ("r0", 1), ("r1", 7)], [(b"1", b"")], []),
        ([("r1", 7)], [(b"1", b"")], ["samples on the topic"]),
        ([("r1", 7), ("r1", 9)], [(b"1", b"")], ["samples on the topic"]),
        ([("r1", 7), ("r1", 8), ("r1", 8)], [(b"1", b"")], ["samples on the topic"]),
        (
            [("r1", 7), ("r1", 8)],
            [(b"1", b""), (b"2", b"forged")],
            ["deltas with a wrong hash on the topic"],
        ),
        ([("r1", 7), ("r1", 8)], [(b"2", b"")], ["deltas of the evidence not on the topic"]),
    ],
)
async def test_what_the_topics_do_not_say_is_named(tmp_path, monkeypatch, samples, deltas, wrong):
    found = on_topics(samples, deltas)

    async def read(_bootstrap: str, topic: topics.Topic) -> list[SimpleNamespace]:
        return [SimpleNamespace(value=value) for value in found[topic.name]]

    monkeypatch.setattr(audit, "_read_topic", read)
    write(tmp_path, GOOD | {DeltaRow: [replace(DELTA, hash=hashlib.sha256(b"1").hexdigest())]}, STATED)
    lines = await audit.check_topics("", Evidence.read(tmp_path / "evidence"))
    assert [line.figure for line in lines if not line.ok] == wrong


async def test_what_the_topics_hold_and_nobody_can_read_is_named(tmp_path, monkeypatch):
    found = on_topics([("r1", 7), ("r1", 8)], [(b"1", b"")])
    found[topics.SAMPLES.name].append(b"\xff\xff")
    found[topics.MODEL_DELTAS.name].append(b"junk")

    async def read(_bootstrap: str, topic: topics.Topic) -> list[SimpleNamespace]:
        return [SimpleNamespace(value=value) for value in found[topic.name]]

    monkeypatch.setattr(audit, "_read_topic", read)
    write(tmp_path, GOOD | {DeltaRow: [replace(DELTA, hash=hashlib.sha256(b"1").hexdigest())]}, STATED)
    lines = await audit.check_topics("", Evidence.read(tmp_path / "evidence"))
    assert [(line.figure, line.found) for line in lines if not line.ok] == [
        ("records that are no samples on the topic", 1),
        ("records that are no deltas on the topic", 1),
    ]


def test_nothing_to_audit_is_said(tmp_path, capsys):
    assert run(tmp_path) == 2
    assert "make demo" in capsys.readouterr().out
