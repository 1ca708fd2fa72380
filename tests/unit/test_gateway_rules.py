"""The gateway's rules: what is refused, how time is divided, when a dependency is skipped, what stands in."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from rec.v1.gateway_pb2 import RecommendRequest
from services.contract import ids, times
from services.contract.errors import InvalidInput
from services.gateway import validation
from services.gateway.breaker import Breaker, BreakerState
from services.gateway.budget import Budget, Shares
from services.gateway.defaults import Defaults
from services.gateway.fallback import FallbackPool
from tests.feature_kit import FEATURES

NO_CLOCK = validation.TimeBounds(now_us=None, past_us=0, future_us=0)
RUN = validation.TimeBounds(now_us=880_000_000_000_000, past_us=86_400_000_000, future_us=60_000_000)


def parse(request: RecommendRequest, bounds: validation.TimeBounds = NO_CLOCK) -> validation.Wish:
    return validation.parse(request, bounds=bounds, now_us=123, new_request_id="made")


def fields(request: RecommendRequest, bounds: validation.TimeBounds = NO_CLOCK) -> list[str]:
    with pytest.raises(InvalidInput) as caught:
        parse(request, bounds)
    return [violation.field for violation in caught.value.violations]


def test_defaults_are_filled_in() -> None:
    wish = parse(RecommendRequest(user_id=7, n=10))
    assert (wish.request_id, wish.user_id, wish.n, wish.occurred_us) == ("made", 7, 10, 123)
    assert (wish.candidates, wish.given, wish.arm, wish.shadow_arms) == (1000, None, "", ())


def test_user_key_is_hashed_and_event_time_truncated_to_microseconds() -> None:
    request = RecommendRequest(user_key="196", n=1, request_id="mine")
    request.occurred_at.seconds, request.occurred_at.nanos = 880, 1_999
    wish = parse(request)
    assert wish.user_id == ids.hash_key("196")
    assert wish.occurred_us == 880_000_001
    assert wish.request_id == "mine"


def test_user_id_zero_is_a_user() -> None:
    assert parse(RecommendRequest(user_id=0, n=1)).user_id == 0


@pytest.mark.parametrize(
    ("request_fields", "violation"),
    [
        ({"n": 0}, "n"),
        ({"n": 501}, "n"),
        ({"user_key": ""}, "user_key"),
        ({"user_key": "x" * 257}, "user_key"),
        ({"request_id": "x" * 65}, "request_id"),
        ({"candidates": 10_001}, "candidates"),
        ({"candidate_ids": range(10_001)}, "candidate_ids"),
        ({"candidate_ids": [1, 2, 1]}, "candidate_ids[2]"),
        ({"arm": "x" * 65}, "arm"),
        ({"shadow_arms": ["a"] * 9}, "shadow_arms"),
        ({"shadow_arms": ["a", ""]}, "shadow_arms[1]"),
        ({"occurred_at": {"seconds": -1}}, "occurred_at"),
        ({"occurred_at": {"seconds": 1, "nanos": 1_000_000_000}}, "occurred_at"),
        ({"occurred_at": {"seconds": 253_402_300_800}}, "occurred_at"),
    ],
)
def test_a_bad_field_is_named(request_fields: dict, violation: str) -> None:
    assert fields(RecommendRequest(**{"user_id": 1, "n": 1, **request_fields})) == [violation]


def test_all_violations_are_told_at_once() -> None:
    assert fields(RecommendRequest(n=0, candidates=20_000, arm="x" * 65)) == [
        "user",
        "n",
        "candidates",
        "arm",
    ]


@pytest.mark.parametrize(
    ("seconds", "refused"),
    [
        (880_000_000, False),
        (880_000_060, False),
        (880_000_061, True),
        (879_913_600, False),
        (879_913_599, True),
    ],
)
def test_event_time_must_be_near_the_clock_of_the_run(seconds: int, refused: bool) -> None:
    request = RecommendRequest(user_id=1, n=1, occurred_at={"seconds": seconds})
    if refused:
        assert fields(request, RUN) == ["occurred_at"]
    else:
        assert parse(request, RUN).occurred_us == seconds * times.MICROS


def test_given_candidates_replace_the_count() -> None:
    wish = parse(RecommendRequest(user_id=1, n=1, candidate_ids=[5, 2**64 - 1], candidates=9))
    assert wish.given is not None
    assert wish.given.tolist() == [5, 2**64 - 1]
    assert wish.candidates == 2


def test_unused_time_goes_to_later_calls_and_the_reserve_to_nobody() -> None:
    budget = Budget(deadline=100.5, reserve_s=0.1)
    assert budget.timeout_s(0.5, now=100.0) == pytest.approx(0.2)
    assert budget.timeout_s(1.0, now=100.1) == pytest.approx(0.3)
    assert budget.timeout_s(1.0, now=100.6) == 0


def test_shares_outside_their_range_are_refused() -> None:
    with pytest.raises(ValueError, match="feature"):
        Shares(recall=0.3, feature=0, ranking=1)


class BreakerMachine(RuleBasedStateMachine):
    """Any order of calls, answers, failures and time; only the rules of the docstring may hold."""

    def __init__(self) -> None:
        super().__init__()
        self.breaker = Breaker(failures_to_open=3, pause_s=1.0)
        self.now = 0.0
        self.in_a_row = 0
        self.quiet_until = 0.0

    @rule(seconds=st.sampled_from([0.1, 0.5, 1.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(good=st.booleans())
    def a_request_comes(self, good: bool) -> None:
        allowed = self.breaker.allows(self.now)
        assert allowed == (self.in_a_row < 3 or self.now >= self.quiet_until)
        if not allowed:
            return
        if good:
            self.breaker.succeeded()
            self.in_a_row = 0
        else:
            self.breaker.failed(self.now)
            self.in_a_row += 1
            self.quiet_until = self.now + 1.0

    @invariant()
    def closed_iff_fewer_than_three_failures_in_a_row(self) -> None:
        assert (self.breaker.state is BreakerState.CLOSED) == (self.in_a_row < 3)


BreakerMachine.TestCase.settings = settings(max_examples=50, stateful_step_count=30, deadline=None)
TestBreaker = BreakerMachine.TestCase


def test_only_one_request_probes_and_a_lost_probe_is_replaced() -> None:
    breaker = Breaker(failures_to_open=1, pause_s=1.0)
    breaker.failed(0.0)
    assert [breaker.allows(0.5), breaker.allows(1.0), breaker.allows(1.1)] == [False, True, False]
    assert breaker.allows(2.0)


def u64(*values: int) -> np.ndarray:
    return np.array(values, np.uint64)


def test_pool_gives_popular_items_first_then_the_most_recent() -> None:
    pool = FallbackPool(size=4, refresh_s=0)
    pool.observe(u64(1, 2, 3), np.array([False, True, False]), now=0)
    pool.observe(u64(4, 5), np.array([False, False]), now=1)
    assert pool.pick(10).tolist() == [2, 4, 5, 1]
    pool.observe(u64(5), np.array([False]), now=2)
    assert pool.pick(10).tolist() == [2, 5, 4, 1]
    pool.observe(u64(4), np.array([False]), now=3)
    assert pool.pick(2).tolist() == [2, 4]


def test_pool_starts_empty_and_refreshes_no_more_often_than_allowed() -> None:
    pool = FallbackPool(size=4, refresh_s=10)
    assert pool.pick(5).tolist() == []
    pool.observe(u64(1), np.array([False]), now=0)
    pool.observe(u64(2), np.array([False]), now=9)
    assert pool.pick(5).tolist() == [1]


@given(st.lists(st.lists(st.integers(0, 50), unique=True, max_size=20), max_size=20), st.integers(1, 30))
def test_pool_is_bounded_and_distinct(answers: list[list[int]], n: int) -> None:
    pool = FallbackPool(size=8, refresh_s=0)
    for now, answer in enumerate(answers):
        pool.observe(u64(*answer), np.array([item % 3 == 0 for item in answer], bool), now=float(now))
    picked = pool.pick(n).tolist()
    assert len(picked) == len(set(picked)) <= n
    assert len(pool) <= 16


def test_default_columns_hold_the_declared_defaults() -> None:
    defaults = Defaults(FEATURES)
    user = np.frombuffer(defaults.user_features, "<f4")
    items = np.frombuffer(defaults.item_features(3), "<f4").reshape(3, FEATURES.item_width)
    assert user.tolist() == pytest.approx(FEATURES.user_defaults.tolist())
    assert items[2].tolist() == pytest.approx(FEATURES.item_defaults.tolist())
