"""Which rows an audit of states asks for, and what it calls a difference."""

from __future__ import annotations

import numpy as np
from lake_kit import Loop

from local.backfill.view import USER_LATELY
from services.contract.feature_sets import FEATURE_SETS
from services.contract.lake_store import LakeStore
from services.contract.view_events import SHOWN
from services.contract.view_values import Values
from services.lake.state_audit import chosen_rows, compared
from services.lake.view_log import LakeEvents


def values(rows: list[list[float]], missing: list[int]) -> Values:
    return Values(np.array(rows, np.float32), np.array(missing, np.uint8))


def test_a_row_is_equal_or_wrong_in_one_way() -> None:
    nothing, some, other = (
        [0.0, 0.0, 0.0],
        [0.5, 0.0, 1.0],
        [0.5, 0.0, np.nextafter(np.float32(1), np.float32(2))],
    )
    log_says = values([some, some, some, nothing, nothing, nothing], [0, 0, 0, 1, 1, 1])
    online = values([some, other, nothing, nothing, some, some], [0, 0, 1, 1, 0, 1])
    found = compared(USER_LATELY, online, log_says)
    # Equal; one bit of one column; no state; nobody; a state of nothing; values where neither knows anything.
    assert (found.rows, found.mismatches, found.missing, found.extra, found.wrong) == (6, 2, 1, 1, 4)
    assert found.rows_not_default == 3
    assert found.columns["ctr_5m"] == {"not_default": 3, "differ": 4}
    assert found.columns["seen_category"] == {"not_default": 0, "differ": 0}


def test_a_missing_state_that_would_have_said_the_default_counts_too() -> None:
    nothing = [0.0, 0.0, 0.0]
    found = compared(USER_LATELY, values([nothing, nothing], [1, 0]), values([nothing, nothing], [0, 1]))
    assert (found.mismatches, found.missing, found.extra) == (0, 1, 1)


def test_the_rows_are_pairs_that_were_shown_and_others_at_moments_behind_the_log(tmp_path) -> None:
    root = Loop(FEATURE_SETS["world"]).run(60).write(tmp_path / "lake")
    log = LakeEvents(LakeStore(root), 10**6).read()
    from_us = int(log.occurred_us.max()) + 1
    rows = chosen_rows(log, 5_000, from_us, 3)
    again = chosen_rows(log, 5_000, from_us, 3)
    assert (rows.at_us == again.at_us).all() and (rows.fields["item_id"] == again.fields["item_id"]).all()
    assert rows.at_us.min() >= from_us and rows.at_us.max() > from_us + 10 * 60_000_000
    shown = log.kind == SHOWN.code
    pairs = set(zip(log.field("user_id")[shown].tolist(), log.field("item_id")[shown].tolist(), strict=True))
    asked = list(zip(rows.fields["user_id"].tolist(), rows.fields["item_id"].tolist(), strict=True))
    users = {user for user, _ in pairs}
    assert 0.4 < sum(pair in pairs for pair in asked) / len(asked) < 0.9
    assert 0.02 < sum(user not in users for user, _ in asked) / len(asked) < 0.1
    assert len(set(zip(rows.fields["user_id"].tolist(), rows.at_us.tolist(), strict=True))) > 4_500
