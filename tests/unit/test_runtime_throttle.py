"""Work beside those that serve takes its share of the time and no more."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from services.contract.errors import Unavailable
from services.runtime.throttle import Throttle


class Thread:
    """The CPU time of a thread, and how it sleeps."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        # It has worked on something else before.
        self.cpu_s = 7.0
        self.slept_s: list[float] = []
        monkeypatch.setattr(time, "thread_time", lambda: self.cpu_s)
        monkeypatch.setattr(threading.Event, "wait", lambda _, seconds: self.slept_s.append(seconds))

    def work(self, throttle: Throttle, *pieces_ms: float) -> list[float]:
        """What it sleeps for, ms."""
        for piece_ms in pieces_ms:
            self.cpu_s += piece_ms / 1000
            throttle()
        return [round(slept_s * 1000, 6) for slept_s in self.slept_s]


def test_a_quarter_of_the_time_is_work(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Thread(monkeypatch).work(Throttle(0.25), 0, 4, 40, 3) == [12, 120, 9]


def test_small_pieces_are_slept_for_together(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Thread(monkeypatch).work(Throttle(0.5), 0, 1, 0.5, 1, 1, 1.5) == [2.5, 2.5]


def test_who_has_all_of_the_time_never_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Thread(monkeypatch).work(Throttle(1.0), 0, 100, 100) == []


def test_who_sleeps_is_woken_when_it_is_stopped() -> None:
    throttle, began = Throttle(1e-6), threading.Event()

    def work() -> None:
        while True:
            sum(range(100_000))
            throttle()
            began.set()

    with ThreadPoolExecutor(1) as pool:
        worker = pool.submit(work)
        assert began.wait(10)
        throttle.stop()
        with pytest.raises(Unavailable, match="no longer wanted"):
            worker.result(10)
