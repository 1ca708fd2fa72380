"""Speed of the pure join on one core: ``python -m benchmarks.bench_join_core [requests]``.

The log is that of join_log; samples are serialised as the joiner does. Prints records, joined items and bytes
per second.
"""

from __future__ import annotations

import struct
import sys
import time

from benchmarks.join_log import SHOWN, START_US, STEP_US, entries, heartbeat
from services.contract.feature_sets import FEATURE_SETS, WORLD
from services.contract.join import JoinTask
from services.contract.join_config import JoinConfig
from services.contract.join_events import Source
from services.contract.join_output import Sample
from services.joiner.outgoing import outgoing


def main(requests: int) -> None:
    """Measures and prints."""
    log = [(entry.source, entry.raw) for entry in entries(requests)]
    log += [(source, heartbeat(START_US + requests * STEP_US + 10**9)) for source in Source]
    task = JoinTask(JoinConfig(window_us=20_000_000, bound_us=2_000_000))
    offsets = dict.fromkeys(Source, 0)
    items = size = most = 0
    began = time.process_time()
    for source, raw in log:
        for output in task.feed(source, offsets[source], raw):
            if isinstance(output, Sample):
                items += output.rows
            size += len(outgoing(output, 0, None, START_US).value)
        offsets[source] += 1
        most = max(most, task.held_events)
    took = time.process_time() - began
    assert items == requests * SHOWN, (items, requests * SHOWN)
    row_bytes = struct.calcsize("<Q") + 4 * (3 + FEATURE_SETS[WORLD].item_width)
    print(
        f"{len(log) / took:,.0f} records/s, {items / took:,.0f} joined items/s of CPU time, "
        f"{size / took / 1e6:,.1f} MB/s out ({row_bytes} bytes a row), "
        f"{1e6 * took / len(log):.1f} us a record, at most {most:,} events held"
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 30_000)
