"""Columns encoded under one feature set, as a model that sees another one wants them. Pure.

Both sets are of one GrowingSet (view_growth), so a name is one definition. Sets only grow at their end: the
columns of an older one are the first of a newer one, and a slice (no copy) gives them. What a model sees and
was not encoded is named by ``lacks``: serving may fill in declared defaults and must say so, training skips.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from services.contract.model_schema import ModelShape

Columns = NDArray[np.float32]
# All columns as they are; else the first so many; else the place of each, -1 where there is none.
_Take = None | int | NDArray[np.int64]


class Projection:
    """From columns of ``served`` to those of ``model``. ``lacks``: the model's columns that are not there."""

    def __init__(self, served: ModelShape, model: ModelShape) -> None:
        self._user = _take(served.user_columns, model.user_columns)
        self._item = _take(served.item_columns, model.item_columns)
        wanted = zip(
            (*model.user_columns, *model.item_columns),
            (*_places(self._user, model.user_width), *_places(self._item, model.item_width)),
            strict=True,
        )
        self.lacks = tuple(name for name, place in wanted if place < 0)

    def user(self, values: Columns, defaults: Columns | None = None) -> Columns:
        """[..., served user width] -> [..., model's]. ``defaults`` [model's user width]: for what lacks;
        without them nothing may lack."""
        return _taken(values, self._user, defaults)

    def items(self, values: Columns, defaults: Columns | None = None) -> Columns:
        """[..., served item width] -> [..., model's]."""
        return _taken(values, self._item, defaults)


def _take(served: Sequence[str], model: Sequence[str]) -> _Take:
    if tuple(served) == tuple(model):
        return None
    if tuple(served[: len(model)]) == tuple(model):
        return len(model)
    at = {name: place for place, name in enumerate(served)}
    return np.array([at.get(name, -1) for name in model], np.int64)


def _places(take: _Take, width: int) -> Sequence[int]:
    return take.tolist() if isinstance(take, np.ndarray) else range(width)


def _taken(values: Columns, take: _Take, defaults: Columns | None) -> Columns:
    if take is None:
        return values
    if not isinstance(take, np.ndarray):
        return values[..., :take]
    found = values[..., take]
    lacks = take < 0
    if lacks.any():
        if defaults is None:
            raise ValueError("columns lack, and there are no defaults for them")
        found[..., lacks] = defaults[lacks]
    return found
