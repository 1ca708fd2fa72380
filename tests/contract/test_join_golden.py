"""Golden bytes of the join: one log and what it says under the defaults, another and what it says under every
policy at once. Forever.

``PYTHONPATH=. python tests/contract/test_join_golden.py`` writes them anew: only when the meaning of the logs
was changed on purpose.
"""

from __future__ import annotations

import heapq
import random
import sys
from collections import Counter
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import pytest
from oracles.join_logs import Logs, action, barrier, canonical, labels_first
from oracles.join_oracle import joined
from oracles.join_traffic import closing, logs_by_partition, traffic

from rec.events.v1 import events_pb2 as ev
from services.contract.join import JoinTask
from services.contract.join_config import JoinConfig, LabelRule
from services.contract.join_events import SOURCES, Source
from services.contract.join_label_first import LabelFirstTask
from services.contract.join_output import BarrierPassed, Output, Rejected, Sample
from services.contract.times import to_us

FOLDER = Path(__file__).resolve().parents[1] / "golden"
INPUT, OUTPUT = FOLDER / "join_input.txt", FOLDER / "join_output.txt"
CONFIG = JoinConfig(window_us=2_000_000, bound_us=300_000)
CORRECTING_INPUT, CORRECTING_OUTPUT = (
    FOLDER / "join_correcting_input.txt",
    FOLDER / "join_correcting_output.txt",
)
CORRECTING = JoinConfig(
    window_us=2_000_000,
    bound_us=300_000,
    labels=(
        LabelRule(ev.ACTION_KIND_CLICK, 0.25),
        LabelRule(ev.ACTION_KIND_LIKE, 0.5, window_us=1_000_000),
        LabelRule(ev.ACTION_KIND_PURCHASE, 1.0, priority=1),
    ),
    reducer="max",
    emission="correcting",
    early_negative_us=200_000,
    negative_rate=0.5,
)
GOLDEN = [(INPUT, OUTPUT, CONFIG), (CORRECTING_INPUT, CORRECTING_OUTPUT, CORRECTING)]


def line(output: Output) -> str:
    """One output as text: what it is, then its bytes."""
    if isinstance(output, Sample):
        data = output.message.SerializeToString(deterministic=True).hex()
        return f"sample {output.rows} {'positive' if output.positive else 'negative'} {data}"
    if isinstance(output, Rejected):
        where = f"{output.source.name.lower()} {output.offset}"
        return f"rejected {output.reason} {where} {output.items} {output.item_ids.hex() or '-'}"
    assert isinstance(output, BarrierPassed)
    return f"barrier {output.barrier_id} {output.occurred_us}"


def read_log(path: Path = INPUT) -> list[tuple[Source, bytes]]:
    """The golden records in the order of feeding."""
    rows = [row.split() for row in path.read_text().splitlines()]
    return [(Source[name], bytes.fromhex(data)) for name, data in rows]


def say(records: list[tuple[Source, bytes]], config: JoinConfig = CONFIG) -> list[Output]:
    """Feeds the records; offsets count per source."""
    task, offsets, said = JoinTask(config), Counter[Source](), []
    for source, raw in records:
        said += task.feed(source, offsets[source], raw)
        offsets[source] += 1
    return said


@pytest.mark.parametrize(("log", "output", "config"), GOLDEN)
def test_a_golden_log_gives_its_golden_bytes(log: Path, output: Path, config: JoinConfig) -> None:
    assert [line(o) for o in say(read_log(log), config)] == output.read_text().splitlines()


@pytest.mark.parametrize(("log", "output", "config"), GOLDEN)
def test_a_golden_log_fed_input_by_input_gives_the_same_set_and_the_oracles(
    log: Path, output: Path, config: JoinConfig
) -> None:
    records = read_log(log)
    ordered = say(sorted(records, key=lambda record: record[0]), config)
    assert sorted(map(line, ordered)) == sorted(output.read_text().splitlines())
    logs: Logs = {s: [raw for source, raw in records if source is s] for s in SOURCES}
    assert Counter(map(canonical, ordered)) == joined(config, logs)


