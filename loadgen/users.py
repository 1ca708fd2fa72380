"""Hidden users: a taste that turns slowly from one mixture of categories to another, and how active each is.

``config.users`` exist from the beginning; from world time 0 on one more is born every
``1 / user_births_per_s`` seconds. Activity is Zipf over a random order of the users.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from loadgen.world_config import WorldConfig
from loadgen.world_random import BLOCK, Stream, generator, unit
from services.contract.ids import hash_key

ZIPF_EXPONENT = 0.9
# Flattens the head: the most active user makes about a thousandth of the requests.
ZIPF_OFFSET = 30
LIKED_CATEGORIES = 3
OWN_TASTE = 0.5
TURN_PERIOD_S = (1_200.0, 3_600.0)
MOOD_SIGMA = 0.3
# A share of the requests comes from the latest newcomers: people who have just found the place look around.
NEWCOMER_SHARE = 0.05
NEWCOMERS = 50


def user_key(index: int) -> str:
    """The string key of a user."""
    return f"user-{index:07d}"


class HiddenUsers:
    """Columns over all users drawn so far; ``ensure`` draws more."""

    def __init__(self, config: WorldConfig, centroids: NDArray[np.float32]) -> None:
        self._config = config
        self._centroids = centroids
        width = centroids.shape[1]
        self.taste = np.zeros((0, width), np.float32)
        self.other_taste = np.zeros((0, width), np.float32)
        self.turn_per_s = np.zeros(0, np.float32)
        self.turn_phase = np.zeros(0, np.float32)
        self.mood = np.zeros(0, np.float32)
        self.ids = np.zeros(0, np.uint64)
        self.ensure(config.users)
        self._activity = self._cumulated_activity()

    def __len__(self) -> int:
        return len(self.ids)

    def ensure(self, count: int) -> None:
        """Makes the first ``count`` users (and some more) available."""
        while len(self) < count:
            self._draw(len(self) // BLOCK)

    def born_until(self, t_s: float) -> int:
        """How many users exist at time ``t_s`` of births."""
        return self._config.users + max(0, int(t_s * self._config.user_births_per_s))

    def choose(
        self,
        t_s: NDArray[np.float64],
        draw: NDArray[np.float64],
        newcomer: NDArray[np.float64],
        share: float = NEWCOMER_SHARE,
    ) -> NDArray[np.int64]:
        """Who comes at each moment (of births); ``draw`` and ``newcomer`` are uniform in [0, 1), all [n];
        ``share`` of them are newcomers."""
        chosen = np.searchsorted(self._activity, draw, side="right")
        born = np.array([self.born_until(float(t)) for t in t_s], np.int64) - self._config.users
        recent = np.minimum(born, NEWCOMERS)
        is_new = (newcomer < share) & (recent > 0)
        back = 1 + (newcomer / share * recent).astype(np.int64)
        chosen = np.where(is_new, self._config.users + born - np.minimum(back, np.maximum(recent, 1)), chosen)
        self.ensure(int(chosen.max(initial=0)) + 1)
        return chosen

    def taste_at(self, users: NDArray[np.int64], t_s: NDArray[np.float64]) -> NDArray[np.float32]:
        """Taste vectors [n, width] of users [n] at times [n or 1] of tastes."""
        angle = self.turn_phase[users] + t_s * self.turn_per_s[users]
        turned = np.cos(angle)[:, None] * self.taste[users] + np.sin(angle)[:, None] * self.other_taste[users]
        return turned.astype(np.float32)

    def _draw(self, block: int) -> None:
        rng = generator(self._config.seed, Stream.USERS, block)
        self.taste = np.concatenate([self.taste, self._tastes(rng)])
        self.other_taste = np.concatenate([self.other_taste, self._tastes(rng)])
        period = rng.uniform(*TURN_PERIOD_S, BLOCK)
        self.turn_per_s = np.append(self.turn_per_s, (2 * np.pi / period).astype(np.float32))
        self.turn_phase = np.append(self.turn_phase, rng.uniform(0, 2 * np.pi, BLOCK).astype(np.float32))
        self.mood = np.append(self.mood, rng.normal(0, MOOD_SIGMA, BLOCK).astype(np.float32))
        index = range(block * BLOCK, (block + 1) * BLOCK)
        ids = np.array([hash_key(user_key(i)) for i in index], np.uint64)
        self.ids = np.append(self.ids, ids)

    def _tastes(self, rng: np.random.Generator) -> NDArray[np.float32]:
        liked = rng.integers(0, len(self._centroids), (BLOCK, LIKED_CATEGORIES))
        weight = rng.dirichlet(np.ones(LIKED_CATEGORIES), BLOCK)
        mixed = unit((self._centroids[liked] * weight[:, :, None]).sum(axis=1) + 1e-6)
        own = unit(rng.normal(size=(BLOCK, self._centroids.shape[1])))
        return unit(mixed + OWN_TASTE * own).astype(np.float32)

    def _cumulated_activity(self) -> NDArray[np.float64]:
        rng = generator(self._config.seed, Stream.ACTIVITY)
        rank = rng.permutation(self._config.users)
        weight = (rank + ZIPF_OFFSET) ** -ZIPF_EXPONENT
        cumulated = np.cumsum(weight)
        return cumulated / cumulated[-1]
