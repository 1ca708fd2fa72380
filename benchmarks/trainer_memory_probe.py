"""Memory of the online trainer: ``python -m benchmarks.trainer_memory_probe FOLDER ROWS``.

A process of its own. It trains on ids that it has never seen until its tables have ROWS rows, publishing on
the way, and then writes a base into FOLDER and goes on training until it is written. Without ROWS it starts
again from that base, as after a crash. Prints one line of JSON, bytes: ``idle`` (everything imported, one
step made), ``steady`` (resident after training), ``peak`` (the most that it ever held), ``parameters``
(weights and optimizer state of all rows and dense tensors); ``rows``, ``rows_kept`` (changed while the base
was written), ``freeze_ms`` (that training waited for it).
"""

from __future__ import annotations

import itertools
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import torch

from benchmarks.trainer_traffic import ROWS, SHAPE, Sizes, Traffic
from local.child import peak_rss_bytes
from services.contract import model_store
from services.contract.model_state import Frozen, ModelState
from trainer.rows import initial_dense
from trainer.samples import Batch
from trainer.settings import AdmissionSettings, LearningSettings
from trainer.step import train_step
from trainer.touched import Touched

PUBLISH_EVERY = 4
TABLES_WITH_NEW_ROWS = 2


class Trainer:
    """Steps on a state, published now and then."""

    def __init__(self, state: ModelState, batch: Batch) -> None:
        self.state = state
        self._batch = batch
        self._touched = Touched()
        self._steps = 0

    def step(self, first_id: int) -> None:
        """On ids from this one on."""
        ids = np.arange(first_id, first_id + ROWS, dtype=np.uint64) + np.uint64(1)
        batch = replace(self._batch, user_ids=ids, item_ids=ids)
        result = train_step(self.state, batch, LearningSettings(), AdmissionSettings(min_count_item=1))
        for name, (changed, pending) in result.touched.items():
            self._touched.touch(name, changed, pending)
        if self._steps % PUBLISH_EVERY == 0:
            self._touched.begin()
            self._touched.ack()
        self._steps += 1


def main(folder: str, rows: int | None) -> dict[str, float]:
    """Trains and writes the base, or reads it."""
    torch.set_num_threads(1)
    process = psutil.Process()
    batch = Traffic(Sizes(users=ROWS, items=ROWS, batches=1)).batches()[0]
    Trainer(_empty(), batch).step(0)
    idle = process.memory_info().rss
    found: dict[str, float] = {}
    if rows is None:
        (manifest,) = Path(folder).rglob(model_store.MANIFEST_NAME)
        state, _ = model_store.load_base(str(manifest))
    else:
        trainer = Trainer(_empty(), batch)
        state = trainer.state
        firsts = range(0, rows // TABLES_WITH_NEW_ROWS, ROWS)
        for first in firsts:
            trainer.step(first)
        found["steady"] = process.memory_info().rss
        began = time.perf_counter()
        frozen = Frozen(state)
        found["freeze_ms"] = round((time.perf_counter() - began) * 1000, 1)
        with ThreadPoolExecutor(1) as thread:
            saving = thread.submit(model_store.save_base, folder, frozen, created_at_us=1)
            for first in itertools.cycle(firsts):
                if saving.done():
                    break
                trainer.step(first)
            saving.result()
        found["rows_kept"] = frozen.rows_kept
    peak, parameters = peak_rss_bytes(process.pid), parameter_bytes(state)
    return found | {"idle": idle, "peak": peak, "parameters": parameters, "rows": state.rows}


def _empty() -> ModelState:
    return ModelState(SHAPE, dense=initial_dense(SHAPE, 1))


def parameter_bytes(state: ModelState) -> int:
    """Weights and optimizer state of the rows that there are, and of the dense tensors."""
    of_rows = sum(
        len(table) * 4 * (table.rows.shape[1] + table.optimizer.shape[1]) for table in state.tables.values()
    )
    return of_rows + sum(one.nbytes for part in (state.dense, state.dense_optimizer) for one in part.values())


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else None)))
