"""The two implementations of the join say the same, byte for byte, in the same order; so does the oracle."""

from __future__ import annotations

import random
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from flink_kit import java
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from oracles.join_logs import LOGS, ORDERS, canonical
from oracles.join_oracle import joined
from oracles.join_traffic import closing, logs_by_partition, traffic

from rec.events.v1 import events_pb2 as ev
from services.contract.join import JoinTask
from services.contract.join_config import JoinConfig, LabelRule
from services.contract.join_events import SOURCES, Source
from services.contract.join_output import BarrierPassed, Output, Rejected, Sample

pytestmark = pytest.mark.flink
GOLDEN = Path(__file__).resolve().parents[1] / "golden"
GOLDEN_CONFIG = JoinConfig(window_us=2_000_000, bound_us=300_000)
CONFIGS = (
    JoinConfig(window_us=10, bound_us=3),
    JoinConfig(window_us=10, bound_us=0),
    JoinConfig(window_us=6, bound_us=2, show_within_us=15),
    JoinConfig(
        window_us=12,
        bound_us=3,
        labels=(LabelRule(ev.ACTION_KIND_CLICK, 1.0, 5), LabelRule(ev.ACTION_KIND_LIKE, 0.25)),
    ),
)
Fed = list[tuple[Source, bytes]]


class Case:
    """Records in the order of feeding, under one configuration; the state goes through bytes at times."""

    def __init__(self, config: JoinConfig, fed: Fed, checkpoints: frozenset[int] = frozenset()) -> None:
        self.config, self.fed, self.checkpoints = config, fed, checkpoints

    def lines(self) -> Iterator[str]:
        """As recloop.join.Lines reads it."""
        config, offsets = self.config, Counter[Source]()
        labels = (f"{kind}:{label}:{window}" for kind, (label, window) in config.label_windows().items())
        yield f"join {config.window_us} {config.bound_us} {config.show_us} {' '.join(labels)}"
        for place, (source, raw) in enumerate(self.fed):
            if place in self.checkpoints:
                yield "checkpoint"
            yield f"{source.name} {offsets[source]} {raw.hex()}"
            offsets[source] += 1
        yield "end"

    def said(self) -> list[Output]:
        """What the joiner's own core says."""
        task, offsets, said = JoinTask(self.config), Counter[Source](), []
        for source, raw in self.fed:
            said += task.feed(source, offsets[source], raw)
            offsets[source] += 1
        return said

    def oracle(self) -> Counter:
        """What must be said of these logs, in whichever order."""
        return joined(self.config, {s: [raw for source, raw in self.fed if source is s] for s in SOURCES})


def line(output: Output) -> str:
    """One output as recloop.join.Lines prints it."""
    if isinstance(output, Sample):
        data = output.message.SerializeToString(deterministic=True).hex()
        return f"sample {output.rows} {'positive' if output.positive else 'negative'} {data}"
    if isinstance(output, Rejected):
        where = f"{output.source.name.lower()} {output.offset}"
        text = f"rejected {output.reason} {where} {output.items} {output.item_ids.hex() or '-'}"
        return f"{text} {output.detail}" if output.detail else text
    return f"barrier {output.barrier_id} {output.occurred_us}"


def parsed(text: str) -> tuple:
    """The canonical tuple of a printed line."""
    what, *rest = text.split(" ", 6)
    if what == "sample":
        data = bytes.fromhex(rest[2])
        request_id = ev.TrainingSample.FromString(data).request_id
        return canonical(Sample(data, request_id, int(rest[0]), rest[1] == "positive"))
    if what == "barrier":
        return canonical(BarrierPassed(rest[0], int(rest[1])))
    ids = b"" if rest[4] == "-" else bytes.fromhex(rest[4])
    return ("rejected", rest[0], int(Source[rest[1].upper()]), int(rest[2]), int(rest[3]), ids)


