"""What a request asks for, checked."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rec.v1.feature_pb2 import GetFeaturesRequest
from services.contract import columns, times
from services.contract.errors import FieldViolation, InvalidInput
from services.contract.ids import MAX_REQUEST_ID_CHARS

MAX_ITEMS = 10_000
MAX_BARRIER_WAIT_S = 60.0
MAX_BARRIER_ID_CHARS = 128


@dataclass(frozen=True)
class Query:
    """item_ids: [n] uint64; at_us: event time at which features are evaluated."""

    user_id: int
    item_ids: NDArray[np.uint64]
    at_us: int


def parse(request: GetFeaturesRequest, now_us: int) -> Query:
    """InvalidInput names every bad field; no items at all are fine; an unset time means ``now_us``."""
    bad: list[FieldViolation] = []
    length = len(request.item_ids)
    if length % 8:
        bad.append(FieldViolation("item_ids", f"{length} bytes", "a multiple of 8 bytes"))
    elif length // 8 > MAX_ITEMS:
        bad.append(FieldViolation("item_ids", f"{length // 8} items", f"at most {MAX_ITEMS} items"))
    if len(request.request_id) > MAX_REQUEST_ID_CHARS:
        allowed = f"at most {MAX_REQUEST_ID_CHARS} characters"
        bad.append(FieldViolation("request_id", f"{len(request.request_id)} characters", allowed))
    at_us = times.to_us(request.occurred_at) if request.HasField("occurred_at") else now_us
    if at_us <= 0:
        bad.append(FieldViolation("occurred_at", str(at_us), "after 1970-01-01"))
    if bad:
        raise InvalidInput(bad)
    ids = columns.decode("item_ids", request.item_ids, columns.U64)
    return Query(request.user_id, ids, at_us)


def barrier_wait_s(barrier_id: str, timeout_s: float | None) -> float:
    """The seconds to wait; InvalidInput when the id or the timeout is none."""
    if not 0 < len(barrier_id) <= MAX_BARRIER_ID_CHARS:
        raise InvalidInput.one("barrier_id", barrier_id, f"1 to {MAX_BARRIER_ID_CHARS} characters")
    if timeout_s is None:
        return MAX_BARRIER_WAIT_S
    if not 0 < timeout_s <= MAX_BARRIER_WAIT_S:
        raise InvalidInput.one("timeout", f"{timeout_s} s", f"above 0, at most {MAX_BARRIER_WAIT_S:.0f} s")
    return timeout_s
