"""Feature columns for when the feature server cannot answer: every column at its declared default."""

from __future__ import annotations

import numpy as np

from services.contract import columns, features

_USER = columns.encode(np.array([column.default for column in features.USER_COLUMNS]), columns.F32)
_ITEM = columns.encode(np.array([column.default for column in features.ITEM_COLUMNS]), columns.F32)


def user_features() -> bytes:
    """USER_WIDTH float32 LE."""
    return _USER


def item_features(items: int) -> bytes:
    """items x ITEM_WIDTH float32 LE, row-major."""
    return _ITEM * items
