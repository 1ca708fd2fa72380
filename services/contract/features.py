"""The encoding that ranking scores and the joiner carries: named float32 columns, and their hash.

A user is USER_WIDTH floats, an item (in the context of that user and moment) ITEM_WIDTH floats.
Item column 0 is the category as an exact small integer: the model looks it up in a table and
leaves it out of the dense input. All other columns are finite and within [-3, 3].

Kinds: ``batch`` comes from the catalogue (its age is evaluated at the request), ``streaming`` from the folded
events, ``instant`` from the request alone. An entity without readable state has the defaults in
all its batch and streaming columns; so have the cross columns of such an item.

``encode`` takes what stands in Redis; ``encode_records`` any number of users with their items at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xxhash
from numpy.typing import NDArray

from services.contract import feature_signals as signals
from services.contract.feature_layout import (
    ITEM_BYTES,
    ITEM_DTYPE,
    ITEM_VERSION,
    USER_DTYPE,
    USER_VERSION,
    readable_user,
)


@dataclass(frozen=True)
class Column:
    """One float of the encoding."""

    name: str
    entity: str
    kind: str
    default: float
    description: str


def _activity(entity: str, who: str) -> tuple[Column, ...]:
    def column(name: str, description: str) -> Column:
        return Column(f"{entity}_{name}", entity, "streaming", 0.0, description)

    return (
        column(
            "rate", f"click rate of the {who}, smoothed by 8 impressions of the prior, logit minus prior's"
        ),
        column("log_impressions", f"log1p of all impressions of the {who} / 4"),
        column("log_clicks", f"log1p of all clicks of the {who} / 4"),
        column("rate_1m", f"click rate of the {who} in the last 1 to 2 minutes, as the rate over all time"),
        column("log_impressions_1m", "log1p of the impressions in that window / 3"),
        column("rate_10m", f"click rate of the {who} in the last 10 to 11 minutes"),
        column("log_impressions_10m", "log1p of the impressions in that window / 3"),
    )


USER_COLUMNS: tuple[Column, ...] = (
    *_activity("user", "user"),
    Column("user_has_recent_click", "user", "streaming", 0.0, "1 when a click of the user is known"),
    Column(
        "user_log_since_click",
        "user",
        "streaming",
        0.0,
        "log1p of seconds since the last click / 5; 0 without",
    ),
    Column("user_log_since_seen", "user", "streaming", 0.0, "log1p of seconds since the last event / 5"),
    Column("user_log_tenure", "user", "streaming", 0.0, "log1p of seconds since the first event / 5"),
    Column(
        "user_top_category_share", "user", "streaming", 0.0, "share of the favourite category in the clicks"
    ),
    Column("user_log_categories", "user", "streaming", 0.0, "log1p of the number of categories clicked / 2"),
    Column("user_has_state", "user", "streaming", 0.0, "1 when the user has stored state"),
    Column("hour_sin", "user", "instant", 0.0, "sine of the UTC time of day of the request"),
    Column("hour_cos", "user", "instant", 1.0, "cosine of the UTC time of day of the request"),
)
ITEM_COLUMNS: tuple[Column, ...] = (
    Column("category", "item", "batch", 0.0, "category id, exact integer; 0 = unknown"),
    *_activity("item", "item"),
    Column("item_log_age", "item", "batch", 0.0, "log1p of seconds since the item's birth / 5; 0 = unknown"),
    Column("item_is_new", "item", "batch", 0.0, "1 when born less than 10 minutes ago"),
    Column("item_has_state", "item", "streaming", 0.0, "1 when the item has stored state"),
    Column(
        "cross_category_rate",
        "cross",
        "streaming",
        0.0,
        "the user's click rate in the item's category, smoothed by 5 impressions of the user's own rate, "
        "logit minus that rate's",
    ),
    Column(
        "cross_log_category_impressions",
        "cross",
        "streaming",
        0.0,
        "log1p of the user's impressions in the item's category / 3",
    ),
    Column(
        "cross_click_share", "cross", "streaming", 0.0, "share of the category in the user's last 10 clicks"
    ),
    Column(
        "cross_same_as_last_click",
        "cross",
        "streaming",
        0.0,
        "1 when the user's last click was in the category",
    ),
    Column(
        "cross_clicked_before",
        "cross",
        "streaming",
        0.0,
        "1 when the item is among the user's last 10 clicks",
    ),
)
USER_WIDTH = 16
ITEM_WIDTH = 16
CATEGORY_COLUMN = 0
MAX_VALUE = signals.MAX_LOGIT

_USER_DEFAULTS = np.array([column.default for column in USER_COLUMNS], np.float32)
_ITEM_DEFAULTS = np.array([column.default for column in ITEM_COLUMNS], np.float32)
_USER_STORED = np.array([column.kind != "instant" for column in USER_COLUMNS])
# Indices of the item columns that the catalogue alone decides, and of the rest.
BATCH = [index for index, column in enumerate(ITEM_COLUMNS) if column.kind == "batch"]
NOT_BATCH = [index for index, column in enumerate(ITEM_COLUMNS) if column.kind != "batch"]
_BATCH_COLUMNS = tuple(ITEM_COLUMNS[index] for index in BATCH)
assert BATCH[0] == CATEGORY_COLUMN
assert len(USER_COLUMNS) == USER_WIDTH and len(ITEM_COLUMNS) == ITEM_WIDTH

# The rate of an entity of which nothing is known: all clicks / all impressions of the run, drawn to
# DEFAULT_PRIOR as if it had been seen in PRIOR_IMPRESSIONS.
DEFAULT_PRIOR = 0.1
PRIOR_IMPRESSIONS = 100


def prior_rate(impressions: int, clicks: int) -> float:
    """The prior when so much has happened in all; inside [0.001, 0.999]."""
    rate = (clicks + PRIOR_IMPRESSIONS * DEFAULT_PRIOR) / (max(impressions, clicks) + PRIOR_IMPRESSIONS)
    return min(max(rate, 0.001), 0.999)


def _canonical() -> str:
    return "\n".join(
        f"{c.entity}.{c.name}:{c.kind}:{c.default}:{c.description}" for c in (*USER_COLUMNS, *ITEM_COLUMNS)
    )


SCHEMA_HASH = xxhash.xxh64_intdigest(_canonical().encode(), seed=0)


def _fill(columns: tuple[Column, ...], values: signals.Signals, rows: int) -> NDArray[np.float32]:
    matrix = np.empty((rows, len(columns)), np.float32)
    for index, column in enumerate(columns):
        matrix[:, index] = values[column.name]
    return matrix


def encode_records(
    users: NDArray,
    items: NDArray,
    item_ids: NDArray[np.uint64],
    *,
    owner: NDArray[np.intp],
    at_us: NDArray[np.int64],
    prior: float = DEFAULT_PRIOR,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Encodes r users and n items, row i of the items being shown to users[owner[i]] at at_us[owner[i]].

    users: [r] USER_DTYPE, items: [n] ITEM_DTYPE (version 0 = no state), item_ids and owner: [n], at_us: [r].
    Returns ([r, USER_WIDTH], [n, ITEM_WIDTH]).
    """
    base = np.array([prior], np.float32)
    seen = signals.counts(users, at_us)
    user_matrix = _fill(USER_COLUMNS, signals.user_signals(users, seen, at_us, base), len(users))
    no_user = users["version"] != USER_VERSION
    if no_user.any():
        user_matrix[np.ix_(no_user, _USER_STORED)] = _USER_DEFAULTS[_USER_STORED]
    item_at = at_us if len(users) == 1 else at_us[owner]
    values = signals.item_signals(items, item_at, base)
    cross = signals.cross_signals(users, seen, items, item_ids, owner=owner, at_us=at_us, prior=base)
    values.update(cross)
    item_matrix = _fill(ITEM_COLUMNS, values, len(items))
    item_matrix[items["version"] != ITEM_VERSION] = _ITEM_DEFAULTS
    np.clip(user_matrix, -MAX_VALUE, MAX_VALUE, out=user_matrix)
    np.clip(item_matrix[:, 1:], -MAX_VALUE, MAX_VALUE, out=item_matrix[:, 1:])
    return user_matrix, item_matrix


