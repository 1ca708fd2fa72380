"""What was shown on day 0, before there was a model: popular, liked-category, random and new items, mixed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from loadgen.arrivals import SHOWN
from loadgen.world import Floats, Indices, Times, World
from loadgen.world_random import Stream, generator

# Shares of the slots; the rest is random.
POPULAR, LIKED, NEW = 0.35, 0.35, 0.10
POPULARITY_EXPONENT = 0.8
# How well the old system knew what is good, and what a user likes.
POPULARITY_NOISE = 0.7
LIKING_SHARPNESS = 4.0
NEW_ITEMS = 300
# Drawn per list, so that SHOWN distinct ones are nearly always among them.
DRAWN = 2 * SHOWN


class LoggingPolicy:
    """Chooses lists of SHOWN distinct items; popularity is Zipf over a noisy order of quality."""

    def __init__(self, world: World) -> None:
        self._world = world
        existing = world.config.items
        rng = generator(world.config.seed, Stream.POPULARITY)
        quality = world.items.quality[:existing] + rng.normal(0, POPULARITY_NOISE, existing)
        rank = np.empty(existing, np.int64)
        rank[np.argsort(-quality, kind="stable")] = np.arange(existing)
        weight = (rank + 1.0) ** -POPULARITY_EXPONENT
        self._cumulated = np.cumsum(weight) / weight.sum()
        category = world.items.category[:existing]
        self._by_category = np.argsort(category, kind="stable")
        self._category_cumulated = np.cumsum(weight[self._by_category])
        ends = np.searchsorted(category[self._by_category], np.arange(1, world.config.categories + 2))
        before = np.concatenate([[0.0], self._category_cumulated])[ends]
        self._category_from, self._category_to = before[:-1], before[1:]

    def choose(self, rng: np.random.Generator, users: Indices, t_s: Times, born: int) -> Indices:
        """Lists [n, SHOWN] for users [n] at times [n], of the first ``born`` items."""
        shape = (len(users), DRAWN)
        draw = rng.random(shape)
        kind = rng.random(shape)
        popular = np.searchsorted(self._cumulated, draw)
        newest = born - 1 - (draw * min(NEW_ITEMS, born)).astype(np.int64)
        anything = (draw * born).astype(np.int64)
        liked = self._liked(rng, users, t_s, draw)
        chosen = np.select(
            [kind < POPULAR, kind < POPULAR + LIKED, kind < POPULAR + LIKED + NEW],
            [popular, liked, newest],
            anything,
        )
        # The popular lists know items before their birth; the day does not.
        chosen = np.where(chosen < born, chosen, anything)
        return first_distinct(chosen, SHOWN)

    def _liked(
        self, rng: np.random.Generator, users: Indices, t_s: Times, draw: NDArray[np.float64]
    ) -> Indices:
        taste = self._world.taste(users, t_s)
        liking: Floats = np.exp(LIKING_SHARPNESS * taste @ self._world.centroids.T)
        cumulated = np.cumsum(liking, axis=1)
        at = rng.random(draw.shape) * cumulated[:, -1:]
        category = (at[:, :, None] > cumulated[:, None, :]).sum(axis=2)
        low, high = self._category_from[category], self._category_to[category]
        place = np.searchsorted(self._category_cumulated, low + draw * (high - low), side="right")
        return self._by_category[np.minimum(place, len(self._by_category) - 1)]


def first_distinct(drawn: Indices, count: int) -> Indices:
    """The first ``count`` distinct values of each row; a row that has fewer gets the next higher integers."""
    repeated = np.zeros(drawn.shape, bool)
    for column in range(1, drawn.shape[1]):
        repeated[:, column] = (drawn[:, :column] == drawn[:, column : column + 1]).any(axis=1)
    order = np.argsort(repeated, axis=1, kind="stable")
    kept = np.take_along_axis(drawn, order, axis=1)[:, :count]
    short = np.take_along_axis(repeated, order, axis=1)[:, count - 1]
    for row in np.flatnonzero(short):
        seen = dict.fromkeys(drawn[row].tolist())
        fill = max(seen) - len(seen)
        while len(seen) < count:
            fill = fill - 1 if fill > 0 else max(seen) + 1
            seen.setdefault(fill)
        kept[row] = list(seen)[:count]
    return kept
