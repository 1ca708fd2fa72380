"""A bare aiokafka producer, told a word a line: ``collector_bare.py FILE BOOTSTRAP OPTIONS IN_FLIGHT``.

FILE: Parquet with batch, topic, partition, key and value, a row a record. OPTIONS: of the producer, JSON.
Says the version of aiokafka, then answers "send SECONDS" with the records that were acknowledged in them, the
seconds, and the CPU seconds of this process. IN_FLIGHT batches wait for their acknowledgement at any time;
half a second before is not counted.
"""

import asyncio
import itertools
import json
import sys
import time

import aiokafka
import pyarrow.parquet as pq
import uvloop

WARM_UP_S = 0.5


def read(path):
    """The batches: lists of (topic, value, key, partition)."""
    rows = pq.read_table(path).to_pydict()
    records = zip(*(rows[name] for name in ("batch", "topic", "value", "key", "partition")), strict=True)
    return [[one[1:] for one in group] for _, group in itertools.groupby(records, key=lambda one: one[0])]


async def send(producer, batches, in_flight, seconds):
    """As the module says."""
    acknowledged, measuring, stopping = 0, False, False

    async def caller():
        nonlocal acknowledged
        while not stopping:
            batch = next(batches)
            sent = [
                await producer.send(topic, value, key, partition) for topic, value, key, partition in batch
            ]
            await asyncio.gather(*sent)
            if measuring:
                acknowledged += len(batch)

    async with asyncio.TaskGroup() as group:
        for _ in range(in_flight):
            group.create_task(caller())
        await asyncio.sleep(WARM_UP_S)
        measuring, began, used = True, time.perf_counter(), time.process_time()
        await asyncio.sleep(seconds)
        measuring, stopping = False, True
        took, used = time.perf_counter() - began, time.process_time() - used
    return acknowledged, took, used


async def main():
    path, bootstrap, options, in_flight = sys.argv[1:]
    batches = itertools.cycle(read(path))
    producer = aiokafka.AIOKafkaProducer(bootstrap_servers=bootstrap, **json.loads(options))
    await producer.start()
    print(f"aiokafka-{aiokafka.__version__}", flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        print(*await send(producer, batches, int(in_flight), float(line.split()[1])), flush=True)
    await producer.stop()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
