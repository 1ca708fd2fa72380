"""Follows who gets which arm; what was known stays known while Kafka is away.

A gateway answers without Kafka, so no failure here ends it: a start is tried again for ever.
"""

from __future__ import annotations

import asyncio

from services.contract.errors import LoopError
from services.gateway.metrics import log
from services.runtime.kafka_tail import LogTail

_RETRY_S = 1.0


async def follow(tail: LogTail, known: asyncio.Event) -> None:
    """Until cancelled; ``known`` is set when the log has been read to its end once."""
    while not known.is_set():
        try:
            await tail.start()
            await tail.catch_up()
            known.set()
        except LoopError as error:
            log.warning("who gets which arm is not known: all get the default one", error=str(error))
            await tail.stop()
            await asyncio.sleep(_RETRY_S)
    await tail.run()
