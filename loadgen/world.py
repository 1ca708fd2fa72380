"""The world: who would click on what, when, and with which probability. Seeded, and known exactly.

    logit p(u, i, t) = BASE + AFFINITY <taste_u(t), vector_i> + mood_u + quality_i(t) + trend_c(t)
                     + NOVELTY exp(-age_i / NOVELTY_S) - FATIGUE x exposures(u, i) + shocks of the scenario

- taste_u(t) turns from one mixture of categories to another, once in 20 to 60 minutes;
- quality_i(t) swings by about half a logit, within 2 to 8 minutes;
- trend_c(t), shared by all items of a category, swings by more than that, within 4 to 10 minutes: a model
  that keeps learning sees it in a minute from few clicks, a frozen one cannot;
- exposures: how often the item is among the user's last MEMORY shown items.

A click happens with probability p x examination(position): *true click probability* always means p, without
the position. Clicks come after an exponential delay, capped. Times are world seconds, 0 = the end of
day 0; everything is a function of (config, time, counters).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from loadgen.items import HiddenItems
from loadgen.scenarios import SCENARIOS, Scenario
from loadgen.users import HiddenUsers
from loadgen.world_config import WorldConfig
from loadgen.world_random import Stream, generator, unit

WIDTH = 8
BASE = -4.5
AFFINITY = 2.6
NOVELTY = 0.8
NOVELTY_S = 300.0
FATIGUE = 0.5
MAX_EXPOSURES = 4
TREND_AMPLITUDE = 0.8
TREND_PERIOD_S = (240.0, 600.0)
WAVES = 2
EXAMINATION_EXPONENT = 0.35
CLICK_DELAY_MEAN_S = 2.0
# Of the attribution window: later clicks would not be counted.
CLICK_DELAY_CAP = 0.75

Floats = NDArray[np.float32]
Times = NDArray[np.float64]
Indices = NDArray[np.int64]


class World:
    """Hidden users, items and trends of one config under one scenario that begins at ``start_s``."""

    def __init__(
        self, config: WorldConfig, scenario: Scenario = SCENARIOS["drift"], start_s: float = 0.0
    ) -> None:
        self.config = config
        self.scenario = scenario
        self.start_s = start_s
        rng = generator(config.seed, Stream.CATEGORIES)
        self.centroids = unit(rng.normal(size=(config.categories, WIDTH))).astype(np.float32)
        shape = (WAVES, config.categories + 1)
        self._trend_per_s = 2 * np.pi / rng.uniform(*TREND_PERIOD_S, shape)
        self._trend_phase = rng.uniform(0, 2 * np.pi, shape)
        self.items = HiddenItems(config, self.centroids)
        self.users = HiddenUsers(config, self.centroids)

    def trend(self, categories: NDArray[np.uint8], t_s: Times) -> Floats:
        """What is in fashion: logit shift of categories [n] at times [n or 1]."""
        angle = (
            self._trend_phase[:, categories] + self.scenario.drift * t_s * self._trend_per_s[:, categories]
        )
        return (TREND_AMPLITUDE * np.sin(angle).sum(axis=0)).astype(np.float32)

    def quality(self, items: Indices, t_s: Times) -> Floats:
        """Quality of items [n] at times [n or 1], with its wave and what novelty is left."""
        hidden = self.items
        wave = np.sin(hidden.wave_phase[items] + self.scenario.drift * t_s * hidden.wave_per_s[items])
        age = np.maximum(t_s - hidden.born_s[items], 0.0)
        novelty = NOVELTY * np.exp(-age / NOVELTY_S)
        return (hidden.quality[items] + hidden.wave_amplitude[items] * wave + novelty).astype(np.float32)

    def true_p(self, users: Indices, items: Indices, t_s: Times, exposures: NDArray | float = 0) -> Floats:
        """True click probability of items [n] for users [n or 1] at times [n or 1]."""
        taste = self.users.taste_at(users, t_s, self.scenario.drift)
        category = self.items.category[items]
        logit = BASE + AFFINITY * (taste * self.items.vector[items]).sum(axis=1)
        logit = logit + self.users.mood[users] + self.quality(items, t_s) + self.trend(category, t_s)
        logit = logit - FATIGUE * np.minimum(exposures, MAX_EXPOSURES) + self._shocks(items, category, t_s)
        return (1 / (1 + np.exp(-logit))).astype(np.float32)

    def _shocks(self, items: Indices, category: NDArray[np.uint8], t_s: Times) -> NDArray | float:
        total: NDArray | float = 0.0
        since = t_s - self.start_s
        for shock in self.scenario.shocks:
            touched = (since >= shock.from_s) & (since < shock.until_s)
            if shock.categories:
                touched = touched & np.isin(category, shock.categories)
            if shock.item >= 0:
                touched = touched & (items == shock.item)
            total = total + shock.logit_shift * touched
        return total


def examination(positions: NDArray[np.int64]) -> Floats:
    """Probability that the user looks at a zero-based position at all."""
    return ((1.0 + positions) ** -EXAMINATION_EXPONENT).astype(np.float32)


def click_delays_s(uniform: Floats, window_s: float) -> Floats:
    """Seconds from impression to click for uniform draws in [0, 1), capped inside the attribution window."""
    return np.minimum(-CLICK_DELAY_MEAN_S * np.log1p(-uniform), CLICK_DELAY_CAP * window_s).astype(np.float32)
