"""Every Redis key: what it holds, who writes it, how long it lives.

| key | value | written by | read by | TTL |
|---|---|---|---|---|
| ``f:<view>.<version>:<entity>`` | packed ViewState (contract.view_state) | feature_pipeline, loadgen seed | feature, recall | view_ttl.ttl_s of the view |
| ``r:pop:<hop>`` | sorted set item id -> clicks in that hop of event time | feature_pipeline, loadgen seed | recall | POPULAR_TTL_S |
| ``r:co:<id>`` | sorted set of items clicked with this one -> how many times | feature_pipeline, loadgen seed | recall | ENTITY_TTL_S |
| ``p:mark:<partition>`` | hash ``origin topic/partition`` -> origin sequence folded last; ``offset`` -> next offset to fold | feature_pipeline, loadgen seed (of its own log) | feature_pipeline | none |
| ``p:view:<partition>:<view>.<version>`` | hash: where an added view stands (contract.view_backfill); ``live``: it is folded with the others | feature_pipeline; ``filled``: lake backfill-view | feature_pipeline, lake | none |
| ``p:owner:<partition>`` | random token of the replica that may write this feature-events partition | feature_pipeline | feature_pipeline | none |
| ``p:passed:<barrier id>`` | set of ``partition:origin topic/partition`` that have passed a barrier | feature_pipeline | feature_pipeline | PASSED_TTL_S |
| ``p:barrier`` | hash barrier id -> wall time (us) at which the features held everything before it | feature_pipeline | feature | none (last BARRIERS_KEPT kept) |

``p:barrier`` is also a channel: the barrier id is published there when its field is written.
A seed writes Redis before it writes the catalogue: the fold then finds the seeded values.

<id> is the id's 8 bytes, little-endian, raw; <entity> those of a view's key fields, one after the other. Members of the sorted sets are the same 8 bytes.
"""

# ruff: noqa: E501 - a table row is one line
from __future__ import annotations

from services.contract.feature_view import FeatureView

ENTITY_TTL_S = 30 * 86_400
POPULAR_HOP_US = 10 * 60 * 1_000_000
POPULAR_HOPS = 12
POPULAR_TTL_S = 4 * 3_600
CO_CLICK_KEEP = 100
BARRIERS_KEPT = 100
PASSED_TTL_S = 3_600

_CO_CLICK = b"r:co:"


def view_prefix(view: FeatureView) -> bytes:
    """What the keys of a view's states begin with; readable, for those who look into Redis."""
    return b"f:%s.%d:" % (view.name.encode(), view.version)


def view_key(view: FeatureView, entity: bytes) -> bytes:
    """Key of an entity's packed state under a view (``FeatureView.entity`` gives the bytes)."""
    return view_prefix(view) + entity


def co_click_key(item_id: int) -> bytes:
    """Key of the items clicked together with an item."""
    return _CO_CLICK + item_id.to_bytes(8, "little")


def popular_hop(event_us: int) -> int:
    """Which hop of event time a click falls into."""
    return event_us // POPULAR_HOP_US


def popular_key(hop: int) -> bytes:
    """Key of the clicks of one hop."""
    return b"r:pop:%d" % hop


def mark_key(partition: int) -> bytes:
    """Key of the fold marks of one feature-events partition."""
    return b"p:mark:%d" % partition


MARK_OFFSET = b"offset"


def owner_key(partition: int) -> bytes:
    """Key of the token of the replica that owns one feature-events partition."""
    return b"p:owner:%d" % partition


def passed_key(barrier_id: str) -> bytes:
    """Key of the partitions that have passed a barrier."""
    return b"p:passed:" + barrier_id.encode()


BARRIER_KEY = b"p:barrier"
BARRIER_CHANNEL = b"p:barrier"
