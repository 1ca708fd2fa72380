"""Golden bytes of the join: one log, one output, forever.

``PYTHONPATH=. python tests/contract/test_join_golden.py`` writes them anew: only when the meaning of the log
was changed on purpose.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from oracles.join_logs import Logs, barrier, canonical
from oracles.join_oracle import joined
from oracles.join_traffic import closing, logs_by_partition, traffic

from services.contract.join import JoinTask
from services.contract.join_config import JoinConfig
from services.contract.join_events import SOURCES, Source
from services.contract.join_output import BarrierPassed, Output, Rejected, Sample

FOLDER = Path(__file__).resolve().parents[1] / "golden"
INPUT, OUTPUT = FOLDER / "join_input.txt", FOLDER / "join_output.txt"
CONFIG = JoinConfig(window_us=2_000_000, bound_us=300_000)


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


def read_log() -> list[tuple[Source, bytes]]:
    """The golden records in the order of feeding."""
    rows = [row.split() for row in INPUT.read_text().splitlines()]
    return [(Source[name], bytes.fromhex(data)) for name, data in rows]


def say(records: list[tuple[Source, bytes]]) -> list[Output]:
    """Feeds the records; offsets count per source."""
    task, offsets, said = JoinTask(CONFIG), Counter[Source](), []
    for source, raw in records:
        said += task.feed(source, offsets[source], raw)
        offsets[source] += 1
    return said


def test_the_golden_log_gives_the_golden_bytes() -> None:
    assert [line(output) for output in say(read_log())] == OUTPUT.read_text().splitlines()


def test_the_golden_log_fed_input_by_input_gives_the_same_set_and_the_oracles() -> None:
    records = read_log()
    ordered = say(sorted(records, key=lambda record: record[0]))
    assert sorted(map(line, ordered)) == sorted(OUTPUT.read_text().splitlines())
    logs: Logs = {s: [raw for source, raw in records if source is s] for s in SOURCES}
    assert Counter(map(canonical, ordered)) == joined(CONFIG, logs)


def test_the_golden_log_shows_most_reasons() -> None:
    said = OUTPUT.read_text()
    for what in ("positive", "negative", "late", "no_impression", "snapshot_lost", "unscored", "barrier"):
        assert f" {what} " in f" {said} ".replace("\n", " "), what


def write() -> None:
    """Makes both files."""
    placed = [row for row in traffic(7, 160) if row[1] == 0]
    placed += [(source, 0, b"", barrier("golden", 10**15 + 10**6)) for source in SOURCES]
    placed += [row for row in closing() if row[1] == 0]
    assert logs_by_partition(placed)[1] == {source: [] for source in SOURCES}
    records = [(source, raw) for source, _, _, raw in placed]
    FOLDER.mkdir(exist_ok=True)
    INPUT.write_text("".join(f"{source.name} {raw.hex()}\n" for source, raw in records))
    OUTPUT.write_text("".join(line(output) + "\n" for output in say(records)))


if __name__ == "__main__":
    write()
