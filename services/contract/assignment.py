"""Which arm of an experiment serves a user. Pure; the gateway decides by it, release and reports read by it.

A user's place in [0, 1) is xxh64 of the experiment's name and the user id: stable in a run and over runs,
another one in each experiment. Arms take the places in order of their names, by shares that sum to one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import xxhash

from services.contract.errors import FieldViolation, InvalidInput

_SUM_TOLERANCE = 1e-9
ARM_NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}")


def check_shares(shares: Mapping[str, float]) -> dict[str, float]:
    """The shares by name of arm. InvalidInput unless there are at least two arms with legal names, each
    share is in (0, 1) and they sum to one."""
    wrong = [
        FieldViolation(f"shares[{arm[:64]}]", str(share), "an arm's name, and a share above 0 and below 1")
        for arm, share in shares.items()
        if not (ARM_NAME.fullmatch(arm) and 0 < share < 1)
    ]
    if len(shares) < 2:
        wrong.append(FieldViolation("shares", f"{len(shares)} arms", "at least two"))
    total = math.fsum(shares.values())
    if not abs(total - 1) <= _SUM_TOLERANCE:
        wrong.append(FieldViolation("shares", f"sum {total:.12g}", "a sum of 1"))
    if wrong:
        raise InvalidInput(wrong)
    return {arm: shares[arm] for arm in sorted(shares)}


def arm_of(user_id: int, experiment: str, shares: Mapping[str, float]) -> str:
    """The arm of a user in an experiment with checked shares."""
    place = xxhash.xxh64_intdigest(user_id.to_bytes(8, "little") + experiment.encode(), seed=0) / 2**64
    passed = 0.0
    for arm in sorted(shares):
        passed += shares[arm]
        if place < passed:
            return arm
    return max(shares)
