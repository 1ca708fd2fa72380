"""Feature columns for when the feature server cannot answer: every column at its declared default."""

from __future__ import annotations

from services.contract import columns
from services.contract.view_registry import FeatureSet


class Defaults:
    """Of one feature set."""

    def __init__(self, feature_set: FeatureSet) -> None:
        # user_width float32 LE.
        self.user_features = columns.encode(feature_set.user_defaults, columns.F32)
        self._item = columns.encode(feature_set.item_defaults, columns.F32)

    def item_features(self, items: int) -> bytes:
        """items x item_width float32 LE, row-major."""
        return self._item * items
