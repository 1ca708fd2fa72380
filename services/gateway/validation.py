"""Which requests are refused, and what a request means once its defaults are filled in. Pure.

All violations of a request are told at once. Unknown users and items are no violations: they are cold
starts. The check of the event time keeps one wrong clock from moving the event clock of the whole loop.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from google.protobuf.timestamp_pb2 import Timestamp
from numpy.typing import NDArray

from rec.v1.gateway_pb2 import RecommendRequest
from services.contract import ids, times
from services.contract.errors import FieldViolation, InvalidInput
from services.contract.limits import MAX_SHADOW_ARMS

MAX_ITEMS = 500
MAX_CANDIDATES = 10_000
DEFAULT_CANDIDATES = 1_000
MAX_ARM_CHARS = 64
MAX_USER_KEY_CHARS = 256
_MAX_SECONDS = 253_402_300_799  # 9999-12-31T23:59:59Z, the end of protobuf's Timestamp


@dataclass(frozen=True)
class TimeBounds:
    """How far occurred_at may be from the run's clock, in microseconds; now_us None = any time goes."""

    now_us: int | None
    past_us: int
    future_us: int


@dataclass(frozen=True)
class Wish:
    """A valid request with its defaults filled in.

    given: the client's own candidates, distinct, or None when recall is to be asked for ``candidates``.
    """

    request_id: str
    user_id: int
    n: int
    occurred_us: int
    candidates: int
    given: NDArray[np.uint64] | None
    arm: str
    shadow_arms: tuple[str, ...]


def parse(request: RecommendRequest, *, bounds: TimeBounds, now_us: int, new_request_id: str) -> Wish:
    """The wish behind a request, or InvalidInput with every violation.

    now_us: the event time of a request that carries none. new_request_id: for one that has no id.
    """
    violations = [*_scalar_violations(request), *_time_violations(request, bounds)]
    given: NDArray[np.uint64] | None = None
    if request.candidate_ids:
        given = np.array(request.candidate_ids, np.uint64)
        violations.extend(_candidate_violations(given))
    if violations:
        raise InvalidInput(violations)
    user_id = ids.hash_key(request.user_key) if request.WhichOneof("user") == "user_key" else request.user_id
    return Wish(
        request_id=request.request_id or new_request_id,
        user_id=user_id,
        n=request.n,
        occurred_us=times.to_us(request.occurred_at) if request.HasField("occurred_at") else now_us,
        candidates=len(given) if given is not None else request.candidates or DEFAULT_CANDIDATES,
        given=given,
        arm=request.arm,
        shadow_arms=tuple(request.shadow_arms),
    )


def _scalar_violations(request: RecommendRequest) -> Iterator[FieldViolation]:
    user = request.WhichOneof("user")
    if user is None:
        yield FieldViolation("user", "unset", "user_id or user_key")
    elif user == "user_key" and not 1 <= len(request.user_key) <= MAX_USER_KEY_CHARS:
        yield _length("user_key", request.user_key, f"1 to {MAX_USER_KEY_CHARS} characters")
    if not 1 <= request.n <= MAX_ITEMS:
        yield FieldViolation("n", str(request.n), f"1 to {MAX_ITEMS}")
    if len(request.request_id) > ids.MAX_REQUEST_ID_CHARS:
        yield _length("request_id", request.request_id, f"at most {ids.MAX_REQUEST_ID_CHARS} characters")
    if request.candidates > MAX_CANDIDATES:
        yield FieldViolation("candidates", str(request.candidates), f"at most {MAX_CANDIDATES}")
    if len(request.arm) > MAX_ARM_CHARS:
        yield _length("arm", request.arm, f"at most {MAX_ARM_CHARS} characters")
    if len(request.shadow_arms) > MAX_SHADOW_ARMS:
        yield FieldViolation("shadow_arms", f"{len(request.shadow_arms)} arms", f"at most {MAX_SHADOW_ARMS}")
    for index, arm in enumerate(request.shadow_arms[:MAX_SHADOW_ARMS]):
        if not 1 <= len(arm) <= MAX_ARM_CHARS:
            yield _length(f"shadow_arms[{index}]", arm, f"1 to {MAX_ARM_CHARS} characters")


def _candidate_violations(given: NDArray[np.uint64]) -> Iterator[FieldViolation]:
    if len(given) > MAX_CANDIDATES:
        yield FieldViolation("candidate_ids", f"{len(given)} ids", f"at most {MAX_CANDIDATES}")
        return
    distinct, first = np.unique(given, return_index=True)
    if len(distinct) < len(given):
        repeated = np.setdiff1d(np.arange(len(given)), first)[0]
        yield FieldViolation(f"candidate_ids[{repeated}]", str(given[repeated]), "distinct ids")


def _time_violations(request: RecommendRequest, bounds: TimeBounds) -> Iterator[FieldViolation]:
    if not request.HasField("occurred_at"):
        return
    stamp: Timestamp = request.occurred_at
    if not 0 <= stamp.seconds <= _MAX_SECONDS or not 0 <= stamp.nanos < 1_000_000_000:
        yield FieldViolation("occurred_at", f"{stamp.seconds} s {stamp.nanos} ns", "a time from 1970 to 9999")
        return
    if bounds.now_us is None:
        return
    ahead_us = times.to_us(stamp) - bounds.now_us
    if ahead_us > bounds.future_us:
        allowed = f"at most {bounds.future_us / times.MICROS:g} s after the run's clock"
        yield FieldViolation("occurred_at", f"{ahead_us / times.MICROS:g} s after it", allowed)
    elif -ahead_us > bounds.past_us:
        allowed = f"at most {bounds.past_us / times.MICROS:g} s before the run's clock"
        yield FieldViolation("occurred_at", f"{-ahead_us / times.MICROS:g} s before it", allowed)


def _length(field: str, value: str, allowed: str) -> FieldViolation:
    return FieldViolation(field, f"{len(value)} characters", allowed)
