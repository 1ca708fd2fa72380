"""What the tests of model and trainer share: a small world with hidden preferences, and records made from
it."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from rec.events.v1.events_pb2 import Barrier, SampleRecord, TrainingSample
from services.contract import columns, model_schema, model_state, times
from services.contract.delta import Body, DenseChange, Header, TableChange
from services.contract.model_schema import ModelShape
from services.contract.model_state import ModelState
from tests.feature_kit import FEATURES, SHAPE
from trainer.core import TrainerCore
from trainer.rows import initial_dense
from trainer.samples import RawRecord
from trainer.settings import AdmissionSettings, LearningSettings

# Steps this small are slower on two threads than on one.
torch.set_num_threads(1)

START_US = 1_700_000_000_000_000
SECOND_US = 1_000_000


class World:
    """Users and items with hidden tastes; ``truth`` is the click probability that nobody is told."""

    def __init__(self, seed: int = 0, users: int = 200, items: int = 300) -> None:
        self.random = np.random.default_rng(seed)
        self.users = self.random.integers(1, 2**63, users, dtype=np.uint64)
        self.items = self.random.integers(1, 2**63, items, dtype=np.uint64)
        self.categories = self.random.integers(1, 8, items)
        taste = self.random.normal(0, 1.0, (users, 8))
        quality = self.random.normal(0, 0.8, items)
        logit = taste[:, self.categories] + quality[None, :] - 1.0
        self.truth: NDArray[np.float64] = 1 / (1 + np.exp(-logit))
        self.clock_us = START_US

    def sample(self, rows: int = 10, labels: NDArray | None = None) -> TrainingSample:
        """One request of one random user: ``rows`` shown items with drawn labels (or the given ones)."""
        user = int(self.random.integers(len(self.users)))
        shown = self.random.choice(len(self.items), rows, replace=False)
        if labels is None:
            labels = self.random.random(rows) < self.truth[user, shown]
        item_features = np.zeros((rows, FEATURES.item_width), np.float32)
        item_features[:, FEATURES.category_column] = self.categories[shown]
        self.clock_us += SECOND_US
        return TrainingSample(
            request_id=f"r{self.clock_us}",
            occurred_at=times.from_us(self.clock_us),
            user_id=int(self.users[user]),
            schema_hash=FEATURES.schema_hash,
            item_ids=columns.encode(self.items[shown], columns.U64),
            labels=columns.encode(np.asarray(labels), columns.F32),
            label_versions=bytes(4 * rows),
            positions=columns.encode(np.arange(rows), columns.U32),
            scores=columns.encode(np.full(rows, 0.3), columns.F32),
            item_features=columns.encode(item_features, columns.F32),
            user_features=bytes(4 * FEATURES.user_width),
            sample_rate=1.0,
        )

    def records(
        self, count: int, partition: int = 0, first_offset: int = 0, rows: int = 10
    ) -> list[RawRecord]:
        """Consecutive records of one partition."""
        return [RawRecord(partition, first_offset + n, sample_bytes(self.sample(rows))) for n in range(count)]


def sample_bytes(sample: TrainingSample) -> bytes:
    """The value of a record on samples."""
    return SampleRecord(sample=sample).SerializeToString()


def barrier_bytes(barrier_id: str) -> bytes:
    """A barrier on samples."""
    return SampleRecord(barrier=Barrier(barrier_id=barrier_id)).SerializeToString()


def new_state(seed: int = 1, shape: ModelShape = SHAPE) -> ModelState:
    """An untrained model."""
    return ModelState(shape, dense=initial_dense(shape, seed))


def parameters(state: ModelState) -> bytes:
    """Digest of everything but the place in the chain."""
    bare = state.copy()
    bare.sequence, bare.sample_offsets, bare.samples_trained, bare.trained_until_us = 0, {}, 0, 0
    return model_state.digest(bare)


def new_core(
    state: ModelState | None = None,
    *,
    epoch: int = 1,
    partitions: int = 1,
    learning: LearningSettings | None = None,
    admission: AdmissionSettings | None = None,
) -> TrainerCore:
    """A trainer's core without I/O."""
    return TrainerCore(
        state or new_state(),
        learning or LearningSettings(minibatch_rows=64),
        admission or AdmissionSettings(),
        epoch=epoch,
        partitions=frozenset(range(partitions)),
        evaluation_rows=1_000,
    )


def random_change(random: np.random.Generator, table: str, ids: list[int]) -> TableChange:
    """New random values of some ids."""
    n = len(ids)
    return TableChange(
        table,
        np.array(sorted(ids), np.uint64),
        random.normal(0, 1, (n, model_schema.ROW_WIDTH)).astype(np.float32),
        random.random((n, model_schema.OPTIMIZER_WIDTH)).astype(np.float32),
        np.full(n, 3, np.uint32),
        np.full(n, START_US, np.int64),
    )


def random_body(seed: int, ids: int = 5) -> Body:
    """A small body that touches every table and every dense tensor."""
    random = np.random.default_rng(seed)
    tables = tuple(
        random_change(random, name, random.choice(50, ids, replace=False).tolist())
        for name in model_schema.TABLES
    )
    dense = tuple(
        DenseChange(
            name, random.normal(0, 0.1, shape).astype(np.float32), random.random(shape).astype(np.float32)
        )
        for name, shape in SHAPE.dense.items()
    )
    return Body(tables, dense)


def header_after(state: ModelState, **changed: object) -> Header:
    """The header of the next delta of a state."""
    fields: dict[str, object] = {
        "generation": state.generation,
        "policy": state.policy,
        "sequence": state.sequence + 1,
        "epoch": max(1, state.epoch),
        "previous_hash": state.chain_hash,
        "created_at_us": START_US,
        "model_hash": state.shape.model_hash,
        "sample_offsets": {0: state.sequence + 1},
    }
    return Header(**(fields | changed))  # type: ignore[arg-type]
