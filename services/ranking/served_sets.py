"""What a schema hash stands for: the named set, and those that it has grown to (contract.view_growth).

The feature server and this process read the same log. A hash that is not known here may have been read there
a moment ago: before a request is refused for it, the log is read to its end.
"""

from __future__ import annotations

import asyncio
import time

from services.contract.errors import LoopError, SchemaMismatch
from services.contract.model_schema import ModelShape
from services.contract.view_growth import GrowingSet
from services.contract.view_registry import FeatureSet
from services.runtime.kafka_tail import LogTail
from services.runtime.telemetry import get_logger

log = get_logger(__name__)
# A foreign hash on every request must not become a read of the log on every request.
_ASK_AGAIN_S = 1.0


class ServedSets:
    """``tail`` None: the named set alone, for good."""

    def __init__(self, growing: GrowingSet, tail: LogTail | None = None) -> None:
        self._growing = growing
        self._tail = tail
        self._turn = asyncio.Lock()
        self._ask_at_s = 0.0

    async def find(self, schema_hash: int) -> ModelShape:
        """The columns of a request; SchemaMismatch when no set has this hash."""
        found = self._growing.shape(schema_hash)
        if found is None and self._tail is not None:
            async with self._turn:
                await self._ask(schema_hash, self._tail)
            found = self._growing.shape(schema_hash)
        if found is None:
            allowed = ", ".join(
                f"{one.schema_hash:016x} ({name})" for name, one in self._growing.sets.items()
            )
            raise SchemaMismatch.one("schema_hash", f"{schema_hash:016x}", allowed)
        return found

    async def _ask(self, schema_hash: int, tail: LogTail) -> None:
        if self._growing.shape(schema_hash) is not None or time.monotonic() < self._ask_at_s:
            return
        self._ask_at_s = time.monotonic() + _ASK_AGAIN_S
        try:
            await tail.catch_up()
        except LoopError as error:
            log.warning("served sets not readable", error=str(error))

    def features(self, shape: ModelShape) -> FeatureSet:
        """The set that a model sees; SchemaMismatch names the columns that are not served."""
        return self._growing.seen_by(shape)
