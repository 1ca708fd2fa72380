"""Ids: string keys become 64-bit by xxh64 with seed 0; a sample is request_id:item_id."""

from __future__ import annotations

from typing import Final

import xxhash

MAX_REQUEST_ID_CHARS: Final = 64
MAX_EVENT_ID_CHARS: Final = 128


def hash_key(key: str) -> int:
    """The unsigned 64-bit id of a string key: xxh64 of its UTF-8 bytes, seed 0."""
    return xxhash.xxh64_intdigest(key.encode(), seed=0)


def sample_id(request_id: str, item_id: int) -> str:
    """The id of the one training sample of an item in a response."""
    return f"{request_id}:{item_id}"


def impression_event_id(request_id: str) -> str:
    """The event id of the impression of a request; a repeat carries the same one."""
    return f"{request_id}:shown"


def snapshot_event_id(request_id: str) -> str:
    """The event id of the feature snapshot of a request."""
    return f"{request_id}:scored"


def action_event_id(request_id: str, item_id: int, kind: int) -> str:
    """The event id of a user's action of one kind on one shown item."""
    return f"{request_id}:{item_id}:{kind}"
