"""Hidden items: category, taste vector, quality and how it moves, and when each is born.

World time is in seconds, 0 = the end of day 0. Items are numbered by birth:

- ``config.items`` exist at time 0. The last ``births_per_s x session_s x sessions`` of them were born during
  the sessions of day 0, the others in the 30 days before it.
- From time 0 on one is born every ``1 / births_per_s`` seconds (jittered inside that interval).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from loadgen.world_config import WorldConfig
from loadgen.world_random import BLOCK, Stream, generator, unit
from services.contract.ids import hash_key

HISTORY_S = 30 * 86_400.0
QUALITY_SIGMA = 0.8
# A newborn is better than the average of the old: somebody thought it worth making.
NEWBORN_QUALITY = 0.4
WAVE_AMPLITUDE = 0.6
WAVE_PERIOD_S = (120.0, 480.0)
# Share of an item's taste vector that its category explains.
CATEGORY_SHARE = 0.75


def item_key(index: int) -> str:
    """The string key of an item."""
    return f"item-{index:07d}"


class HiddenItems:
    """Columns over all items drawn so far; ``ensure`` draws more. Column arrays are replaced when it does."""

    def __init__(self, config: WorldConfig, centroids: NDArray[np.float32]) -> None:
        self._config = config
        self._centroids = centroids
        self.category = np.zeros(0, np.uint8)
        self.vector = np.zeros((0, centroids.shape[1]), np.float32)
        self.quality = np.zeros(0, np.float32)
        self.wave_amplitude = np.zeros(0, np.float32)
        self.wave_per_s = np.zeros(0, np.float32)
        self.wave_phase = np.zeros(0, np.float32)
        self.born_s = np.zeros(0, np.float64)
        self.ids = np.zeros(0, np.uint64)
        self.index_of: dict[int, int] = {}
        self.ensure(config.items)

    def __len__(self) -> int:
        return len(self.ids)

    def ensure(self, count: int) -> None:
        """Makes the first ``count`` items (and some more) available."""
        while len(self) < count:
            self._draw(len(self) // BLOCK)

    def born_until(self, t_s: float) -> int:
        """How many items exist at time ``t_s`` of births."""
        after = max(0, int(t_s * self._config.births_per_s) + 2) if t_s > 0 else 0
        self.ensure(self._config.items + after)
        return int(np.searchsorted(self.born_s, t_s, side="right"))

    def _draw(self, block: int) -> None:
        config = self._config
        rng = generator(config.seed, Stream.ITEMS, block)
        index = np.arange(block * BLOCK, (block + 1) * BLOCK)
        jitter = rng.random(BLOCK)
        born_s = self._births(index, jitter)
        category = rng.choice(len(self._centroids), BLOCK, p=config.category_shares())
        noise = unit(rng.normal(size=(BLOCK, self._centroids.shape[1])))
        own = np.sqrt(1 - CATEGORY_SHARE**2)
        vector = CATEGORY_SHARE * self._centroids[category] + own * noise
        quality = rng.normal(0, QUALITY_SIGMA, BLOCK)
        quality += NEWBORN_QUALITY * (index >= config.items_before_day0)
        period = rng.uniform(*WAVE_PERIOD_S, BLOCK)
        ids = [hash_key(item_key(i)) for i in index.tolist()]
        self.category = np.append(self.category, (category + 1).astype(np.uint8))
        self.vector = np.concatenate([self.vector, unit(vector).astype(np.float32)])
        self.quality = np.append(self.quality, quality.astype(np.float32))
        amplitude = WAVE_AMPLITUDE * np.abs(rng.normal(size=BLOCK))
        self.wave_amplitude = np.append(self.wave_amplitude, amplitude.astype(np.float32))
        self.wave_per_s = np.append(self.wave_per_s, (2 * np.pi / period).astype(np.float32))
        self.wave_phase = np.append(self.wave_phase, rng.uniform(0, 2 * np.pi, BLOCK).astype(np.float32))
        self.born_s = np.append(self.born_s, born_s)
        self.ids = np.append(self.ids, np.array(ids, np.uint64))
        self.index_of.update(zip(ids, index.tolist(), strict=True))

    def _births(self, index: NDArray[np.int64], jitter: NDArray[np.float64]) -> NDArray[np.float64]:
        config = self._config
        old, per_session = config.items_before_day0, config.births_per_session
        history = config.day0_start_s - HISTORY_S * (1 - (index + jitter) / max(old, 1))
        nth = np.maximum(index - old, 0)
        session = np.minimum(nth // max(per_session, 1), config.sessions - 1)
        inside = (nth - session * per_session + jitter) / config.births_per_s
        day0 = config.session_start_s(session) + inside
        after = (index - config.items + jitter) / config.births_per_s
        return np.where(index < old, history, np.where(index < config.items, day0, after))
