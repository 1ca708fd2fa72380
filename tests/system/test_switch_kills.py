"""A generation switched three times under load, and at every step a process killed with SIGKILL: the table of
outcomes in ARCHITECTURE.md (Generation switch), run.

One stack. Its event time begins shortly before a midnight, so that a day ends in it. Three full models of
that day (the batch trainer killed in three places) are taken from registered to promoted; in the first switch
the online trainer is killed at each step, in the second ranking, in the third release. Whoever is killed,
every switch ends with release, ranking and trainer on the same generation, sequence and digest; each sample
of the log is trained once by each lineage (counted by id); and no request fails.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from loadgen.settings import WorldSettings
from local.ports import Ports
from local.processes import LOOP
from local.stack import Stack
from local.stack_config import StackConfig
from services.contract import topics
from services.contract.errors import Conflict, NotFound
from services.contract.lake_files import DAY_US, day_of, scan
from services.contract.times import MICROS
from tests.log_kit import fates_of
from tests.switch_kit import RPC_S, WAIT_S, WINDOW_S, Rig
from tests.system.conftest import REPOSITORY, WORLD, Loop, loadgen
from tests.visit_kit import Visitors
from trainer.day import CUT_COLUMNS, cut_of, day_start_us

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]
SIM = WorldSettings(items=3_000, users=300, sessions=2, session_s=30)
BEFORE_MIDNIGHT_S, RATE = 20.0, 10.0


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    subprocess.run(loadgen("day0", *WORLD), cwd=REPOSITORY, env=os.environ, check=True, timeout=240)
    config = StackConfig(
        root=tmp_path / "run",
        ports=Ports.free(),
        seed=["--world", "simulate", *WORLD, "--run-dir", str(tmp_path / "run")],
        services=(*LOOP, "lake"),
        process_env={
            "trainer": {
                "RECLOOP_BASE_INTERVAL_S": "5",
                "RECLOOP_LINEAGE_LINGER_S": "2",
                "RECLOOP_LINEAGE_RETRY_S": "1",
            },
            "joiner": {"RECLOOP_WINDOW_MS": str(int(WINDOW_S * 1000))},
            "lake": {"RECLOOP_FLUSH_AGE_MS": "1000", "RECLOOP_AUDIT_INTERVAL_MS": "0"},
            # Event time is up to a day ahead of the wall's.
            "collector": {"RECLOOP_EVENT_TIME__FUTURE_BOUND_MS": str(2 * DAY_US // 1000)},
            # What is tested here is who dies when, not how good a model of twenty seconds is.
            "release": {
                "RECLOOP_READ_TIMEOUT_MS": str(int(WAIT_S * 1000)),
                "RECLOOP_WRITE_TIMEOUT_MS": str(int(RPC_S * 1000)),
                "RECLOOP_GATE__MIN_ROWS": "200",
                "RECLOOP_GATE__MIN_POSITIVES": "5",
                "RECLOOP_GATE__MAX_AUC_LOSS": "0.3",
                "RECLOOP_GATE__MAX_LOG_LOSS_GAIN": "1",
                "RECLOOP_GATE__CALIBRATION_LOW": "0.1",
                "RECLOOP_GATE__CALIBRATION_HIGH": "10",
                "RECLOOP_GATE__MAX_CANARY_SHIFT": "10",
            },
        },
    )
    with Stack(config) as stack:
        midnight_us = (time.time_ns() // 1000 // DAY_US + 1) * DAY_US
        visitors = Visitors(
            stack.addresses.target("gateway"),
            stack.addresses.target("collector"),
            SIM.config(),
            start_us=midnight_us - int(BEFORE_MIDNIGHT_S * MICROS),
            rate=RATE,
            window_s=WINDOW_S,
        )
        made = Rig(Loop(stack, tmp_path / "out"), visitors, day_of(midnight_us - 1))
        visitors.start()
        try:
            yield made
        finally:
            visitors.stop()


def test_every_process_killed_at_every_step_of_a_switch_ends_on_one_generation(rig: Rig) -> None:
    def day_is_over() -> bool:
        try:
            cut = cut_of(scan(rig.stack.addresses.lake_uri, "samples", columns=CUT_COLUMNS), midnight_us)
        except (Conflict, NotFound):
            return False
        return len(cut) == topics.SAMPLES.partitions

    midnight_us = day_start_us(rig.day) + DAY_US
    rig.loop.wait_until(day_is_over, WAIT_S, f"{rig.day} is over in the lake")

    many = ("--fit.max_passes", "12", "--learning.minibatch_rows")
    batches = {
        "trainer": lambda: rig.batch_killed_in_training(*many, "16"),
        "ranking": lambda: rig.batch_killed_at_registration("request", *many, "24"),
        "release": lambda: rig.batch_killed_at_registration("acknowledgement", *many, "32"),
    }
    manifests = set()
    for generation, (victim, batch) in enumerate(batches.items(), 2):
        rig.visitors.start()
        manifest, number = batch()
        assert number == generation, "registered once, however often it was told"
        manifests.add(manifest)
        rig.switch(generation, victim)
        rig.loop.wait_until(partial(rig.seen, generation), WAIT_S, f"visitors see generation {generation}")
        rig.agreed(generation)
    assert len(manifests) == len(rig.listed().generations) - 1 == 3

    rig.visitors.stop()
    answers = rig.visitors.answers
    assert [one.status for one in answers if one.status != "OK"] == []
    assert (rig.visitors.lost, rig.visitors.defects) == (0, [])
    unscored = [one for one in answers if not one.generation]
    assert unscored, "ranking was dead for a while: some answers must say so"
    assert all(any(why.startswith("ranking:") for why in one.degraded) for one in unscored)
    elsewhere = [
        one for one in unscored if not any(a <= one.answered_s and one.sent_s <= b for a, b in rig.away)
    ]
    assert elsewhere == []
    online = [one for one in answers if one.generation and one.arm == "online"]
    assert {one.generation for one in online} == {1, 2, 3, 4}
    for one in online:
        newest = max((other.generation for other in online if other.answered_s < one.sent_s), default=0)
        assert one.generation >= newest, "nobody is sent back to an older generation"
    fates = asyncio.run(fates_of(rig.stack.addresses.kafka_bootstrap))
    assert fates.total() == rig.visitors.shown
    # Late: told to the collector by a visitor who had to wait for a core.
    assert set(fates) <= {"sample", "snapshot_lost", "unscored", "late"}, fates
