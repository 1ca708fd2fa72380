"""The tables of batch features that snapshots name: read once, the least recently used leave.

Reading happens beside the join; a snapshot whose table is not here yet waits in its gate. That a table is
gone or broken is an answer, and kept like one. A store that fails is asked again for as long as it takes.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable

from rec.events.v1 import events_pb2 as ev
from services.contract.batch_view import Table, label
from services.contract.errors import MalformedRecord, NotFound
from services.joiner import metrics

_Key = tuple[str, int, int]


class ViewTables:
    """``read``: blocking, as view_store.read. Nothing leaves between two turns of the event loop, so that
    what was ``ready`` is found."""

    def __init__(self, read: Callable[[ev.BatchView], Table], limit: int, retry_s: float) -> None:
        self._read = read
        self._limit = limit
        self._retry_s = retry_s
        self._tables: OrderedDict[_Key, Table | str] = OrderedDict()
        self._wanted: dict[_Key, ev.BatchView] = {}
        self._news = asyncio.Event()

    def ready(self, view: ev.BatchView) -> bool:
        """Whether there is an answer; when not, it is being fetched."""
        key = _key(view)
        if key in self._tables:
            self._tables.move_to_end(key)
            return True
        if key not in self._wanted:
            self._wanted[key] = view
            self._news.set()
        return False

    def find(self, view: ev.BatchView) -> Table | str:
        """The table, or why there is none."""
        return self._tables.get(_key(view), f"batch view {label(view)} is not at hand")

    async def run(self) -> None:
        """Fetches what is wanted until cancelled."""
        while True:
            await self._news.wait()
            self._news.clear()
            for key, view in list(self._wanted.items()):
                await self._fetch(key, view)

    async def _fetch(self, key: _Key, view: ev.BatchView) -> None:
        found: Table | str
        try:
            found = await asyncio.to_thread(self._read, view)
            metrics.VIEW_TABLES.labels("read").inc()
        except (NotFound, MalformedRecord) as error:
            metrics.VIEW_TABLES.labels("lost").inc()
            metrics.log.error("batch features lost", view=label(view), error=str(error))
            found = str(error)
        except OSError as error:
            metrics.VIEW_TABLES.labels("failed").inc()
            metrics.log.warning("batch features not read", view=label(view), error=repr(error))
            await asyncio.sleep(self._retry_s)
            self._news.set()
            return
        del self._wanted[key]
        self._tables[key] = found
        while len(self._tables) > self._limit:
            self._tables.popitem(last=False)


def _key(view: ev.BatchView) -> _Key:
    return view.view, view.version, view.partition