@pytest.mark.parametrize(("log", "output", "config"), GOLDEN)
def test_a_golden_log_read_labels_first_gives_the_same_bytes(
    log: Path, output: Path, config: JoinConfig
) -> None:
    records = read_log(log)
    logs: Logs = {s: [raw for source, raw in records if source is s] for s in SOURCES}
    said = labels_first(LabelFirstTask(config), logs, [source for source, _ in records])
    assert sorted(line(o) for outputs in said for o in outputs) == sorted(output.read_text().splitlines())


ALWAYS = ("positive", "negative", "late", "no_impression", "snapshot_lost", "unscored", "barrier")


@pytest.mark.parametrize(
    ("output", "whats"),
    [(OUTPUT, ALWAYS), (CORRECTING_OUTPUT, (*ALWAYS, "sampled_out", "already_labelled", "after_window"))],
)
def test_the_golden_logs_show_most_reasons(output: Path, whats: tuple[str, ...]) -> None:
    said = f" {output.read_text()} ".replace("\n", " ")
    assert [what for what in whats if f" {what} " not in said] == []


def test_the_correcting_log_shows_corrections_overrides_and_first_positives_of_dropped_negatives() -> None:
    said = [canonical(o) for o in say(read_log(CORRECTING_INPUT), CORRECTING)]
    rows = [row for what in said if what[0] == "sample" for row in what[5]]
    shown = {(row[1], row[5]) for row in rows}
    assert {(0.0, 0), (0.25, 0), (0.25, 1), (0.5, 1), (1.0, 1), (1.0, 2)} <= shown
    late = [what for what in said if what[0] == "sample" and what[4] and what[4] > what[3] + 200_000]
    assert any(what[5][0][5] == 0 for what in late)


def mixed(seed: int, requests: int) -> list[tuple[Source, bytes]]:
    """The traffic of partition 0, with more actions of all kinds on what it shows, each about in its time."""
    rng = random.Random(seed)
    records: list[tuple[Source, bytes]] = []
    due: list[tuple[int, bytes]] = []
    for source, partition, _, raw in traffic(seed, requests):
        if partition != 0:
            continue
        records.append((source, raw))
        if source is not Source.IMPRESSIONS:
            continue
        shown = ev.EventRecord.FromString(raw).impression
        now = to_us(shown.occurred_at)
        for item in shown.item_ids:
            for kind in rng.choices([1, 1, 1, 2, 2, 3, 4], k=rng.choice([0, 0, 1, 2, 4])):
                at = now + int(rng.expovariate(1 / 400)) * 1000
                late = rng.randrange(-200, 150) * 1000
                heapq.heappush(due, (at + late, action(shown.request_id, at, item, f"{at}:{item}", kind)))
        while due and due[0][0] <= now:
            records.append((Source.ACTIONS, heapq.heappop(due)[1]))
    return records + [(Source.ACTIONS, raw) for _, raw in sorted(due)]


def write() -> None:
    """Makes all files."""
    placed = [row for row in traffic(7, 160) if row[1] == 0]
    placed += [(source, 0, b"", barrier("golden", 10**15 + 10**6)) for source in SOURCES]
    placed += [row for row in closing() if row[1] == 0]
    assert logs_by_partition(placed)[1] == {source: [] for source in SOURCES}
    write_pair([(source, raw) for source, _, _, raw in placed], INPUT, OUTPUT, CONFIG)
    records = mixed(11, 200)
    records += [(source, barrier("golden", 10**15 + 10**6)) for source in SOURCES]
    records += [(source, raw) for source, partition, _, raw in closing() if partition == 0]
    write_pair(records, CORRECTING_INPUT, CORRECTING_OUTPUT, CORRECTING)


def write_pair(records: list[tuple[Source, bytes]], log: Path, output: Path, config: JoinConfig) -> None:
    """A log and what it says."""
    FOLDER.mkdir(exist_ok=True)
    log.write_text("".join(f"{source.name} {raw.hex()}\n" for source, raw in records))
    output.write_text("".join(line(o) + "\n" for o in say(records, config)))


if __name__ == "__main__":
    write()
