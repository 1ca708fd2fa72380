"""Which lineages are trained: what opens, what takes over, what ends when."""

from __future__ import annotations

import asyncio

import pytest

from rec.model.v1 import model_pb2
from services.contract.errors import Conflict
from trainer.lineages import Lineages, followed
from trainer.orders import Orders

ARMS = ("online", "candidate")
SERVING, SHADOW, RETIRED = (
    model_pb2.RELEASE_STATE_SERVING,
    model_pb2.RELEASE_STATE_SHADOW,
    model_pb2.RELEASE_STATE_RETIRED,
)


def release(
    arm: str,
    generation: int,
    revision: int,
    state: model_pb2.ReleaseState = SERVING,
    pinned: int | None = None,
) -> model_pb2.Release:
    lineage = model_pb2.Lineage(generation=generation, policy="online")
    return model_pb2.Release(arm=arm, lineage=lineage, revision=revision, state=state, pinned_sequence=pinned)


class FakeLine:
    def __init__(self, generation: int) -> None:
        self.generation = generation
        self.stopping = asyncio.Event()
        self.closed = False
        self.error: Exception | None = None

    async def run(self) -> None:
        await self.stopping.wait()
        if self.error is not None:
            raise self.error

    def stop(self) -> None:
        self.stopping.set()

    async def close(self) -> None:
        self.closed = True

    def fail(self, error: Exception) -> None:
        self.error = error
        self.stopping.set()


