"""The vector source: the vectors of one model version, searched and changed on one thread.

Users and items come from the same rows of the same lineage. Searches and deltas take turns on that
thread, so every search sees exactly one version, and a new model (another lineage, a newer base) is built
aside and swapped in as one reference.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from services.contract import delta, model_schema
from services.recall import metrics
from services.recall.item_lists import ItemLists
from services.recall.list_build import Listing
from services.recall.vector_table import VectorTable, best, query_of

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


# For each set of lists, those that the items of a delta belong to.
Nearest = Sequence[tuple[ItemLists, NDArray[np.int32]]]


class VectorModel:
    """The recall columns of the user and the item table at one sequence. One thread owns it.

    ``listing``: how the items are searched; None = all of them. ``building``: lists that are being made, and
    follow every change already. ``asked``: the last query and how many items it wanted.
    """

    def __init__(self, version: VectorVersion) -> None:
        self.version = version
        self.users = VectorTable(model_schema.RECALL_FACTORS)
        self.items = VectorTable(model_schema.RECALL_FACTORS + 1)
        self.listing: Listing | None = None
        self.building: ItemLists | None = None
        self.asked: tuple[NDArray[np.float32], int] | None = None

    def load(self, table: str, ids: NDArray[np.uint64], rows: NDArray[np.float32]) -> None:
        """Rows [n, ROW_WIDTH] of a base; other tables than users and items have no vectors."""
        if table == USER_TABLE:
            self.users.upsert(ids, rows[:, _USER])
        elif table == ITEM_TABLE:
            self.items.upsert(ids, rows[:, _ITEM])

    def nearest(self, changes: Sequence[delta.TableChange]) -> Nearest:
        """The lists that changed items belong to: most of the work of a delta. On any thread, before
        ``apply``."""
        rows = [change.rows[:, _ITEM] for change in changes if change.table == ITEM_TABLE]
        return [(lists, lists.nearest(one)) for lists in self._followed for one in rows]

    def apply(
        self, changes: Sequence[delta.TableChange], version: VectorVersion, nearest: Nearest = ()
    ) -> int:
        """Takes a checked delta in; the number of rows of users and items that changed."""
        rows = 0
        for change in changes:
            if change.table == USER_TABLE:
                self.users.upsert(change.ids, change.rows[:, _USER])
                self.users.remove(change.expired_ids)
            elif change.table == ITEM_TABLE:
                self._apply_items(change, nearest)
            else:
                continue
            rows += len(change.ids)
        self.version = version
        return rows

    def _apply_items(self, change: delta.TableChange, nearest: Nearest) -> None:
        rows = change.rows[:, _ITEM]
        places = self.items.upsert(change.ids, rows)
        holes = self.items.remove(change.expired_ids)
        for lists in self._followed:
            known = [found for one, found in nearest if one is lists]
            lists.put(places, known[0] if known else lists.nearest(rows))
            lists.drop(holes)

    @property
    def has_lists(self) -> bool:
        """Whether a delta moves items between lists."""
        return bool(self._followed)

    @property
    def _followed(self) -> list[ItemLists]:
        served = [] if self.listing is None else [self.listing.lists]
        return served if self.building is None else [*served, self.building]

    def search(self, user_id: int, k: int) -> Found:
        """The k best items; for a user without a vector, by the items' bias alone."""
        user = self.users.get(user_id)
        cold = user is None
        if user is None:
            user = np.zeros(model_schema.RECALL_FACTORS, np.float32)
        return Found(self._best(user, k), self.version, cold)

    def _best(self, user: NDArray[np.float32], k: int) -> NDArray[np.uint64]:
        listing = self.listing
        if listing is not None:
            query, k = query_of(user), min(k, self.items.size)
            self.asked = (query, k)
            if listing.watch.pays:
                found = listing.lists.best(self.items, query, k, listing.watch.probes)
                if found is not None:
                    _BY_LISTS.inc()
                    return found
        _BY_ALL.inc()
        return best(self.items, user, k)


_BY_LISTS, _BY_ALL = metrics.SEARCHES.labels("lists"), metrics.SEARCHES.labels("all")
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
    def model(self) -> VectorModel | None:
        """The model being served."""
        return self._model

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

    def turn(self, work: Callable[[], Result]) -> Result:
        """As ``do``, for another thread, which waits."""
        return self._thread.submit(work).result()

    def _submit(self, work: Callable[[], Result]) -> asyncio.Future[Result]:
        return asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def close(self) -> None:
        """Ends the thread; what it is doing is finished."""
        self._thread.shutdown(wait=False, cancel_futures=True)
