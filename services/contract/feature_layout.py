"""Byte layout of the feature state of one entity, as it stands in Redis.

Both layouts are fixed-size, little-endian and versioned, so that values joined are one numpy array.

- **Tiles**: TILES counts of (impressions, clicks), one per TILE_US of event time. Tile 0 is the tile of
  ``newest_hop`` (event time // TILE_US), tile s the one s hops earlier. All zero before the first event.
- **Last clicks** of a user: newest first by (occurred_at, hash of the event id); an empty place has time 0.
- A record whose ``version`` is not the current one holds nothing that can be read: it counts as missing.
"""

from __future__ import annotations

import numpy as np

ITEM_VERSION = 1
USER_VERSION = 1
TILE_US = 60 * 1_000_000
# A sawtooth window of w tiles covers w full tiles and the current one: 11 tiles for 10 minutes.
TILES = 11
# ``newest_hop`` of a state without events: before any hop that a Timestamp can express.
NO_HOP = -(1 << 40)
CATEGORIES = 64
LAST_CLICKS = 10
MAX_U16 = (1 << 16) - 1
MAX_U32 = (1 << 32) - 1
# All tiles together stay below 2**32.
MAX_TILE = (1 << 28) - 1

ITEM_DTYPE = np.dtype(
    [
        ("version", "u1"),
        ("category", "u1"),
        ("reserved", "<u2"),
        ("impressions", "<u4"),
        ("clicks", "<u4"),
        ("reserved2", "<u4"),
        # Event time of birth, 0 = unknown.
        ("created_us", "<i8"),
        ("newest_hop", "<i8"),
        ("tiles", "<u4", (TILES, 2)),
    ]
)
USER_DTYPE = np.dtype(
    [
        ("version", "u1"),
        ("reserved", "u1", (3,)),
        ("impressions", "<u4"),
        ("clicks", "<u4"),
        ("reserved2", "<u4"),
        # Smallest and largest event time folded.
        ("first_us", "<i8"),
        ("last_us", "<i8"),
        ("newest_hop", "<i8"),
        ("tiles", "<u4", (TILES, 2)),
        # Saturating.
        ("category_impressions", "<u2", (CATEGORIES,)),
        ("category_clicks", "<u2", (CATEGORIES,)),
        ("click_us", "<i8", (LAST_CLICKS,)),
        ("click_hash", "<u8", (LAST_CLICKS,)),
        ("click_item", "<u8", (LAST_CLICKS,)),
        ("click_category", "u1", (LAST_CLICKS,)),
        ("reserved3", "u1", (6,)),
    ]
)
ITEM_BYTES = ITEM_DTYPE.itemsize
USER_BYTES = USER_DTYPE.itemsize


def readable_item(value: bytes | None) -> bool:
    """Whether a Redis value is an item state of the current version."""
    return value is not None and len(value) == ITEM_BYTES and value[0] == ITEM_VERSION


def readable_user(value: bytes | None) -> bool:
    """Whether a Redis value is a user state of the current version."""
    return value is not None and len(value) == USER_BYTES and value[0] == USER_VERSION
