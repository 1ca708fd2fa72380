"""The encoding that ranking scores and the joiner carries: named float32 columns, and their hash.

A user is USER_WIDTH floats, an item (in the context of that user and moment) ITEM_WIDTH floats.
Item column 0 is the category as an exact small integer: the model looks it up in a table and
leaves it out of the dense input.
"""

from __future__ import annotations

from dataclasses import dataclass

import xxhash


@dataclass(frozen=True)
class Column:
    """One float of the encoding."""

    name: str
    entity: str
    kind: str
    default: float
    description: str


def _spare(entity: str, count: int) -> tuple[Column, ...]:
    return tuple(Column(f"{entity}_spare_{i}", entity, "instant", 0.0, "unused, always 0") for i in range(count))


USER_COLUMNS: tuple[Column, ...] = _spare("user", 16)
ITEM_COLUMNS: tuple[Column, ...] = (
    Column("category", "item", "batch", 0.0, "category id, exact integer"),
    *_spare("item", 15),
)
USER_WIDTH = 16
ITEM_WIDTH = 16
CATEGORY_COLUMN = 0


def _canonical() -> str:
    return "\n".join(f"{c.entity}.{c.name}:{c.kind}:{c.default}" for c in (*USER_COLUMNS, *ITEM_COLUMNS))


SCHEMA_HASH = xxhash.xxh64_intdigest(_canonical().encode(), seed=0)