def run(jar: Path, cases: list[Case]) -> list[list[str]]:
    """The lines that the Java join prints for each case."""
    fed = "".join(f"{row}\n" for case in cases for row in case.lines())
    command = [java(), "-Xmx512m", "-XX:+UseSerialGC", "-cp", str(jar), "recloop.join.Lines"]
    done = subprocess.run(command, input=fed, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    said: list[list[str]] = [[]]
    for row in done.stdout.splitlines():
        if row == "end":
            said.append([])
        else:
            said[-1].append(row)
    assert said.pop() == []
    assert len(said) == len(cases)
    return said


def check(jar: Path, cases: list[Case]) -> Counter[str]:
    """Java = joiner line by line, and = the oracle as a multiset; returns what kinds of lines there were."""
    kinds: Counter[str] = Counter()
    for case, said in zip(cases, run(jar, cases), strict=True):
        assert said == [line(output) for output in case.said()]
        assert Counter(map(parsed, said)) == case.oracle()
        kinds.update(row.split(" ")[1] if row.startswith("rejected") else row.split(" ")[0] for row in said)
    return kinds


def interleaved(logs: dict[Source, list[bytes]], order: list[Source]) -> Fed:
    """The records of three logs, taken in an order of sources; the rest after it."""
    at: Counter[Source] = Counter()
    fed: Fed = []
    for source in (*order, *(s for s in SOURCES for _ in logs[s])):
        if at[source] < len(logs[source]):
            fed.append((source, logs[source][at[source]]))
            at[source] += 1
    return fed


def random_cases(count: int) -> list[Case]:
    """Small logs with everything in them; always the same ones."""
    cases: list[Case] = []

    @settings(
        max_examples=count,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.sampled_from(CONFIGS), LOGS, ORDERS, st.frozensets(st.integers(0, 40), max_size=5))
    def collect(config: JoinConfig, logs: dict, order: list[Source], checkpoints: frozenset[int]) -> None:
        cases.append(Case(config, interleaved(logs, order), checkpoints))

    collect()
    return cases


def test_the_golden_log_gives_the_golden_bytes_in_java_too(join_jar: Path) -> None:
    rows = [row.split() for row in (GOLDEN / "join_input.txt").read_text().splitlines()]
    fed = [(Source[name], bytes.fromhex(data)) for name, data in rows]
    wanted = (GOLDEN / "join_output.txt").read_text().splitlines()
    often = frozenset(range(0, len(fed), 7))
    for said in run(join_jar, [Case(GOLDEN_CONFIG, fed), Case(GOLDEN_CONFIG, fed, often)]):
        assert said == wanted


def test_a_thousand_random_logs_are_joined_alike(join_jar: Path) -> None:
    cases = random_cases(1000)
    assert len(cases) == 1000
    kinds = check(join_jar, cases)
    reasons = "late after_window no_impression not_impressed already_labelled no_label_rule snapshot_lost"
    for (
        what
    ) in f"sample barrier {reasons} unscored not_in_snapshot second_impression second_snapshot".split():
        assert kinds[what] >= 10, f"{what}: too few in {kinds}"


def test_whole_traffic_is_joined_alike_through_checkpoints(join_jar: Path) -> None:
    placed = [*traffic(5, 2000), *closing()]
    cases = []
    for partition, logs in enumerate(logs_by_partition(placed)):
        fed = [(source, raw) for source, at, _, raw in placed if at == partition]
        cases.append(Case(GOLDEN_CONFIG, fed, frozenset(range(50, len(fed), 173))))
        assert sum(map(len, logs.values())) == len(fed)
    assert check(join_jar, cases)["sample"] > 2000


def mangled(rng: random.Random, raw: bytes) -> bytes:
    """A record cut off, with a byte changed, or put together from two halves."""
    at = rng.randrange(len(raw))
    return rng.choice(
        [
            raw[:at],
            raw[:at] + bytes([rng.randrange(256)]) + raw[at + 1 :],
            raw + raw[at:],
            raw[at:] + raw[:at],
        ]
    )


def unreadable() -> Fed:
    """Records that are wrong in one way each, on every input."""
    stamp = {"seconds": 5}
    ids = {"event_id": "e", "request_id": "r", "occurred_at": stamp}
    snap = {**ids, "item_ids": bytes(8), "scores": bytes(4), "item_features": bytes(8)}
    shown = {**ids, "item_ids": [1, 2**64 - 1]}
    acted = {**ids, "kind": 1}
    records = [
        ev.EventRecord(),
        ev.EventRecord(snapshot=ev.FeatureSnapshot(**{**snap, "item_ids": bytes(9)})),
        ev.EventRecord(snapshot=ev.FeatureSnapshot(**{**snap, "item_ids": b""})),
        ev.EventRecord(snapshot=ev.FeatureSnapshot(**{**snap, "scores": bytes(5)})),
        ev.EventRecord(snapshot=ev.FeatureSnapshot(**{**snap, "item_features": bytes(6)})),
        ev.EventRecord(snapshot=ev.FeatureSnapshot(**snap, user_features=bytes(3))),
        ev.EventRecord(snapshot=ev.FeatureSnapshot(**{**snap, "request_id": "\U0001f600" * 65})),
        ev.EventRecord(impression=ev.Impression(**{**shown, "item_ids": []})),
        ev.EventRecord(impression=ev.Impression(**{**shown, "item_ids": [2**64 - 1] * 2})),
        ev.EventRecord(impression=ev.Impression(**{**shown, "item_ids": range(10_001)})),
        ev.EventRecord(impression=ev.Impression(**shown, positions=[1])),
        ev.EventRecord(impression=ev.Impression(**{**shown, "event_id": ""})),
        ev.EventRecord(action=ev.Action(**{**acted, "kind": 0})),
        ev.EventRecord(action=ev.Action(**{**acted, "kind": 99})),
        ev.EventRecord(action=ev.Action(**{**acted, "event_id": "x" * 129})),
        ev.EventRecord(action=ev.Action(event_id="e", request_id="r", kind=1)),
        ev.EventRecord(heartbeat=ev.Heartbeat(occurred_at={"seconds": 253_402_300_800})),
        ev.EventRecord(barrier=ev.Barrier(occurred_at=stamp)),
        ev.EventRecord(barrier=ev.Barrier(barrier_id="b" * 129, occurred_at=stamp)),
    ]
    return [(source, record.SerializeToString()) for record in records for source in SOURCES]


def test_what_is_no_event_is_refused_alike_and_in_the_same_words(join_jar: Path) -> None:
    rng = random.Random(11)
    fed = [(source, raw) for source, at, _, raw in traffic(6, 300) if at == 0]
    fed += [(source, mangled(rng, raw)) for source, raw in fed for _ in range(3)]
    kinds = Counter[str]()
    for case in (Case(GOLDEN_CONFIG, unreadable()), Case(GOLDEN_CONFIG, fed)):
        (said,) = run(join_jar, [case])
        assert said == [line(output) for output in case.said()]
        kinds.update(row.split(" ")[1] for row in said)
    assert kinds["malformed"] > 300
