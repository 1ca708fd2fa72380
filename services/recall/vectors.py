"""The vector source: the vectors of one model version, searched and changed on one thread.

Users and items come from the same rows of the same lineage. Searches and deltas take turns on that
thread, so every search sees exactly one version, and a new model (another lineage, a newer base) is built
aside and swapped in as one reference.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from services.contract import delta, model_schema
from services.recall import metrics
from services.recall.vector_table import VectorTable, best

Result = TypeVar("Result")
# <p_u, q_i> + b_i: the user's factors, the item's factors and its bias, as they stand in a row.
_USER = model_schema.RECALL.slice
_ITEM = slice(model_schema.RECALL.start, model_schema.RECALL_BIAS.stop)
USER_TABLE, ITEM_TABLE = "user", "item"


@dataclass(frozen=True)
class VectorVersion:
    """Which model the vectors are of."""

    generation: int
    policy: str
    sequence: int
    created_us: int
    applied_us: int


@dataclass(frozen=True)
class Found:
    """Items by vector, best first, and the version that found them. cold: the user has no vector."""

    ids: NDArray[np.uint64]
    version: VectorVersion
    cold: bool


class VectorModel:
    """The recall columns of the user and the item table at one sequence. One thread owns it."""

    def __init__(self, version: VectorVersion) -> None:
        self.version = version
        self.users = VectorTable(model_schema.RECALL_FACTORS)
        self.items = VectorTable(model_schema.RECALL_FACTORS + 1)

    def load(self, table: str, ids: NDArray[np.uint64], rows: NDArray[np.float32]) -> None:
        """Rows [n, ROW_WIDTH] of a base; other tables than users and items have no vectors."""
        if table == USER_TABLE:
            self.users.upsert(ids, rows[:, _USER])
        elif table == ITEM_TABLE:
            self.items.upsert(ids, rows[:, _ITEM])

    def apply(self, changes: Iterable[delta.TableChange], version: VectorVersion) -> int:
        """Takes a checked delta in; the number of rows of users and items that changed."""
        rows = 0
        for change in changes:
            if change.table not in (USER_TABLE, ITEM_TABLE):
                continue
            self.load(change.table, change.ids, change.rows)
            table = self.users if change.table == USER_TABLE else self.items
            table.remove(change.expired_ids)
            rows += len(change.ids)
        self.version = version
        return rows

    def search(self, user_id: int, k: int) -> Found:
        """The k best items; for a user without a vector, by the items' bias alone."""
        user = self.users.get(user_id)
        cold = user is None
        if user is None:
            user = np.zeros(model_schema.RECALL_FACTORS, np.float32)
        return Found(best(self.items, user, k), self.version, cold)


_SEARCH_SECONDS = metrics.SECONDS.labels("vector")


def _timed(model: VectorModel, user_id: int, k: int) -> Found:
    with _SEARCH_SECONDS.time():
        return model.search(user_id, k)


class VectorSource:
    """The model being served, and its thread."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="vectors")
        self._model: VectorModel | None = None
        self.stale = False

    @property
    def version(self) -> VectorVersion | None:
        """Version of the vectors; None before the first model."""
        return None if self._model is None else self._model.version

    def sizes(self) -> dict[str, int]:
        """Rows by table."""
        model = self._model
        return {"users": model.users.size, "items": model.items.size} if model else {"users": 0, "items": 0}

    def serves(self, model: VectorModel) -> bool:
        """Whether this is the model being served."""
        return self._model is model

    def swap(self, model: VectorModel) -> None:
        """Serves another model from the next search on."""
        self._model = model

    def begin_search(self, user_id: int, k: int) -> asyncio.Future[Found] | None:
        """Starts a search; None when there is no model."""
        model = self._model
        return None if model is None else self._submit(lambda: _timed(model, user_id, k))

    async def do(self, work: Callable[[], Result]) -> Result:
        """Runs something on the vectors' thread, between two searches."""
        return await self._submit(work)

    def _submit(self, work: Callable[[], Result]) -> asyncio.Future[Result]:
        return asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def close(self) -> None:
        """Ends the thread; what it is doing is finished."""
        self._thread.shutdown(wait=False, cancel_futures=True)
