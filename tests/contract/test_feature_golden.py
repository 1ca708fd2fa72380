"""What processes agree on that have nothing but names in common: schema and model hashes, values, keys.

A change of these needs new versions of views. To write them anew after such a change:
``python tests/contract/test_feature_golden.py``.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from services.contract import redis_keys
from services.contract.feature_sets import FEATURE_SETS
from services.contract.features import encode
from services.contract.model_schema import shape_of
from tests.feature_kit import clicked, listed, shown, states_of

GOLDEN = Path(__file__).resolve().parent.parent / "golden" / "feature_encoding.json"
NOW = 1_760_000_000_000_000
USER, ITEM = 258, 2**63 + 11


def made(name: str) -> dict[str, object]:
    """Of a set: its hashes, the encoding after a fixed story, and a key."""
    features = FEATURE_SETS[name]
    events = [listed(ITEM, 7, NOW - 3_600_000_000, 1)]
    events += [shown(USER, ITEM + k % 3, 7, NOW + k * 20_000_000, k) for k in range(50)]
    events += [clicked(USER, ITEM, 7 if k % 3 else 2, NOW + k * 80_000_000, k) for k in range(12)]
    found = encode(
        features, states_of(events, features), USER, np.array([ITEM, 1], np.uint64), NOW + 1_000_000_000
    )
    view = features.catalogue
    return {
        "schema_hash": f"{features.schema_hash:016x}",
        "model_hash": f"{shape_of(features).model_hash:016x}",
        "user": [float(value) for value in found.user],
        "items": [[float(value) for value in row] for row in found.items],
        "key": redis_keys.view_key(view, ITEM.to_bytes(8, "little")).hex(),
    }


@pytest.mark.parametrize("name", FEATURE_SETS)
def test_hashes_values_and_keys_are_the_golden_ones(name: str) -> None:
    # Values to the last bit: they are made of IEEE + - x / alone.
    assert json.loads(json.dumps(made(name))) == json.loads(GOLDEN.read_text())[name]


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps({name: made(name) for name in FEATURE_SETS}, indent=1) + "\n")
