"""What processes agree on that share nothing but a feature set's name, pinned: its hashes, and the values of
a fixed story to the last bit (they are made of IEEE + - x / alone).

They change with a view's version. To write them anew: ``python tests/contract/test_encoding_golden.py``.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from services.contract.feature_sets import FEATURE_SETS
from services.contract.features import encode
from services.contract.model_schema import shape_of
from tests.feature_kit import clicked, listed, shown, states_of

_FILE = Path(__file__).resolve().parent.parent / "golden" / "feature_encoding.json"
_BEGIN_US = 1_760_000_000_000_000
_SECOND_US = 1_000_000


def _said(name: str) -> dict[str, object]:
    features = FEATURE_SETS[name]
    user, item = 258, 2**63 + 11
    story = [listed(item, 7, _BEGIN_US - 3_600 * _SECOND_US, 1)]
    story += [shown(user, item + k % 3, 7, _BEGIN_US + 20 * k * _SECOND_US, k) for k in range(50)]
    story += [clicked(user, item, 7 if k % 3 else 2, _BEGIN_US + 80 * k * _SECOND_US, k) for k in range(12)]
    candidates = np.array([item, 1], np.uint64)
    found = encode(features, states_of(story, features), user, candidates, _BEGIN_US + 1_000 * _SECOND_US)
    return {
        "schema_hash": f"{features.schema_hash:016x}",
        "model_hash": f"{shape_of(features).model_hash:016x}",
        "user": found.user.tolist(),
        "items": found.items.tolist(),
    }


@pytest.mark.parametrize("name", FEATURE_SETS)
def test_a_set_says_what_it_said(name: str) -> None:
    assert _said(name) == json.loads(_FILE.read_text())[name]


if __name__ == "__main__":
    _FILE.write_text(json.dumps({name: _said(name) for name in FEATURE_SETS}, indent=1) + "\n")