class Rig:
    """Lineages over lines that only remember, with a clock that is turned by hand."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.lines: list[FakeLine] = []
        self.own: list[int] = []
        # Of each opening, the order that it was to carry out.
        self.taken_back: list[int] = []
        self.refused: dict[int, Exception] = {}
        self.lineages = Lineages(
            ARMS,
            self.open,
            lambda line: self.own.append(line.generation),  # type: ignore[attr-defined]
            linger_s=30,
            retry_s=5,
            clock=lambda: self.now_s,
        )

    async def open(self, asked: model_pb2.Release, orders: Orders) -> FakeLine:
        order = orders.outstanding((asked.lineage.generation, "online"))
        self.taken_back.append(0 if order is None else order.order)
        generation = asked.lineage.generation
        if generation in self.refused:
            raise self.refused[generation]
        line = FakeLine(generation)
        self.lines.append(line)
        return line

    async def say(self, *releases: model_pb2.Release, after_s: float = 0.0) -> None:
        self.now_s += after_s
        for one in releases:
            self.lineages.take(one)
        for _ in range(3):  # opening, starting and ending take turns of the loop
            await self.lineages.settle()
            await asyncio.sleep(0)

    @property
    def trained(self) -> list[int]:
        return [line.generation for line in self.lines if not line.closed]


def test_an_arm_that_is_pinned_or_retired_follows_nothing() -> None:
    of = {
        "online": release("online", 1, 1),
        "frozen": release("frozen", 3, 2),
        "candidate": release("candidate", 2, 3, SHADOW),
    }
    assert list(followed(of, ARMS)) == [(1, "online"), (2, "online")]
    of["candidate"] = release("candidate", 2, 4, RETIRED)
    assert list(followed(of, ARMS)) == [(1, "online")]
    of["candidate"] = release("candidate", 2, 5, SERVING, pinned=0)
    assert list(followed(of, ARMS)) == [(1, "online")]
    of["candidate"] = release("candidate", 1, 6, SHADOW)
    assert followed(of, ARMS)[1, "online"].arm == "online"


async def test_a_new_generation_is_trained_aside_takes_over_and_the_old_one_lingers() -> None:
    rig = Rig()
    await rig.say(release("online", 1, 1))
    assert (rig.trained, rig.own) == ([1], [1])
    await rig.say(release("candidate", 2, 2, SHADOW))
    assert (rig.trained, rig.own) == ([1, 2], [1])
    await rig.say(release("online", 2, 3), release("candidate", 2, 4, RETIRED))
    assert (rig.trained, rig.own) == ([1, 2], [1, 2])
    await rig.say(after_s=29)
    assert rig.trained == [1, 2]
    await rig.say(after_s=1)
    assert rig.trained == [2]
    assert len(rig.lines) == 2
    await rig.lineages.close()
    assert rig.trained == []


async def test_pointed_to_a_lineage_that_is_not_trained_yet_the_old_one_goes_on_until_it_is() -> None:
    rig = Rig()
    await rig.say(release("online", 1, 1))
    rig.refused[2] = Conflict("no such base")
    await rig.say(release("online", 2, 2))
    await rig.say(after_s=1000)
    assert (rig.trained, rig.own) == ([1], [1])
    del rig.refused[2]
    await rig.say(after_s=5)
    assert rig.own == [1, 2]
    # Counted from the moment in which the other one took over.
    assert rig.trained == [1, 2]
    await rig.say(after_s=30)
    assert rig.trained == [2]


async def test_a_rollback_within_the_linger_finds_the_old_lineage_still_trained() -> None:
    rig = Rig()
    await rig.say(release("online", 1, 1), release("candidate", 2, 2, SHADOW))
    await rig.say(release("online", 2, 3))
    await rig.say(release("online", 1, 4), release("candidate", 2, 5, RETIRED), after_s=10)
    assert (rig.trained, rig.own, len(rig.lines)) == ([1, 2], [1, 2, 1], 2)
    await rig.say(after_s=30)
    assert rig.trained == [1]


async def test_a_candidate_that_dies_is_tried_again_and_the_own_line_ends_the_process() -> None:
    rig = Rig()
    await rig.say(release("online", 1, 1), release("candidate", 2, 2, SHADOW))
    rig.lines[1].fail(Conflict("broken chain"))
    await asyncio.sleep(0)
    await rig.say()
    assert rig.trained == [1]
    await rig.say(after_s=5)
    assert rig.trained == [1, 2]
    rig.lines[0].fail(Conflict("fenced"))
    await asyncio.sleep(0)
    with pytest.raises(Conflict, match="fenced"):
        await rig.say()


async def test_the_first_line_must_open() -> None:
    rig = Rig()
    rig.refused[1] = Conflict("no such base")
    with pytest.raises(Conflict, match="no such base"):
        await rig.say(release("online", 1, 1))


def ordered(generation: int, order: int, *, done: bool = False) -> model_pb2.Release:
    lineage = model_pb2.Lineage(generation=generation, policy="online")
    release = model_pb2.Release(arm=f"generation/{generation}/online/rollback/{order}", lineage=lineage)
    release.rollback.order = order
    if done:
        release.rollback.done.order = order
    return release


async def test_an_order_drops_the_line_and_opens_it_once_more_and_only_once() -> None:
    rig = Rig()
    await rig.say(release("online", 1, 1), release("candidate", 2, 2, SHADOW))
    await rig.say(ordered(1, 3))
    assert (rig.trained, rig.own, rig.taken_back) == ([2, 1], [1, 1], [0, 0, 3])
    await rig.say(after_s=1)
    await rig.say(ordered(1, 3, done=True))
    assert len(rig.lines) == 3
    await rig.say(ordered(2, 4))
    assert (rig.trained, rig.taken_back[-1]) == ([1, 2], 4)
    assert rig.own == [1, 1]


async def test_an_order_that_a_start_finds_is_carried_out_by_the_first_opening() -> None:
    rig = Rig()
    await rig.say(ordered(1, 3), release("online", 1, 4))
    assert rig.taken_back == [3]


async def test_a_line_that_cannot_be_taken_back_ends_the_process_when_it_is_the_own_one() -> None:
    rig = Rig()
    await rig.say(release("online", 1, 1))
    rig.refused[1] = Conflict("broken chain")
    with pytest.raises(Conflict, match="broken chain"):
        await rig.say(ordered(1, 3))


async def test_an_older_revision_and_arms_of_others_change_nothing() -> None:
    rig = Rig()
    await rig.say(release("online", 2, 5), release("online", 1, 4), release("frozen", 7, 9))
    assert rig.trained == [2]
