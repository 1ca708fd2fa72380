"""Memory of the join by measurement and as a formula.

At a steady state of x requests a second the join holds, with a window W, a disorder bound B and a time D from
request to impression (all in seconds of event time):

- x D snapshots that wait for their impression, whole;
- x (W + B) requests whose window is open: the shown rows, and what is remembered of the three records;
- x 2 B requests whose window has closed and whose ids are still remembered.

    bytes = base + x (D waiting + (W + B) open + 2 B closed)

The four numbers are fitted to small runs in which these counts differ, and checked by a run at the full
window. A snapshot that nobody shows waits for W + 3 B instead of D.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np
import psutil

from local import compiled
from local.paths import REPOSITORY

# What is asked: memory at a window of ten minutes for a thousand requests a second.
WINDOW_S, RATE_PER_S = 600.0, 1_000.0
# The big run is made at the largest of these rates at which it is predicted to take less than this.
RATES_PER_S = (RATE_PER_S, 500.0, 200.0, 100.0)
MOST_BYTES = 8e9
MOST_OF_FREE = 0.7
PROBE_TIMEOUT_S = 1_800.0


@dataclass(frozen=True)
class Shape:
    """Traffic and rules of a run."""

    window_s: float
    bound_s: float
    rate_per_s: float
    shown_after_s: float = 0.5

    @property
    def full_after_s(self) -> float:
        """Event time after which nothing more is added without something leaving."""
        return self.window_s + 3 * self.bound_s + self.shown_after_s + 5.0


class State(NamedTuple):
    """What a run ended with. ``open``, ``closed``: requests; ``waiting``: snapshots."""

    rss_bytes: float
    open: float
    closed: float
    waiting: float
    held_events: int
    held_bytes: int


class Formula(NamedTuple):
    """Bytes of the process without state, and of each thing held."""

    base: float
    open: float
    closed: float
    waiting: float

    def predict(self, shape: Shape) -> float:
        """Resident bytes at the steady state."""
        each = self.waiting * shape.shown_after_s
        each += self.open * (shape.window_s + shape.bound_s) + self.closed * 2 * shape.bound_s
        return self.base + shape.rate_per_s * each


# In each another count is large.
SMALL = (
    Shape(10.0, 1.0, 1_000.0),
    Shape(50.0, 1.0, 1_000.0),
    Shape(10.0, 20.0, 1_000.0),
    Shape(30.0, 10.0, 1_000.0),
    Shape(20.0, 1.0, 1_000.0, shown_after_s=15.0),
)


def fit(states: Sequence[State]) -> Formula:
    """Least squares over runs; at least as many as there are unknowns."""
    counts = np.array([[1.0, s.open, s.closed, s.waiting] for s in states])
    solved, _, rank, _ = np.linalg.lstsq(counts, np.array([s.rss_bytes for s in states]), rcond=None)
    if rank < len(Formula._fields):
        raise ValueError(f"runs={len(states)}: {len(Formula._fields)} of different composition are needed")
    return Formula(*map(float, solved))


def affordable(formula: Formula, window_s: float, bound_s: float, free_bytes: float) -> Shape:
    """The big run at the largest rate whose memory is there."""
    most = min(MOST_BYTES, MOST_OF_FREE * free_bytes)
    shapes = [Shape(window_s, bound_s, rate) for rate in RATES_PER_S]
    return next((shape for shape in shapes if formula.predict(shape) < most), shapes[-1])


def probe(shape: Shape) -> State:
    """Measures in a process of its own, which joins with the code that the joiner runs."""
    path = os.pathsep.join((str(compiled.home()), str(REPOSITORY)))
    done = subprocess.run(
        [sys.executable, "-P", "-m", "benchmarks.join_memory_probe", json.dumps(asdict(shape))],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=PROBE_TIMEOUT_S,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"memory of {shape}: {done.stderr[-2000:]}")
    return State(**json.loads(done.stdout))


def measure(bound_s: float) -> dict[str, object]:
    """Fits, predicts, measures; the ``memory`` of out/bench-join.json."""
    formula = fit([probe(shape) for shape in SMALL])
    shape = affordable(formula, WINDOW_S, bound_s, psutil.virtual_memory().available)
    state = probe(shape)
    asked = Shape(WINDOW_S, bound_s, RATE_PER_S)
    predicted = formula.predict(shape)
    return {
        "formula": "bytes = base + x (D waiting + (W + B) open + 2 B closed)",
        "bytes": formula._asdict(),
        "window_s": WINDOW_S,
        "bound_s": bound_s,
        "requests_per_s": RATE_PER_S,
        "predicted_mb": formula.predict(asked) / 1e6,
        "measured": {
            "requests_per_s": shape.rate_per_s,
            "rss_mb": state.rss_bytes / 1e6,
            "predicted_mb": predicted / 1e6,
            "error": predicted / state.rss_bytes - 1,
            "held_events": state.held_events,
            "payload_mb": state.held_bytes / 1e6,
        },
    }
