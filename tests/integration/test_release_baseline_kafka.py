"""Release keeps its baseline arm by itself, over real gRPC and a real Kafka; the test plays the trainer."""

from __future__ import annotations

import asyncio
import time

import pytest

from rec.model.v1 import model_pb2
from rec.v1 import release_pb2, release_pb2_grpc
from services.contract import times
from tests.integration.test_release import ONLINE, base, registration, running, settings_for

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]
AGE_S = 2.0


class Trainer:
    """Registers a base with every call, and reports rollbacks."""

    def __init__(self, release: release_pb2_grpc.ReleaseServiceStub) -> None:
        self.release = release
        self.sequence = 0
        self.registered_s: dict[int, float] = {}

    async def base(self) -> None:
        self.sequence += 10
        reference = base(self.sequence)
        reference.manifest_digest = self.sequence.to_bytes(32, "big")
        await self.release.RegisterBase(release_pb2.RegisterBaseRequest(lineage=ONLINE, base=reference))
        self.registered_s[self.sequence] = time.monotonic()

    async def take_back(self, restored: int) -> None:
        wish = release_pb2.RollBackRequest(lineage=ONLINE, to_sequence=restored, reason="test")
        order = (await self.release.RollBack(wish)).rollback
        self.sequence += 1
        order.done.order, order.done.restored_sequence, order.sequence = order.order, restored, self.sequence
        times.set_us(order.published_at, time.time_ns() // 1000)
        await self.release.ReportRollback(release_pb2.ReportRollbackRequest(lineage=ONLINE, rollback=order))


async def baseline(release: release_pb2_grpc.ReleaseServiceStub) -> model_pb2.Release | None:
    listed = await release.ListReleases(release_pb2.ListReleasesRequest())
    return next((one for one in listed.releases if one.arm == "baseline"), None)


async def test_the_baseline_is_kept_some_time_behind_and_off_what_was_taken_back(private_kafka) -> None:
    settings = settings_for(
        private_kafka.bootstrap,
        baseline_share=0.1,
        baseline_age_s=AGE_S,
        rollback_s=1.0,
        look_interval_s=0.1,
    )
    ages = []
    async with running(settings) as (release, _):
        await release.RegisterGeneration(registration(1))
        trainer = Trainer(release)
        trainer.registered_s[0] = time.monotonic()
        for turn in range(80):
            if turn % 5 == 0:
                await trainer.base()
            await asyncio.sleep(0.1)
            if (arm := await baseline(release)) is not None:
                ages.append(time.monotonic() - trainer.registered_s[arm.pinned_sequence])
                assert (arm.state, arm.standing_share) == (model_pb2.RELEASE_STATE_SERVING, 0.1)
                assert arm.base.sequence == arm.pinned_sequence
        # A look late at most, on a machine that has other work.
        assert len(ages) > 40 and min(ages) >= AGE_S - 0.1 and max(ages) <= 2 * AGE_S + 0.5

    # Another process goes on where the log says that the arm stands.
    async with running(settings) as (release, _):
        trainer.release = release
        before = await baseline(release)
        assert before is not None and before.state == model_pb2.RELEASE_STATE_SERVING
        restored = before.pinned_sequence - 5
        await trainer.take_back(restored)
        back = trainer.sequence
        async with asyncio.timeout(20):
            while (arm := await baseline(release)) is None or arm.pinned_sequence == before.pinned_sequence:
                if arm is not None and arm.state == model_pb2.RELEASE_STATE_RETIRED:
                    break
                await asyncio.sleep(0.05)
            assert not restored < (arm.pinned_sequence if arm.standing_share else 0) < back
            await trainer.base()
            while (arm := await baseline(release)) is None or arm.pinned_sequence < back:
                assert not arm.standing_share or not restored < arm.pinned_sequence < back
                await asyncio.sleep(0.05)
        assert arm.state == model_pb2.RELEASE_STATE_SERVING
        assert time.monotonic() - trainer.registered_s[arm.pinned_sequence] >= AGE_S - 0.1


async def test_a_generation_is_held_and_let_go_by_command(private_kafka) -> None:
    async with running(settings_for(private_kafka.bootstrap)) as (release, _):
        await release.RegisterGeneration(registration(1))
        hold = release_pb2.HoldGenerationRequest(generation=1, held=True, reason="looking")
        assert (await release.HoldGeneration(hold)).state == "promoted"
        (listed,) = (await release.ListReleases(release_pb2.ListReleasesRequest())).generations
        assert listed.life.held
    async with running(settings_for(private_kafka.bootstrap)) as (release, _):
        hold.held = False
        await release.HoldGeneration(hold)
        (listed,) = (await release.ListReleases(release_pb2.ListReleasesRequest())).generations
        assert not listed.life.held
