"""The world: who would click on what, when, and with which probability. Seeded, and known exactly.

    logit p(u, i, t) = BASE + AFFINITY <taste_u(t), vector_i> + mood_u + quality_i(t) + trend_c(t)
                     + NOVELTY exp(-age_i / NOVELTY_S) - FATIGUE x exposures(u, i) + shifts of the scenarios

- taste_u(t) turns from one mixture of categories to another, once in 20 to 60 minutes;
- quality_i(t) swings by about half a logit, within 2 to 8 minutes;
- trend_c(t), shared by all items of a category, swings by more than that, within 4 to 10 minutes: a model
  that keeps learning sees it in a minute from few clicks, a frozen one cannot;
- exposures: how often the item is among the user's last MEMORY shown items;
- shifts, and how fast tastes turn and items and users are born, depend on the scenarios that are on.

A bot is no such user: it clicks on every shown item of less than average quality, at any position.

A click happens with probability p x examination(position): *true click probability* always means p, without
the position. Clicks come after an exponential delay, capped. Times are world seconds, 0 = the end of
day 0; everything is a function of (config, timeline, time, counters).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from loadgen.items import HiddenItems
from loadgen.timeline import Timeline
from loadgen.users import NEWCOMER_SHARE, HiddenUsers
from loadgen.world_config import WorldConfig
from loadgen.world_random import Stream, generator, unit
from services.contract.ids import hash_key

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
# Accounts that bots share: each visits often.
BOTS = 50
# Of the attribution window: later clicks would not be counted.
CLICK_DELAY_CAP = 0.75

Floats = NDArray[np.float32]
Times = NDArray[np.float64]
Indices = NDArray[np.int64]


class World:
    """Hidden users, items and trends of one config. ``drift`` scales all movement of tastes, trends and
    qualities (0 = a world that stands still; items and users are born all the same).
    """

    def __init__(self, config: WorldConfig, drift: float = 1.0) -> None:
        self.config = config
        self.drift = drift
        rng = generator(config.seed, Stream.CATEGORIES)
        self.centroids = unit(rng.normal(size=(config.categories, WIDTH))).astype(np.float32)
        shape = (WAVES, config.categories + 1)
        self._trend_per_s = 2 * np.pi / rng.uniform(*TREND_PERIOD_S, shape)
        self._trend_phase = rng.uniform(0, 2 * np.pi, shape)
        self.items = HiddenItems(config, self.centroids)
        self.users = HiddenUsers(config, self.centroids)
        self.begin(Timeline())

    def begin(self, timeline: Timeline) -> None:
        """What happens from now on; nothing has been asked about that time yet."""
        self.timeline = timeline
        self._set_paces()

    def switch(self, name: str, on: bool, now_s: float) -> bool:
        """Begins or ends a scenario at a world time that nothing has been asked about yet; whether that
        changed anything. InvalidInput: an unknown name."""
        changed = self.timeline.switch(name, on, now_s)
        self._set_paces()
        return changed

    def _set_paces(self) -> None:
        self._tastes = self.timeline.pace(self.drift, lambda one: one.taste_speed)
        self._item_births = self.timeline.pace(1.0, lambda one: one.item_births)
        self._user_births = self.timeline.pace(1.0, lambda one: one.user_births)

    def born_until(self, t_s: float) -> int:
        """How many items exist at world time ``t_s``."""
        return self.items.born_until(float(self._item_births.own(np.array(t_s))))

    def born_s(self, items: Indices) -> Times:
        """World times at which items [n] are born."""
        return self._item_births.world(self.items.born_s[items])

    def users_born_until(self, t_s: float) -> int:
        """How many users exist at world time ``t_s``."""
        return self.users.born_until(float(self._user_births.own(np.array(t_s))))

    def visitor(self, t_s: float, draws: NDArray[np.float64]) -> int:
        """Who comes at a moment, for three uniform draws in [0, 1): a user, or below 0 a bot (``~index``)."""
        which, newcomer, bot = draws.tolist()
        on = self.timeline.on_at(t_s)
        if bot < sum(one.bot_share for one in on):
            return ~int(which * BOTS)
        share = NEWCOMER_SHARE + sum(one.newcomer_share for one in on)
        own_s = self._user_births.own(np.array([t_s]))
        return int(self.users.choose(own_s, np.array([which]), np.array([newcomer]), share)[0])

    def visitor_id(self, visitor: int) -> int:
        """The 64-bit id of a user or a bot."""
        return int(self.users.ids[visitor]) if visitor >= 0 else hash_key(f"bot-{~visitor:04d}")

    def bot_clicks(self, items: Indices) -> Floats:
        """Which of items [n] a bot clicks on: 1 or 0."""
        return (self.items.quality[items] < 0).astype(np.float32)

    def taste(self, users: Indices, t_s: Times) -> Floats:
        """Taste vectors [n, WIDTH] of users [n] at times [n or 1]."""
        return self.users.taste_at(users, self._tastes.own(t_s))

    def trend(self, categories: NDArray[np.uint8], t_s: Times) -> Floats:
        """What is in fashion: logit shift of categories [n] at times [n or 1]."""
        angle = self._trend_phase[:, categories] + self.drift * t_s * self._trend_per_s[:, categories]
        return (TREND_AMPLITUDE * np.sin(angle).sum(axis=0)).astype(np.float32)

    def quality(self, items: Indices, t_s: Times) -> Floats:
        """Quality of items [n] at times [n or 1], with its wave and what novelty is left."""
        hidden = self.items
        wave = np.sin(hidden.wave_phase[items] + self.drift * t_s * hidden.wave_per_s[items])
        age = np.maximum(t_s - self.born_s(items), 0.0)
        novelty = NOVELTY * np.exp(-age / NOVELTY_S)
        return (hidden.quality[items] + hidden.wave_amplitude[items] * wave + novelty).astype(np.float32)

    def true_p(self, users: Indices, items: Indices, t_s: Times, exposures: NDArray | float = 0) -> Floats:
        """True click probability of items [n] for users [n or 1] at times [n or 1]."""
        taste = self.taste(users, t_s)
        category = self.items.category[items]
        logit = BASE + AFFINITY * (taste * self.items.vector[items]).sum(axis=1)
        logit = logit + self.users.mood[users] + self.quality(items, t_s) + self.trend(category, t_s)
        logit = logit - FATIGUE * np.minimum(exposures, MAX_EXPOSURES)
        logit = logit + self.timeline.shifts(items, category, t_s)
        return (1 / (1 + np.exp(-logit))).astype(np.float32)


def examination(positions: NDArray[np.int64]) -> Floats:
    """Probability that the user looks at a zero-based position at all."""
    return ((1.0 + positions) ** -EXAMINATION_EXPONENT).astype(np.float32)


def click_delays_s(uniform: Floats, window_s: float) -> Floats:
    """Seconds from impression to click for uniform draws in [0, 1), capped inside the attribution window."""
    return np.minimum(-CLICK_DELAY_MEAN_S * np.log1p(-uniform), CLICK_DELAY_CAP * window_s).astype(np.float32)
