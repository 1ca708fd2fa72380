"""The gateway gives users the arms that release's decisions name, over a real Kafka that also goes away."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from services.contract.assignment import arm_of
from services.gateway import metrics
from services.release import lives
from services.release.evidence import Check
from services.release.gate import GateVerdict
from services.release.release_log import ReleaseLog
from services.release.states import Step
from services.runtime.settings import KafkaSettings
from tests.component.test_gateway import House

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]
SHARES = {"online": 0.5, "candidate": 0.5}
PASSED = GateVerdict((Check("rows", 2.0, low=1),))
USERS = range(1, 61)


@asynccontextmanager
async def release_log(kafka: KafkaSettings) -> AsyncIterator[ReleaseLog]:
    """With two generations, the second under comparison."""
    log = ReleaseLog(kafka, "release", 30, 10)
    try:
        for number in (1, 2):
            registry = await log.opened()
            digest = bytes([number]) * 32
            await log.write(registry.register_generation(f"g{number}", digest, 0, 0, now_us=1))
        await log.write(lives.gated(await log.opened(), 2, PASSED, 2))
        await log.write(lives.stepped(await log.opened(), 2, Step.SHADOWED, 3))
        await log.write(lives.stepped(await log.opened(), 2, Step.COMPARED, 4, shares=SHARES))
        yield log
    finally:
        await log.close()


async def drawn(house: House) -> dict[int, str]:
    """The arm that ranking is asked for, by user; empty = the default one. Nobody's request fails."""
    house.neighbour.calls["ranking"].clear()
    for user in USERS:
        assert (await house.ask(user_id=user)).provenance.scored
    assert all(one.arm_assigned for one in house.neighbour.calls["ranking"])
    return {one.user_id: one.arm for one in house.neighbour.calls["ranking"]}


async def until(house: House, arms: set[str]) -> dict[int, str]:
    async with asyncio.timeout(20):
        while set((found := await drawn(house)).values()) != arms:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    return found


async def test_users_fall_to_the_arms_of_the_experiment_that_runs_while_kafka_comes_and_goes(
    private_kafka,
) -> None:
    kafka = KafkaSettings(bootstrap_servers=private_kafka.bootstrap, request_timeout_ms=2_000)
    private_kafka.stop()
    async with AsyncExitStack() as stack:
        house = House(stack)
        await house.open(kafka=kafka)
        assert set((await drawn(house)).values()) == {""}
        private_kafka.start()
        async with release_log(kafka) as log:
            found = await until(house, {"online", "candidate"})
            assert found == {user: arm_of(user, "generation-2", SHARES) for user in USERS}
            # What is known stays known; an arm that ranking has not loaded fails nobody's request.
            private_kafka.stop()
            await asyncio.sleep(1)
            assert await drawn(house) == found
            lost = metrics.ARMS.labels("online", "not_loaded")._value.get()
            await drawn(house)
            lost = metrics.ARMS.labels("online", "not_loaded")._value.get() - lost
            assert lost == Counter(found.values())["candidate"] > 0
            private_kafka.start()
            await log.opened()
            await log.write(lives.stepped(await log.opened(), 2, Step.REJECTED, 5))
        assert set((await until(house, {""})).values()) == {""}
