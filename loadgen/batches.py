"""Pieces of bounded size of anything iterable."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

T = TypeVar("T")


def batches(values: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of ``size`` values in order, the last one shorter; nothing for nothing."""
    source = iter(values)
    while batch := list(islice(source, size)):
        yield batch
