"""Who gets which arm of an experiment."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.contract.assignment import arm_of, check_shares
from services.contract.errors import InvalidInput

HALVES = {"a": 0.5, "b": 0.5}


@pytest.mark.parametrize(
    "shares",
    [
        {"a": 0.5, "b": 0.4},
        {"a": 0.5, "b": 0.6},
        {"a": 1.0},
        {},
        {"a": 1.5, "b": -0.5},
        {"a": 1.0, "b": 0.0},
        {"a": math.nan, "b": 0.5},
        {"A b": 0.5, "b": 0.5},
    ],
    ids=str,
)
def test_shares_that_are_no_shares_are_refused(shares):
    with pytest.raises(InvalidInput, match="shares"):
        check_shares(shares)


def test_shares_that_sum_to_one_but_for_rounding_are_taken():
    assert check_shares({"c": 0.1, "b": 0.2, "a": 0.7}) == {"a": 0.7, "b": 0.2, "c": 0.1}
    assert check_shares(dict.fromkeys("abc", 1 / 3))


@given(st.integers(0, 2**64 - 1))
def test_a_user_stays_in_an_arm_and_only_moves_when_its_share_shrinks(user_id):
    assert arm_of(user_id, "x", HALVES) == arm_of(user_id, "x", dict(reversed(HALVES.items())))
    if arm_of(user_id, "x", {"a": 0.1, "b": 0.9}) == "a":
        assert arm_of(user_id, "x", HALVES) == "a"


def test_a_user_gets_the_same_arm_in_every_process_and_every_version():
    users = [*range(24), 2**64 - 1, 0x0123456789ABCDEF]
    arms = "".join(arm_of(user, "generation-2", {"a": 0.3, "b": 0.5, "c": 0.2}) for user in users)
    assert arms == "aacbacabcbcabbbbbbcaaabbab"


def test_arms_get_their_shares_and_experiments_are_independent():
    shares = {"a": 0.2, "b": 0.3, "c": 0.5}
    users = range(1, 20_001)
    arms = [arm_of(user, "one", shares) for user in users]
    counts = Counter(arms)
    for arm, share in shares.items():
        # Five standard deviations of a binomial.
        assert abs(counts[arm] - share * 20_000) < 5 * math.sqrt(20_000 * share * (1 - share))
    same = sum(arm == arm_of(user, "two", shares) for user, arm in zip(users, arms, strict=True))
    expected = 20_000 * sum(share**2 for share in shares.values())
    assert abs(same - expected) < 5 * math.sqrt(20_000)
