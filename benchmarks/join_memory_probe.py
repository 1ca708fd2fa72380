"""Resident memory of one pure join at a steady state: ``python -m benchmarks.join_memory_probe <Shape>``.

``Shape`` is that of join_memory, as JSON. A process of its own: memory is a matter of processes. Garbage
is collected as the joiner does. Prints one line of JSON: the fields of ``join_memory.State``.
"""

from __future__ import annotations

import gc
import json
import sys

import psutil

from benchmarks.join_log import entries
from benchmarks.join_memory import Shape, State
from services.contract.join import JoinTask
from services.contract.join_config import JoinConfig
from services.contract.join_events import Source

# The joiner asks for its positions at each commit, which lets go of what is no longer held.
COMMIT_EVERY = 1_000
COLLECT_EVERY = 200_000


def main(shape: Shape) -> State:
    """Feeds until everything that can be held at once is."""
    config = JoinConfig(
        window_us=round(shape.window_s * 1e6),
        bound_us=round(shape.bound_s * 1e6),
        max_held_events=100_000_000,
    )
    task = JoinTask(config)
    offsets = dict.fromkeys(Source, 0)
    gc.disable()
    requests = round(shape.rate_per_s * shape.full_after_s)
    log = entries(requests, round(1e6 / shape.rate_per_s), round(shape.shown_after_s * 1e6))
    for fed, (source, _, raw) in enumerate(log):
        task.feed(source, offsets[source], raw)
        offsets[source] += 1
        if fed % COMMIT_EVERY == 0:
            task.positions()
        if fed % COLLECT_EVERY == 0:
            gc.collect()
        if offsets[Source.SNAPSHOTS] == requests:
            break
    memory = psutil.Process().memory_info()
    waiting = offsets[Source.SNAPSHOTS] - offsets[Source.IMPRESSIONS]
    remembered = task.held_events - 3 * task.open_impressions - waiting
    return State(
        memory.rss, task.open_impressions, remembered / 3, waiting, task.held_events, task.held_bytes
    )


if __name__ == "__main__":
    print(json.dumps(main(Shape(**json.loads(sys.argv[1])))._asdict()))