def batch_columns(
    category: NDArray[np.uint8], created_us: NDArray[np.int64], at_us: int
) -> NDArray[np.float32]:
    """[n, len(BATCH)] float32: the batch columns of items [n] that have state, as ``encode`` gives them."""
    values = signals.catalogue_signals(category, created_us, np.array([at_us], np.int64))
    matrix = _fill(_BATCH_COLUMNS, values, len(category))
    np.clip(matrix[:, 1:], -MAX_VALUE, MAX_VALUE, out=matrix[:, 1:])
    return matrix


def user_records(value: bytes | None) -> NDArray:
    """[1] USER_DTYPE of a Redis value; all zero when there is none that can be read."""
    if value is None or not readable_user(value):
        return np.zeros(1, USER_DTYPE)
    return np.frombuffer(value, USER_DTYPE)


_NO_ITEM = bytes(ITEM_BYTES)


def item_records(values: Sequence[bytes | None]) -> NDArray:
    """[n] ITEM_DTYPE of Redis values; zero (version 0) where there is none that can be read."""
    joined = b"".join([_NO_ITEM if v is None or len(v) != ITEM_BYTES else v for v in values])
    return np.frombuffer(joined, ITEM_DTYPE)


def encode(
    user_value: bytes | None,
    item_values: Sequence[bytes | None],
    at_us: int,
    prior: float = DEFAULT_PRIOR,
    item_ids: NDArray[np.uint64] | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.uint8]]:
    """Encodes one user and n items from Redis values at event time ``at_us``.

    ``item_ids`` [n] is needed for cross_clicked_before only (0 everywhere without). Returns user
    [USER_WIDTH], items [n, ITEM_WIDTH] and missing [n] (1 = defaults).
    """
    items = item_records(item_values)
    ids = np.zeros(len(items), np.uint64) if item_ids is None else item_ids
    owner = np.zeros(len(items), np.intp)
    user, matrix = encode_records(
        user_records(user_value), items, ids, owner=owner, at_us=np.array([at_us], np.int64), prior=prior
    )
    return user[0], matrix, (items["version"] != ITEM_VERSION).astype(np.uint8)
