"""Memory of the online trainer: ``python -m benchmarks.trainer_memory_probe ROWS``.

A process of its own. It trains on ids that it has never seen until its tables have ROWS rows, publishing on
the way, and then writes a base, which is the most that it ever holds. Prints one line of JSON, bytes:
``idle`` (everything imported, one step made), ``steady`` (resident after training), ``peak`` (of the base),
``parameters`` (weights and optimizer state of all rows and dense tensors).
"""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import replace

import numpy as np
import psutil
import torch

from benchmarks.trainer_traffic import ROWS, SHAPE, Sizes, Traffic
from local.child import peak_rss_bytes
from services.contract import model_store
from services.contract.model_state import ModelState
from trainer.rows import initial_dense
from trainer.settings import AdmissionSettings, LearningSettings
from trainer.step import train_step
from trainer.touched import Touched

PUBLISH_EVERY = 4
TABLES_WITH_NEW_ROWS = 2


def main(rows: int) -> dict[str, int]:
    """Trains, writes the base."""
    torch.set_num_threads(1)
    batch = Traffic(Sizes(users=ROWS, items=ROWS, batches=1)).batches()[0]
    learning, admission = LearningSettings(), AdmissionSettings(min_count_item=1)
    process = psutil.Process()
    train_step(ModelState(SHAPE, dense=initial_dense(SHAPE, 1)), batch, learning, admission)
    idle = process.memory_info().rss
    state, touched = ModelState(SHAPE, dense=initial_dense(SHAPE, 1)), Touched()
    for step in range(rows // (TABLES_WITH_NEW_ROWS * ROWS)):
        fresh = np.arange(step * ROWS, (step + 1) * ROWS, dtype=np.uint64) + np.uint64(1)
        result = train_step(state, replace(batch, user_ids=fresh, item_ids=fresh), learning, admission)
        for name, (changed, pending) in result.touched.items():
            touched.touch(name, changed, pending)
        if step % PUBLISH_EVERY == 0:
            touched.begin()
            touched.ack()
    steady = process.memory_info().rss
    with tempfile.TemporaryDirectory(prefix="trainer-memory-") as folder:
        # As core.build and bases do: a copy, written while training goes on.
        model_store.save_base(folder, state.copy(), created_at_us=1)
    return {
        "idle": idle,
        "steady": steady,
        "peak": peak_rss_bytes(process.pid),
        "parameters": parameter_bytes(state),
        "rows": state.rows,
    }


def parameter_bytes(state: ModelState) -> int:
    """Weights and optimizer state of the rows that there are, and of the dense tensors."""
    of_rows = sum(
        len(table) * 4 * (table.rows.shape[1] + table.optimizer.shape[1]) for table in state.tables.values()
    )
    return of_rows + sum(one.nbytes for part in (state.dense, state.dense_optimizer) for one in part.values())


if __name__ == "__main__":
    print(json.dumps(main(int(sys.argv[1]))))
