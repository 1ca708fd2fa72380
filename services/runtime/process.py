"""One process, from settings to exit code.

A process stops on SIGTERM, SIGINT, when a guarded task dies, or when ``stop`` is called. Then, under one
deadline (``shutdown_ms``):

1. ``stopping`` is set; ``main`` has a second to return, then it is cancelled;
2. drain hooks, newest first: servers say NOT_SERVING, refuse new calls, finish those in progress;
3. closers and guarded tasks in reverse order of their registration: what was started last stops first, so a
   task that uses a client ends before the client closes (its flush included);
4. last hooks: the admin port, which has told the truth until now.

A second signal ends the process at once. Exit code: 0 after a stop, 1 when a task or a closer failed.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import uvloop

from services.runtime import tracing
from services.runtime.settings import ProcessSettings, differing
from services.runtime.start_check import require_whole, said_at_once
from services.runtime.successor import until_free
from services.runtime.telemetry import Pulse, configure_logging, counter, get_logger

log = get_logger(__name__)
CloseFn = Callable[[], Awaitable[object]]
_MAIN_GRACE_S = 1.0


class Process:
    """Owns the tasks and the closing order of one process. Bound to the running event loop."""

    def __init__(self, settings: ProcessSettings) -> None:
        self.settings = settings
        self.stopping = asyncio.Event()
        self.failure: BaseException | None = None
        self.pulse = Pulse()
        self._drains: list[tuple[str, CloseFn]] = []
        self._closers: dict[object, tuple[str, CloseFn]] = {}
        self._lasts: list[tuple[str, CloseFn]] = []
        self._deaths = counter("task_deaths", "Guarded tasks that ended with an error.", ["task"])
        self._clean = True
        self._closed = False
        self.spawn(self.pulse.run(), "pulse")

    def spawn(
        self, work: Coroutine[Any, Any, Any], name: str, *, finishes: bool = False
    ) -> asyncio.Task[Any]:
        """Runs a guarded task: when it fails, the process stops with its error.

        On the way down it is cancelled, or, when it ``finishes`` (it watches ``stopping`` and ends by
        itself), awaited until the deadline.
        """
        task = asyncio.get_running_loop().create_task(work, name=name)

        async def end() -> None:
            if not finishes:
                task.cancel()
            try:
                await task
            except asyncio.CancelledError:
                if not task.cancelled():  # the wait itself was cancelled by the deadline
                    task.cancel()
                    raise
            except Exception:  # already reported by the done callback
                return

        self._closers[task] = (name, end)
        task.add_done_callback(self._task_done)
        return task

    def _task_done(self, task: asyncio.Task[Any]) -> None:
        self._closers.pop(task, None)
        if task.cancelled() or task.exception() is None:
            return
        self._deaths.labels(task.get_name()).inc()
        self.fail(task.get_name(), task.exception())

    def push_drain(self, name: str, drain: CloseFn) -> None:
        """Registers a hook of step 2."""
        self._drains.append((name, drain))

    def push_close(self, name: str, close: CloseFn) -> None:
        """Registers a closer of step 3, undone in reverse order."""
        self._closers[object()] = (name, close)

    def push_last(self, name: str, close: CloseFn) -> None:
        """Registers a hook of step 4."""
        self._lasts.append((name, close))

    def fail(self, what: str, error: BaseException | None) -> None:
        """Stops the process because of an error; the first one is kept."""
        if self.failure is None:
            self.failure = error
            log.error("failed", what=what, error=repr(error), exc_info=error)
        self.stop(f"{what} failed")

    def stop(self, why: str) -> None:
        """Asks the process to stop; may be called again."""
        if not self.stopping.is_set():
            log.info("stopping", why=why)
            self.stopping.set()

    async def close(self) -> bool:
        """Steps 2 to 4 under one deadline; True when everything closed in time and without error."""
        if self._closed:
            return self._clean
        self._closed = True
        self.stopping.set()
        deadline = time.monotonic() + self.settings.shutdown_ms / 1000
        for name, close in reversed(self._drains):
            await self._close_one(name, close, deadline)
        while self._closers:
            _, (name, close) = self._closers.popitem()
            await self._close_one(name, close, deadline)
        for name, close in reversed(self._lasts):
            await self._close_one(name, close, deadline)
        return self._clean

    async def _close_one(self, name: str, close: CloseFn, deadline: float) -> None:
        # Even past the deadline a closer gets a moment: most of them only drop a socket.
        remaining = max(0.05, deadline - time.monotonic())
        try:
            async with asyncio.timeout(remaining):
                await close()
        except TimeoutError:
            self._clean = False
            log.error("not closed in time", what=name, waited_s=round(remaining, 3))
        except Exception as error:
            self._clean = False
            log.error("close failed", what=name, error=repr(error), exc_info=error)


MainFn = Callable[[Process], Awaitable[None]]


async def live(settings: ProcessSettings, main: MainFn) -> int:
    """Runs ``main`` (which wires, then returns or waits for ``stopping``) until the process stops; the exit
    code.
    """
    process = Process(settings)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _on_signal, process, number)
    if tracing.active() is not None:
        process.push_last("traces", lambda: asyncio.to_thread(tracing.close))
    task = loop.create_task(_guard_main(process, main), name="main")
    stopping = loop.create_task(process.stopping.wait(), name="stopping")
    await stopping
    done, _ = await asyncio.wait({task}, timeout=_MAIN_GRACE_S)
    if not done:
        task.cancel()
        await asyncio.wait({task}, timeout=_MAIN_GRACE_S)
    clean = await process.close()
    log.info("stopped", clean=clean, failed=process.failure is not None)
    return 0 if clean and process.failure is None else 1


async def _guard_main(process: Process, main: MainFn) -> None:
    try:
        if process.settings.grpc.bind_wait_ms:
            await until_free(process.settings.grpc)
        await main(process)
    except asyncio.CancelledError:
        raise
    except Exception as error:
        process.fail("main", error)


def _on_signal(process: Process, number: signal.Signals) -> None:
    if process.stopping.is_set():
        log.warning("second signal: ending at once", signal=number.name)
        os._exit(128 + number)
    process.stop(f"signal {number.name}")


def run(settings: ProcessSettings, main: MainFn) -> None:
    """Configures logs, checks secrets, runs ``main`` on uvloop, leaves by SystemExit with the exit code."""
    configure_logging(settings.name, settings.log_level)
    require_whole(settings, settings.name)
    with said_at_once(settings.name):
        tracing.configure(settings.tracing, settings.name)
    # Reports read it: what a run was made with.
    log.info("starting", settings=differing(settings))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        code = runner.run(live(settings, main))
    raise SystemExit(code)
