"""Ranking's pure rules: the best n, the ring of applied updates, barriers, the scoring queue."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rec.model.v1 import model_pb2
from rec.v1 import ranking_pb2
from services.contract.errors import DeadlineSpent, NotFound, Overloaded, Unavailable
from services.ranking.applied_log import AppliedLog
from services.ranking.arms import Arms
from services.ranking.barriers import Barriers, Passed
from services.ranking.scorer import Scorer
from services.ranking.top import best

PASSED = Passed(model_pb2.ModelVersion(sequence=4), 99)


@given(
    scores=st.lists(st.sampled_from([0.0, 0.25, 0.5, 0.75]), min_size=1, max_size=40),
    n=st.integers(1, 45),
    seed=st.integers(0, 99),
)
def test_best_are_the_highest_and_ties_go_by_item_id_whatever_the_order(
    scores: list[float], n: int, seed: int
) -> None:
    ids = np.random.default_rng(seed).permutation(len(scores)).astype(np.uint64)
    column = np.array(scores, dtype=np.float32)
    expected = sorted(range(len(scores)), key=lambda row: (-scores[row], int(ids[row])))[:n]
    assert best(column, ids, n).tolist() == expected


def entry(sequence: int, arm: str = "online") -> ranking_pb2.WatchAppliedResponse:
    return ranking_pb2.WatchAppliedResponse(arm=arm, model=model_pb2.ModelVersion(sequence=sequence))


async def test_watcher_that_falls_behind_the_ring_is_cut_off_and_never_skips() -> None:
    log = AppliedLog(keep=3)
    log.append(entry(1))
    watch = log.watch()
    assert (await anext(watch)).model.sequence == 1
    for sequence in range(2, 6):
        log.append(entry(sequence))
    with pytest.raises(Overloaded, match="1 entries were forgotten"):
        await anext(watch)


async def test_watcher_of_one_arm_sees_that_arm_only() -> None:
    log = AppliedLog()
    log.append(entry(1, "frozen"))
    log.append(entry(2, "online"))
    watch = log.watch("online")
    assert (await anext(watch)).model.sequence == 2
    await watch.aclose()


async def test_more_watchers_than_allowed_are_refused_until_one_leaves() -> None:
    log = AppliedLog(max_watchers=1)
    log.append(entry(1))
    first = log.watch()
    await anext(first)
    with pytest.raises(Overloaded):
        await anext(log.watch())
    await first.aclose()
    assert (await anext(log.watch())).model.sequence == 1


async def test_barrier_wakes_every_waiter_of_its_arm_and_answers_later_ones_at_once() -> None:
    barriers = Barriers()
    waiting = [asyncio.ensure_future(barriers.wait("online", "b", 5)) for _ in range(3)]
    await asyncio.sleep(0)
    barriers.note("frozen", ["b"], Passed(model_pb2.ModelVersion(sequence=1), 1))
    barriers.note("online", ["a", "b"], PASSED)
    assert await asyncio.gather(*waiting) == [PASSED] * 3
    barriers.note("online", ["b"], Passed(model_pb2.ModelVersion(sequence=9), 100))
    assert await barriers.wait("online", "b", 5) == PASSED


async def test_barriers_beyond_the_memory_are_forgotten_oldest_first() -> None:
    barriers = Barriers(keep=2)
    barriers.note("online", ["a", "b", "c"], PASSED)
    assert await barriers.wait("online", "b", 5) == PASSED
    with pytest.raises(DeadlineSpent, match="barrier a"):
        await barriers.wait("online", "a", 0)


async def test_waiters_are_bounded_and_a_spent_wait_frees_its_place() -> None:
    barriers = Barriers(max_waiters=1)
    waiting = asyncio.ensure_future(barriers.wait("online", "b", 5))
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await barriers.wait("online", "c", 5)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    with pytest.raises(DeadlineSpent):
        await barriers.wait("online", "c", 0)


async def test_full_scoring_queue_refuses_and_a_cancelled_request_leaves_it() -> None:
    scorer = Scorer(max_queue=1)
    gate = asyncio.Event()
    loop = asyncio.get_running_loop()
    held = asyncio.ensure_future(
        scorer.between_requests(lambda: asyncio.run_coroutine_threadsafe(gate.wait(), loop).result(10))
    )
    ran: list[int] = []
    queued = asyncio.ensure_future(scorer.score(lambda: ran.append(1)))
    await asyncio.sleep(0)
    with pytest.raises(Overloaded, match="the limit is 1"):
        await scorer.score(lambda: None)
    queued.cancel()
    await asyncio.gather(queued, return_exceptions=True)
    gate.set()
    await held
    assert await scorer.score(lambda: 7) == 7
    assert ran == []
    scorer.close()


def test_before_the_releases_are_read_no_arm_is_unknown() -> None:
    def never(*_: object) -> None:
        raise AssertionError

    arms = Arms((), never, never)  # type: ignore[arg-type]
    with pytest.raises(Unavailable, match="not read yet"):
        arms.model("online")
    arms.serving["online"] = object()  # type: ignore[assignment]
    with pytest.raises(NotFound, match="arm nobody: known are online"):
        arms.model("nobody")
