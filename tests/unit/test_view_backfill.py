"""What the fold and the backfill tell each other about a view that joins a running loop."""

from __future__ import annotations

import pytest

from services.contract.errors import MalformedRecord
from services.contract.feature_events import owner
from services.contract.topics import FEATURE_EVENTS, entity_key, partition_of
from services.contract.view_backfill import ViewStart, start_key
from services.contract.views_world import WORLD_VIEWS

VIEW = WORLD_VIEWS[0]
START = ViewStart(VIEW.definition_hash, 17, {"impressions/3": 5 * 1024 + 2, "actions/0": -1})


def test_a_start_is_read_as_it_was_written_beside_the_folds_own_fields():
    assert ViewStart.parse(START.fields() | {b"replayed": b"18"}) == START
    filled = ViewStart.parse(START.fields() | {b"filled": b"9"})
    assert filled is not None and filled.filled == 9
    assert ViewStart.parse({}) is None
    START.check(VIEW)
    assert START.cut() == {"impressions/3": 5 * 1024 + 3, "actions/0": 0}
    assert start_key(VIEW, 2) == b"p:view:2:user_activity.1"


@pytest.mark.parametrize(
    ("field", "value"),
    [(b"definition", b"12"), (b"offset", b"x"), (b"filled", b""), (b"actions/0", b"1.5")],
)
def test_a_bad_field_of_a_start_is_named(field, value):
    with pytest.raises(MalformedRecord, match=field.decode()):
        ViewStart.parse(START.fields() | {field: value})


def test_a_start_of_another_definition_is_refused():
    with pytest.raises(MalformedRecord, match="definition"):
        START.check(WORLD_VIEWS[1])


def test_a_pair_belongs_to_its_users_partition():
    user = entity_key(77)
    assert owner(user + entity_key(5)) == owner(user) == partition_of(user, FEATURE_EVENTS.partitions)
