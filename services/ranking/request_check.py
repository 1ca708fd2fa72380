"""Which Rank requests can be scored, and their columns without a copy.

Every bad field is reported at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rec.v1 import ranking_pb2
from services.contract import columns, ids, times
from services.contract.errors import FieldViolation, InvalidInput
from services.contract.limits import MAX_SHADOW_ARMS
from services.contract.model_schema import ModelShape

MAX_N = 500


@dataclass(frozen=True)
class Candidates:
    """A valid request's columns: read-only views of the message's bytes.

    ``shape``: of the set that was served. item_ids uint64 [c], user float32 [user_width], items float32
    [c, item_width], all finite, ids distinct.
    """

    shape: ModelShape
    user_id: int
    item_ids: NDArray[np.uint64]
    user: NDArray[np.float32]
    items: NDArray[np.float32]
    n: int
    occurred_us: int


def check(request: ranking_pb2.RankRequest, shape: ModelShape, max_candidates: int) -> Candidates:
    """The columns of a request; ``shape``: what its schema hash stands for (served_sets). InvalidInput names
    all violations."""
    wrong = _bad_scalars(request)
    count = len(request.item_ids) // columns.U64.itemsize
    if not 1 <= count <= max_candidates:
        wrong.append(FieldViolation("item_ids", f"{count} ids", f"1 to {max_candidates}"))
    if wrong:
        raise InvalidInput(wrong)
    item_ids = columns.decode("item_ids", request.item_ids, columns.U64)
    user = columns.decode("user_features", request.user_features, columns.F32, shape.user_width)
    items = columns.decode_matrix("item_features", request.item_features, count, shape.item_width)
    wrong = [
        *_repeated_ids(item_ids),
        *_not_finite("user_features", user[None, :], shape.user_columns),
        *_not_finite("item_features", items, shape.item_columns),
    ]
    if wrong:
        raise InvalidInput(wrong)
    return Candidates(
        shape, request.user_id, item_ids, user, items, request.n, times.to_us(request.occurred_at)
    )


def _bad_scalars(request: ranking_pb2.RankRequest) -> list[FieldViolation]:
    wrong = []
    if not 1 <= len(request.request_id) <= ids.MAX_REQUEST_ID_CHARS:
        allowed = f"1 to {ids.MAX_REQUEST_ID_CHARS} characters"
        wrong.append(FieldViolation("request_id", f"{len(request.request_id)} characters", allowed))
    if not 1 <= request.n <= MAX_N:
        wrong.append(FieldViolation("n", str(request.n), f"1 to {MAX_N}"))
    if not request.HasField("occurred_at"):
        wrong.append(FieldViolation("occurred_at", "unset", "the event time of the request"))
    shadows = list(request.shadow_arms)
    if len(shadows) > MAX_SHADOW_ARMS or len(set(shadows)) != len(shadows):
        wrong.append(
            FieldViolation("shadow_arms", ",".join(shadows)[:100], f"{MAX_SHADOW_ARMS} distinct at most")
        )
    return wrong


def _repeated_ids(item_ids: NDArray[np.uint64]) -> list[FieldViolation]:
    ordered = np.sort(item_ids)
    same = ordered[1:] == ordered[:-1]
    if not same.any():
        return []
    repeated = int(ordered[1:][same][0])
    return [FieldViolation("item_ids", f"{repeated} more than once", "distinct ids")]


def _not_finite(field: str, matrix: NDArray[np.float32], names: tuple[str, ...]) -> list[FieldViolation]:
    finite = np.isfinite(matrix)
    if finite.all():
        return []
    row, column = np.argwhere(~finite)[0].tolist()
    bad = sorted({names[index] for index in np.flatnonzero(~finite.all(axis=0)).tolist()})
    where = f"{matrix[row, column]} in row {row}, column {names[column]}; columns {', '.join(bad)}"
    return [FieldViolation(field, where, "finite numbers")]
