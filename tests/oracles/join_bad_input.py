"""What producers do wrong, on one log: clocks that differ, a partition without events, poison everywhere."""

from __future__ import annotations

from collections.abc import Iterator

from oracles.join_logs import IMP, A, S, action, barrier, heartbeat, impression, snapshot
from oracles.join_traffic import MS, Placed

from rec.events.v1 import events_pb2 as ev
from services.contract.join_events import SOURCES

IDLE = 3
BUSY = (0, 1, 2)
# How far a producer's clock is from the others'; the join's bound is 300 ms.
WITHIN_MS, BEYOND_MS = 250, 900
START_US = 10**15


def poison() -> Iterator[bytes]:
    """Bytes that are no event of any input."""
    yield b""
    yield b"not an event"
    yield b"\xff" * 1_000
    yield ev.EventRecord().SerializeToString()
    yield snapshot("cut", START_US)[:-3]
    yield impression("no time", 0).replace(b"no time:shown", b"")[:5]
    yield ev.EventRecord(barrier=ev.Barrier(barrier_id="b" * 200)).SerializeToString()


def bad_input(requests: int = 300, step_us: int = 20 * MS) -> list[Placed]:
    """(source, partition, key, value) in sending order.

    Ranking's clock is ahead, the clients' is behind, both within the bound; a few clients are further
    behind, or ahead, than the bound allows. No action ever falls on partition ``IDLE``: its
    writer beats there instead. Poison stands on each topic of each partition.
    """
    placed: list[Placed] = []
    for step in range(requests):
        at, partition, request = START_US + step * step_us, step % 4, f"r{step}"
        key = request.encode()
        client_ms = {9: -BEYOND_MS, 29: BEYOND_MS}.get(step // 4 % 40, -WITHIN_MS)
        placed.append((S, partition, key, snapshot(request, at + WITHIN_MS * MS)))
        placed.append((IMP, partition, key, impression(request, at + 30 * MS)))
        if partition != IDLE:
            placed.append((A, partition, key, action(request, at + (60 + client_ms) * MS, 1 + step % 3)))
        else:
            placed.append((A, partition, b"", heartbeat(at)))
        if step % 40 < 4:
            placed += [(source, partition, b"?", raw) for source in SOURCES for raw in poison()]
    return placed


def ending(at_us: int = START_US + 10**9) -> list[Placed]:
    """A barrier behind all of it, on every partition."""
    return [(source, p, b"", barrier("end", at_us)) for source in SOURCES for p in (*BUSY, IDLE)]
