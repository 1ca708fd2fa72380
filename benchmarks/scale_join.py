"""The pure join in a process of its own: ``python -m benchmarks.scale_join PARTITIONS REQUESTS``.

The log of join_log is dealt to the partitions by request, each of which has a task. Says that it is ready,
begins with the next line of its input, and prints one line of JSON: records, CPU and wall seconds.
"""

from __future__ import annotations

import json
import sys
import time

from benchmarks.join_log import START_US, STEP_US, entries, heartbeat
from services.contract import topics
from services.contract.join import JoinTask
from services.contract.join_config import JoinConfig
from services.contract.join_events import Source
from services.joiner.outgoing import outgoing


def main(partitions: int, requests: int) -> None:
    """Feeds everything."""
    config = JoinConfig(window_us=20_000_000, bound_us=2_000_000)
    tasks = [JoinTask(config) for _ in range(partitions)]
    offsets = [dict.fromkeys(Source, 0) for _ in tasks]
    log = [
        (topics.partition_of(topics.request_key(entry.request_id), partitions), entry.source, entry.raw)
        for entry in entries(requests)
    ]
    end = heartbeat(START_US + requests * STEP_US + 10**9)
    log += [(partition, source, end) for partition in range(partitions) for source in Source]
    print("ready", flush=True)
    sys.stdin.readline()
    cpu, wall = time.process_time(), time.perf_counter()
    for partition, source, raw in log:
        for output in tasks[partition].feed(source, offsets[partition][source], raw):
            outgoing(output, partition, None, START_US)
        offsets[partition][source] += 1
    took = {"cpu_s": time.process_time() - cpu, "wall_s": time.perf_counter() - wall}
    print(json.dumps({"records": len(log), **took}))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
