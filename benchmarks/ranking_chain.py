"""The writer of a model's chain, as the trainer and release are, without training.

``python -m benchmarks.ranking_chain BOOTSTRAP MANIFEST ROWS_PER_DELTA EVERY_S``, told words a line:

    release GENERATION   the arm online follows this generation of the base from now on; answers its revision
    prepare COUNT        makes and seals so many deltas of the first generation, each of ROWS_PER_DELTA rows
    and
                         all dense tensors; answers their bytes
    publish              sends them, one every EVERY_S, each in a transaction; answers the last sequence
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any

import numpy as np

from rec.model.v1 import model_pb2
from services.contract import delta, model_schema, model_store, topics
from services.contract.delta import Body, DenseChange, Header, TableChange
from services.contract.model_state import ModelState
from services.contract.model_store import SavedBase
from services.runtime.kafka_producer import Producer, TransactionalProducer
from services.runtime.settings import KafkaSettings

FIRST, POLICY, ARM = 1, "online", "online"


def partition_of(generation: int) -> int:
    """Of model-deltas."""
    return topics.partition_of(topics.lineage_key(generation, POLICY), topics.MODEL_DELTAS.partitions)


def release(saved: SavedBase, generation: int, revision: int) -> model_pb2.Release:
    """The arm follows the base under this number."""
    base = model_pb2.BaseRef(
        manifest_uri=saved.manifest_uri,
        manifest_digest=saved.manifest_digest,
        sequence=saved.sequence,
        chain_hash=saved.chain_hash,
        epoch=saved.epoch,
        delta_partition=partition_of(generation),
    )
    return model_pb2.Release(
        arm=ARM,
        lineage=model_pb2.Lineage(generation=generation, policy=POLICY),
        base=base,
        state=model_pb2.RELEASE_STATE_SERVING,
        revision=revision,
    )


class Writer:
    """Deltas with new random values of random users and items of a state."""

    def __init__(self, state: ModelState, saved: SavedBase, rows: int) -> None:
        self._rng = np.random.default_rng(5)
        self._shape = state.shape
        self._ids = {name: state.tables[name].ids()[0] for name in model_schema.TABLES}
        self._rows = rows
        self._hash, self.sequence = saved.manifest_digest, 0

    def next(self) -> bytes:
        """The next record of the chain."""
        self.sequence += 1
        header = Header(
            generation=FIRST,
            policy=POLICY,
            sequence=self.sequence,
            epoch=1,
            previous_hash=self._hash,
            created_at_us=time.time_ns() // 1000,
            model_hash=self._shape.model_hash,
            sample_offsets={0: self.sequence},
        )
        value, self._hash = delta.seal(header, self._body())
        return value

    def _body(self) -> Body:
        of_users = self._rows // 5
        shares = {"user": of_users, "item": self._rows - of_users, "category": len(self._ids["category"])}
        tables = tuple(self._change(name, min(count, len(self._ids[name]))) for name, count in shares.items())
        dense = tuple(
            DenseChange(name, self._values(shape, 0.02), np.abs(self._values(shape, 1.0)))
            for name, shape in self._shape.dense.items()
        )
        return Body(tables, dense)

    def _change(self, name: str, count: int) -> TableChange:
        ids = np.sort(self._rng.choice(self._ids[name], count, replace=False))
        return TableChange(
            name,
            ids,
            self._values((count, model_schema.ROW_WIDTH), 0.1),
            np.abs(self._values((count, model_schema.OPTIMIZER_WIDTH), 1.0)),
            np.full(count, 9, np.uint32),
            np.full(count, 1, np.int64),
        )

    def _values(self, shape: tuple[int, ...], scale: float) -> Any:
        return self._rng.normal(0, scale, shape).astype(np.float32)


async def main(bootstrap: str, manifest: str, rows: int, every_s: float) -> None:
    """Answers until its input ends."""
    state, saved = model_store.load_base(manifest)
    writer, kafka, revision = Writer(state, saved, rows), KafkaSettings(bootstrap_servers=bootstrap), 0
    releases, deltas = Producer(kafka, "bench-release"), TransactionalProducer(kafka, "bench-trainer")
    await releases.start()
    await deltas.start()
    values: list[bytes] = []
    print("ready", flush=True)
    try:
        while line := await asyncio.to_thread(sys.stdin.readline):
            word, _, given = line.strip().partition(" ")
            if word == "release":
                revision += 1
                said = release(saved, int(given), revision)
                await releases.send(
                    topics.MODEL_RELEASES.name, said.SerializeToString(), ARM.encode(), partition=0
                )
                print(revision, flush=True)
            elif word == "prepare":
                values = [writer.next() for _ in range(int(given))]
                print(sum(map(len, values)), flush=True)
            else:
                await publish(deltas, values, every_s)
                print(writer.sequence, flush=True)
    finally:
        await deltas.stop()
        await releases.stop()


async def publish(deltas: TransactionalProducer, values: list[bytes], every_s: float) -> None:
    """At equal distances."""
    loop = asyncio.get_running_loop()
    began, key = loop.time(), topics.lineage_key(FIRST, POLICY)
    for number, value in enumerate(values):
        await asyncio.sleep(max(0.0, began + number * every_s - loop.time()))
        await deltas.begin()
        deltas.send_nowait(topics.MODEL_DELTAS.name, value, key, partition=partition_of(FIRST))
        await deltas.commit()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])))
