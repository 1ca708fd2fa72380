"""Open-loop arrivals: when each request is meant to be sent and by whom, fixed before the first one is.

A slow answer delays nobody: latency counts from the intended time. Poisson arrivals; a scenario's surge is
made by thinning arrivals drawn at its peak rate.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from loadgen.world import World
from loadgen.world_random import Stream, generator

SHOWN = 10


@dataclass(frozen=True)
class Plan:
    """n intended requests: seconds since the start [n] (rising), user indices [n], and the uniform draws
    that decide clicks and their delays, [n, SHOWN] each."""

    at_s: NDArray[np.float64]
    users: NDArray[np.int64]
    click_draws: NDArray[np.float32]
    delay_draws: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.at_s)


def arrival_times(rng: np.random.Generator, rate: float, duration_s: float) -> NDArray[np.float64]:
    """Poisson arrivals in [0, duration_s)."""
    expected = rate * duration_s
    count = int(expected + 8 * np.sqrt(expected) + 16)
    times = np.cumsum(rng.exponential(1 / rate, count))
    return times[times < duration_s]


def plan(world: World, rate: float, duration_s: float, start_s: float, run: int = 0) -> Plan:
    """The arrivals of one run that begins at world time ``start_s``; ``run`` numbers runs of one seed."""
    rng = generator(world.config.seed, Stream.ARRIVALS, run)
    at_s = arrival_times(rng, rate * world.scenario.peak_factor, duration_s)
    factor = np.array([world.scenario.arrivals_factor(float(at)) for at in at_s])
    at_s = at_s[rng.random(len(at_s)) * world.scenario.peak_factor < factor]
    users = world.users.choose(at_s + start_s, rng.random(len(at_s)), rng.random(len(at_s)))
    draws = generator(world.config.seed, Stream.CLICKS, run)
    shape = (len(at_s), SHOWN)
    return Plan(at_s, users, draws.random(shape, np.float32), draws.random(shape, np.float32))
