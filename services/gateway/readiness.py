"""When the gateway may be sent requests.

It needs recall and ranking once: it says SERVING when both have said so. When ranking does not come within
``ready_wait_ms``, recall alone will do, or ranking alone (for requests that bring their candidates).
Afterwards nothing takes SERVING back: whatever dies later only makes answers worse, and a gateway that hides
helps nobody.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.gateway.metrics import log

_POLL_S = 0.2
_CHECK_S = 1.0


async def until_ready(needed: Mapping[str, grpc.aio.Channel], wait_s: float) -> None:
    """Returns when every service behind the channels has said SERVING once, or after wait_s when one has."""
    give_up_at = time.monotonic() + wait_s
    waiting = {name: health_pb2_grpc.HealthStub(channel) for name, channel in needed.items()}
    while waiting:
        for name, stub in list(waiting.items()):
            if await _serves(stub):
                del waiting[name]
                log.info("dependency is ready", dependency=name)
        if len(waiting) < len(needed) and time.monotonic() >= give_up_at:
            break
        if waiting:
            await asyncio.sleep(_POLL_S)
    if waiting:
        log.warning("serving without a dependency", missing=sorted(waiting), waited_s=wait_s)


async def _serves(stub: health_pb2_grpc.HealthStub) -> bool:
    try:
        answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=_CHECK_S)
    except grpc.aio.AioRpcError:
        return False
    return answer.status == health_pb2.HealthCheckResponse.SERVING
