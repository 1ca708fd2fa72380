"""Randomness by counter: what is drawn depends on (seed, stream, block) only, never on what was drawn before.

So an item born in the second minute has the same hidden qualities in every run, whatever happened meanwhile.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np

# Entities drawn together. Part of the world: another value is another world.
BLOCK = 4096
_STREAM_SHIFT = 48


class Stream(IntEnum):
    """What a sequence of draws is for."""

    CATEGORIES = 1
    ITEMS = 2
    USERS = 3
    ACTIVITY = 4
    POPULARITY = 5
    ARRIVALS = 6
    CLICKS = 7
    LOGGING_POLICY = 8


def generator(seed: int, stream: Stream, block: int = 0) -> np.random.Generator:
    """The generator of one block of one stream."""
    return np.random.Generator(np.random.Philox(key=[seed, (int(stream) << _STREAM_SHIFT) | block]))


def unit(vectors: np.ndarray) -> np.ndarray:
    """Rows scaled to length 1."""
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
