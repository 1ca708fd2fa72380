"""Every Redis key: what it holds, who writes it, how long it lives.

| key | value | written by | read by | TTL |
|---|---|---|---|---|
| ``f:i:<id>`` | packed ItemState (contract.feature_fold) | feature_pipeline, loadgen seed | feature | ENTITY_TTL_S |
| ``f:u:<id>`` | packed UserState | feature_pipeline, loadgen seed | feature, recall | ENTITY_TTL_S |
| ``r:pop:<hop>`` | sorted set item id -> clicks in that hop of event time | feature_pipeline, loadgen seed | recall | POPULAR_TTL_S |
| ``r:co:<id>`` | sorted set of items clicked with this one -> times | feature_pipeline, loadgen seed | recall | ENTITY_TTL_S |
| ``p:mark:<partition>`` | hash ``origin topic/partition`` -> origin sequence folded last | feature_pipeline | feature_pipeline | none |
| ``p:barrier`` | hash barrier id -> wall time (us) at which the features held everything before it | feature_pipeline | feature | none (last 100 kept) |

<id> is the id's 8 bytes, little-endian, raw. Members of the sorted sets are the same 8 bytes.
"""

from __future__ import annotations

ENTITY_TTL_S = 30 * 86_400
POPULAR_HOP_US = 10 * 60 * 1_000_000
POPULAR_HOPS = 12
POPULAR_TTL_S = 4 * 3_600
CO_CLICK_KEEP = 100

_ITEM = b"f:i:"
_USER = b"f:u:"
_CO_CLICK = b"r:co:"


def item_key(item_id: int) -> bytes:
    """Key of an item's packed features."""
    return _ITEM + item_id.to_bytes(8, "little")


def item_keys(item_ids_le: bytes) -> list[bytes]:
    """Keys of a whole column of item ids (n x uint64 LE)."""
    return [_ITEM + item_ids_le[start : start + 8] for start in range(0, len(item_ids_le), 8)]


def user_key(user_id: int) -> bytes:
    """Key of a user's packed features."""
    return _USER + user_id.to_bytes(8, "little")


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


BARRIER_KEY = b"p:barrier"
