"""Real logs as one sorted table: MovieLens 100K by folder, or a generic events CSV / Parquet.

The generic columns are timestamp (seconds since 1970), user_id, item_id, label (0 or 1) and optionally
position (0-based) and category (of the item, from 1 on; 0 = unknown). Other columns are feature columns; the
loop has its own features, so they are named as ignored, never silently dropped. MovieLens: Harper and Konstan
2015, label = rating >= 4.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from services.contract.errors import InvalidInput

REQUIRED = ("timestamp", "user_id", "item_id", "label")
OPTIONAL = ("position", "category")
MAX_POSITION = 31
# As the collector allows.
MAX_CATEGORY = 63
MOVIELENS_LIKE = 4
MOVIELENS_GENRES = 19


@dataclass(frozen=True)
class Events:
    """n events in the order (timestamp, user, item); columns of length n.

    ``timestamps_us`` int64; keys are strings as in the file; ``labels`` float 0 or 1; ``positions`` and
    ``categories`` (of the items; 0 = unknown; None = of none) int64.
    """

    name: str
    timestamps_us: NDArray[np.int64]
    user_keys: list[str]
    item_keys: list[str]
    labels: NDArray[np.float64]
    positions: NDArray[np.int64]
    ignored_columns: tuple[str, ...] = ()
    categories: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.user_keys)

    def head(self, count: int) -> Events:
        """The first ``count`` events."""
        return Events(
            self.name,
            self.timestamps_us[:count],
            self.user_keys[:count],
            self.item_keys[:count],
            self.labels[:count],
            self.positions[:count],
            self.ignored_columns,
            self.categories[:count] if self.categories is not None else None,
        )


@dataclass(frozen=True)
class CatalogueItem:
    """One item of a data set: its key and a category (0 = unknown)."""

    key: str
    category: int


def load(path: Path) -> Events:
    """Reads a data set; InvalidInput names the row, the column, the value and what is allowed."""
    if path.is_dir():
        if not (path / "u.data").is_file():
            raise InvalidInput.one(
                "data", path, "a MovieLens 100K folder with u.data, a .csv or a .parquet file"
            )
        return _movielens(path)
    if not path.is_file():
        raise InvalidInput.one("data", path, "an existing file or MovieLens 100K folder")
    if path.suffix == ".csv":
        return _generic(path, _read_csv(path), first_row=2)
    if path.suffix == ".parquet":
        return _generic(path, pq.read_table(path), first_row=1)
    raise InvalidInput.one("data", path.name, "a name that ends in .csv or .parquet, or a MovieLens folder")


def catalogue(path: Path, events: Events) -> list[CatalogueItem]:
    """The items of a data set. MovieLens: its first genre (u.item order), 1-based; a generic log: its column
    category, the last word on an item counts; else category 0."""
    if path.is_dir() and (path / "u.item").is_file():
        return _movielens_items(path / "u.item")
    categories = dict.fromkeys(events.item_keys, 0)
    if events.categories is not None:
        categories |= zip(events.item_keys, events.categories.tolist(), strict=True)
    return [CatalogueItem(key, categories[key]) for key in sorted(categories)]


def _movielens(folder: Path) -> Events:
    users: list[str] = []
    items: list[str] = []
    ratings: list[int] = []
    seconds: list[int] = []
    path = folder / "u.data"
    with path.open(encoding="latin-1") as lines:
        for number, line in enumerate(lines, start=1):
            fields = line.rstrip("\n").split("\t")
            if len(fields) != 4:
                _bad_row(
                    path, number, "row", line.strip(), "4 tab-separated fields: user, item, rating, time"
                )
            user, item, rating, second = fields
            if not rating.isdigit() or not 1 <= int(rating) <= 5:
                _bad_row(path, number, "rating", rating, "1 to 5")
            if not second.isdigit():
                _bad_row(path, number, "timestamp", second, "whole seconds since 1970")
            if not user.isdigit() or not item.isdigit():
                _bad_row(path, number, "user or item", f"{user}, {item}", "a whole number")
            users.append(user)
            items.append(item)
            ratings.append(int(rating))
            seconds.append(int(second))
    labels = (np.array(ratings) >= MOVIELENS_LIKE).astype(np.float64)
    order = np.lexsort((np.array(items, dtype=np.int64), np.array(users, dtype=np.int64), np.array(seconds)))
    return Events(
        "ml-100k",
        np.array(seconds, dtype=np.int64)[order] * 1_000_000,
        [users[i] for i in order],
        [items[i] for i in order],
        labels[order],
        np.zeros(len(users), dtype=np.int64),
    )


def _movielens_items(path: Path) -> list[CatalogueItem]:
    result = []
    with path.open(encoding="latin-1") as lines:
        for number, line in enumerate(lines, start=1):
            fields = line.rstrip("\n").split("|")
            flags = fields[-MOVIELENS_GENRES:]
            if len(fields) < MOVIELENS_GENRES + 5 or not set(flags) <= {"0", "1"}:
                _bad_row(path, number, "genres", "|".join(flags), f"{MOVIELENS_GENRES} flags of 0 or 1")
            genre = flags.index("1") if "1" in flags else 0
            result.append(CatalogueItem(fields[0], genre + 1))
    return result


def _read_csv(path: Path) -> pa.Table:
    as_text = {name: pa.string() for name in ("user_id", "item_id", "timestamp", "label", *OPTIONAL)}
    try:
        return pa_csv.read_csv(path, convert_options=pa_csv.ConvertOptions(column_types=as_text))
    except pa.ArrowInvalid as error:
        raise InvalidInput.one(
            path.name, str(error), "a CSV file whose rows all have the header's columns"
        ) from error


def _generic(path: Path, table: pa.Table, first_row: int) -> Events:
    missing = [name for name in REQUIRED if name not in table.column_names]
    if missing:
        raise InvalidInput.one(path.name, f"no column {missing[0]}", f"columns {', '.join(REQUIRED)}")
    seconds = _numbers(path, table, "timestamp", first_row, 0, 2**33)
    labels = _numbers(path, table, "label", first_row, 0, 1)
    for row in np.flatnonzero((labels != 0) & (labels != 1))[:1]:
        _bad_row(path, int(row) + first_row, "label", str(labels[row]), "0 or 1")
    if "position" in table.column_names:
        positions = _numbers(path, table, "position", first_row, 0, MAX_POSITION).astype(np.int64)
    else:
        positions = np.zeros(table.num_rows, dtype=np.int64)
    categories = None
    if "category" in table.column_names:
        given = _numbers(path, table, "category", first_row, 0, MAX_CATEGORY)
        for row in np.flatnonzero(given % 1)[:1]:
            _bad_row(path, int(row) + first_row, "category", str(given[row]), "a whole number")
        categories = given.astype(np.int64)
    users, items = (_keys(path, table, name, first_row) for name in ("user_id", "item_id"))
    order = sorted(range(len(users)), key=lambda i: (seconds[i], users[i], items[i]))
    ignored = tuple(name for name in table.column_names if name not in (*REQUIRED, *OPTIONAL))
    return Events(
        path.name,
        np.rint(seconds[order] * 1_000_000).astype(np.int64),
        [users[i] for i in order],
        [items[i] for i in order],
        labels[order],
        positions[order],
        ignored,
        None if categories is None else categories[order],
    )


def _numbers(  # noqa: PLR0917
    path: Path, table: pa.Table, name: str, first_row: int, low: float, high: float
) -> NDArray[np.float64]:
    values = np.empty(table.num_rows)
    for row, value in enumerate(table.column(name).to_pylist()):
        try:
            values[row] = float(value)
        except (TypeError, ValueError):
            _bad_row(path, row + first_row, name, str(value), f"a number from {low:g} to {high:g}")
        if not low <= values[row] <= high:
            _bad_row(path, row + first_row, name, str(value), f"a number from {low:g} to {high:g}")
    return values


def _keys(path: Path, table: pa.Table, name: str, first_row: int) -> list[str]:
    keys = [None if value is None else str(value) for value in table.column(name).to_pylist()]
    for row, key in enumerate(keys):
        if not key or len(key) > 200:
            _bad_row(path, row + first_row, name, str(key), "1 to 200 characters")
    return [key for key in keys if key]


def _bad_row(path: Path, number: int, column: str, value: str, allowed: str) -> NoReturn:
    raise InvalidInput.one(f"{path.name} row {number} {column}", value, allowed)
