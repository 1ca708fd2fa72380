"""One process of a running stack replaced by a new one, as a Deployment does it.

| how | who | steps |
|---|---|---|
| beside | what only answers: gateway, recall, feature, ranking, collector | the new one starts at the other loopback address, on the same ports -> it is SERVING -> every client that watches the old one's health watches the new one's too -> SIGTERM to the old one: it says NOT_SERVING, clients leave it (lame duck), calls in progress end, it flushes and goes |
| handed over | what owns what it writes: joiner, feature_pipeline, trainer, release, lake, page | the new one starts with the same ports and waits for them, ready (runtime.successor) -> SIGTERM to the old one: it drains, flushes, commits, gives its ports up -> the new one takes them, reads where the old one stood -> SERVING |

The same division stands in k8s/base as ``maxSurge`` 1 or 0 (and Recreate). Nothing is told where anybody is:
clients know both addresses from the start (``Addresses.targets``) and hear from the health watch which one
serves, as clients of a headless Service do of its pods. Two processes on one port (SO_REUSEPORT) would need
no second address, but the kernel deals connections to whoever listens, the new one that is still loading and
the old one that closes included, and resets those that wait in the closing one's queue.
"""

# ruff: noqa: E501 - a table row is one line
from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from local.child import Child
from local.errors import LocalError, StartFailed
from local.processes import BY_NAME, SERVICE_GRACE_S, Addresses
from local.readiness import wait_serving
from services.runtime.exposition import fetched
from services.runtime.successor import WAITING

if TYPE_CHECKING:
    from local.stack import Stack

BESIDE, HANDED_OVER = "beside", "handed over"
# For clients to connect to the new one: they look again every second (grpc_client.reconnect_max_ms).
CLIENTS_S = 10.0
# How long a successor waits for the ports: the old one's whole grace, and its own patience.
BIND_WAIT_MS = 120_000
POLL_S = 0.05
METRICS_S = 2.0
US = 1_000_000


@dataclass(frozen=True)
class Replaced:
    """One replacement. Seconds: of the new one from its start until it was SERVING (or waited for the ports),
    of the old one from SIGTERM to its end, and between them, in which nobody served (0 beside). ``clean``:
    the old one went by itself. ``from_us``, ``until_us``: wall time of the whole."""

    service: str
    how: str
    start_s: float
    drain_s: float
    gap_s: float
    clients: int
    clean: bool
    from_us: int
    until_us: int

    def said(self) -> dict[str, object]:
        """For the report."""
        return {
            name: round(value, 3) if isinstance(value, float) else value
            for name, value in asdict(self).items()
        }


def replace_process(stack: Stack, name: str, say: Callable[[str], None]) -> Replaced:
    """Replaces a process of the stack. LocalError when it does not run; StartFailed when the new one does not
    come: then the old one is as it was."""
    if name not in stack.config.services:
        raise LocalError(f"{name} is not a service of this stack: {', '.join(stack.config.services)}")
    old = stack.children[name]
    if old.exit_code is not None:
        raise LocalError(f"{name} does not run: there is nothing to replace (make status)")
    replace = _beside if BY_NAME[name].beside else _handed_over
    found = replace(stack, old, say)
    say(
        f"{name}: {found.how}, started in {found.start_s:.1f} s, drained in {found.drain_s:.1f} s"
        + (f", nobody for {found.gap_s:.1f} s" if found.gap_s else "")
    )
    return found


def _beside(stack: Stack, old: Child, say: Callable[[str], None]) -> Replaced:
    name, before = old.name, stack.addresses
    after = before.at(name, before.other_host(name))
    from_us, began = _now_us(), time.monotonic()
    new = stack.launch(name, after)
    try:
        _until_serving(stack, new, after)
        started = time.monotonic()
        clients = _until_known(before.metrics_target(name), after.metrics_target(name), say)
    except BaseException:
        new.kill()
        raise
    stack.adopt(new, after)
    asked = time.monotonic()
    clean = _end(old)
    return Replaced(
        service=name, how=BESIDE, start_s=started - began, drain_s=time.monotonic() - asked, gap_s=0.0,
        clients=clients, clean=clean, from_us=from_us, until_us=_now_us(),
    )  # fmt: skip


def _handed_over(stack: Stack, old: Child, _say: Callable[[str], None]) -> Replaced:
    name, where = old.name, stack.addresses
    from_us, began = _now_us(), time.monotonic()
    read = old.log.stat().st_size
    new = stack.launch(name, where, {"RECLOOP_GRPC__BIND_WAIT_MS": str(BIND_WAIT_MS)})
    try:
        _until_waiting(new, read, began + stack.config.ready_timeout_s)
    except BaseException:
        new.kill()
        raise
    stack.adopt(new, where)
    asked = time.monotonic()
    clean = _end(old)
    gone = time.monotonic()
    _until_serving(stack, new, where)
    return Replaced(
        service=name, how=HANDED_OVER, start_s=asked - began, drain_s=gone - asked,
        gap_s=time.monotonic() - asked, clients=0, clean=clean, from_us=from_us, until_us=_now_us(),
    )  # fmt: skip


def _until_serving(stack: Stack, new: Child, where: Addresses) -> None:
    deadline = time.monotonic() + stack.config.ready_timeout_s
    wait_serving({new.name: new}, {new.name: where.admin_target(new.name)}, deadline, lambda _name: None)


def _until_waiting(new: Child, read: int, deadline: float) -> None:
    """Until the new one says in the log, which both write, that it waits for its ports."""
    while WAITING not in _since(new, read):
        new.require_running()
        if time.monotonic() > deadline:
            raise StartFailed(f"{new.name} does not wait for its ports in time:\n{new.tail(8)}")
        time.sleep(POLL_S)


def _since(new: Child, read: int) -> str:
    with new.log.open("rb") as file:
        file.seek(read)
        return file.read().decode(errors="replace")


def _until_known(old: str, new: str, say: Callable[[str], None]) -> int:
    """Until as many clients watch the new one's health as the old one's; how many those are. Goes on after
    CLIENTS_S: a client that cannot reach the new one is no better off with the old one staying."""
    deadline = time.monotonic() + CLIENTS_S
    while True:
        wanted, found = _watches(old), _watches(new)
        if found >= wanted:
            return found
        if time.monotonic() > deadline:
            say(
                f"{found} of {wanted} clients have found {new} in {CLIENTS_S:.0f} s: going on without the others"
            )
            return found
        time.sleep(POLL_S)


def _watches(target: str) -> int:
    with suppress(OSError):
        return int(fetched(target, METRICS_S).total("recloop_grpc_health_watches") or 0)
    return 0


def _end(old: Child) -> bool:
    """Whether it went by itself. It is no part of the stack any more, so nobody else ends it."""
    try:
        return old.stop(SERVICE_GRACE_S)
    except BaseException:
        old.kill()
        raise


def _now_us() -> int:
    return time.time_ns() // 1000
