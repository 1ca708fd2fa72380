"""The bytes that seeds, the pipeline, the feature server and recall agree on, pinned.

A change of these bytes needs a new version in feature_layout (states) or changes SCHEMA_HASH (encoding). To
write them anew after such a change: ``python tests/contract/test_feature_golden.py``.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from services.contract import features, redis_keys
from services.contract.feature_fold import ItemState, UserState

GOLDEN = Path(__file__).resolve().parent.parent / "golden" / "feature_state.json"
NOW = 1_760_000_000_000_000


def made() -> dict[str, object]:
    """States after a fixed story, and their encoding."""
    item, user = ItemState(7, NOW - 3_600_000_000), UserState()
    for i in range(50):
        item.shown(NOW + i * 20_000_000)
        user.shown(NOW + i * 20_000_000, [7, i % 64, 3])
    for i in range(12):
        item.clicked(NOW + i * 80_000_000)
        user.clicked(NOW + i * 80_000_000, 1000 + i, 2**63 + i, 7 if i % 3 else 2)
    row, rows, missing = features.encode(
        user.pack(),
        [item.pack(), None],
        NOW + 1_000_000_000,
        0.25,
        np.array([2**63 + 11, 1], np.uint64),
    )
    return {
        "item": item.pack().hex(),
        "user": user.pack().hex(),
        "schema_hash": f"{features.SCHEMA_HASH:016x}",
        "user_features": [round(float(value), 5) for value in row],
        "item_features": [[round(float(value), 5) for value in each] for each in rows],
        "missing": missing.tolist(),
        "keys": [
            redis_keys.item_key(258).hex(),
            redis_keys.user_key(258).hex(),
            redis_keys.co_click_key(258).hex(),
            redis_keys.popular_key(5).hex(),
        ],
    }


def test_states_encoding_and_keys_are_the_golden_ones() -> None:
    golden, now = json.loads(GOLDEN.read_text()), made()
    for name in ("item", "user", "schema_hash", "missing", "keys"):
        assert now[name] == golden[name], name
    for name in ("user_features", "item_features"):
        assert np.array(now[name]) == pytest.approx(np.array(golden[name]), abs=2e-5), name


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(made(), indent=1) + "\n")
