"""A client that sends at intended times, whatever was answered: a stall counts for each request it delays."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.closed_loop import Connect


@dataclass(frozen=True)
class Sent:
    """One request: when it was meant to be sent, seconds from the start; milliseconds from then to its
    answer; the answer, or what went wrong."""

    at_s: float
    took_ms: float
    answer: bytes | None
    error: str = ""


async def open_loop(
    connect: Connect, request: Callable[[], bytes], *, rate: float, seconds: float
) -> list[Sent]:
    """Everything sent in ``seconds``, at equal distances; returns when all is answered."""
    done: list[Sent] = []
    async with connect() as call, asyncio.TaskGroup() as group:
        # Not loop.time(): uvloop's counts whole milliseconds.
        began = time.perf_counter() + 0.05

        async def one(at_s: float) -> None:
            answer, error = None, ""
            try:
                answer = await call(request())
            except Exception as problem:
                error = repr(problem)
            done.append(Sent(at_s, (time.perf_counter() - began - at_s) * 1000, answer, error))

        for number in range(round(rate * seconds)):
            at_s = number / rate
            await asyncio.sleep(max(0.0, began + at_s - time.perf_counter()))
            group.create_task(one(at_s))
    return done
