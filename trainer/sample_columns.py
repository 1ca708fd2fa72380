"""Feature columns of samples, each as it was logged, as the columns that one model sees. Pure.

A sample carries all columns of the set that was served. A model that sees fewer takes its own out of them; a
sample that lacks a column of the model cannot be learned from, for no value of it is true.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from services.contract import columns
from services.contract.model_schema import ModelShape
from services.contract.projection import Projection

# The columns that a schema hash stands for (GrowingSet.shape).
Known = Callable[[int], ModelShape | None]
Hashes = NDArray[np.uint64]


@dataclass(frozen=True)
class Source:
    """A set that samples were logged under, and how the model's columns come out of it."""

    shape: ModelShape
    projection: Projection


class SampleColumns:
    """``known``: other sets than the model's own; None = there are none."""

    def __init__(self, model: ModelShape, known: Known | None = None) -> None:
        self._model = model
        self._known = known
        self._sources: dict[int, Source] = {}

    def source(self, schema_hash: int) -> Source | None:
        """None: a hash that is not known."""
        found = self._sources.get(schema_hash)
        if found is not None:
            return found
        served = self._model if schema_hash == self._model.schema_hash else None
        if served is None and self._known is not None:
            served = self._known(schema_hash)
        if served is None:
            return None
        made = self._sources[schema_hash] = Source(served, Projection(served, self._model))
        return made

    def lacks(self, schema_hash: int) -> bool:
        """Whether a sample of this (known) hash lacks a column of the model."""
        source = self.source(schema_hash)
        return source is not None and bool(source.projection.lacks)

    def widths(self, schema_hash: int) -> tuple[int, int]:
        """(user, item) columns of a sample of this known hash."""
        source = self._of(schema_hash)
        return source.shape.user_width, source.shape.item_width

    def users(self, hashes: Hashes, data: Sequence[bytes]) -> NDArray[np.float32]:
        """[n, user_width] of n samples' request columns, none of which lacks one."""
        return self._taken(
            hashes,
            data,
            lambda source, values: source.projection.user(values.reshape(-1, source.shape.user_width)),
        )

    def items(self, hashes: Hashes, data: Sequence[bytes]) -> NDArray[np.float32]:
        """[rows, item_width] of all rows of n samples."""
        return self._taken(
            hashes,
            data,
            lambda source, values: source.projection.items(values.reshape(-1, source.shape.item_width)),
        )

    def _of(self, schema_hash: int) -> Source:
        source = self.source(schema_hash)
        assert source is not None  # callers leave out what is not known
        return source

    def _taken(
        self,
        hashes: Hashes,
        data: Sequence[bytes],
        take: Callable[[Source, NDArray[np.float32]], NDArray[np.float32]],
    ) -> NDArray[np.float32]:
        """In runs of one hash: there is one, but around the moment at which a view is added."""
        parts = []
        edges = [0, *(np.flatnonzero(hashes[1:] != hashes[:-1]) + 1).tolist(), len(hashes)]
        for start, stop in pairwise(edges):
            source = self._of(int(hashes[start]) if len(hashes) else self._model.schema_hash)
            # A bytearray: torch wants memory that it could write to.
            values = np.frombuffer(bytearray().join(data[start:stop]), columns.F32)
            parts.append(take(source, values))
        return parts[0] if len(parts) == 1 else np.concatenate(parts)
