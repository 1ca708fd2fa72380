"""What the trainer tells of the way from a sample to a published delta."""

from __future__ import annotations

import pytest
from prometheus_client import REGISTRY

from tests.trainer_kit import START_US, World, new_core
from trainer.metrics import Metrics
from trainer.samples import RawRecord

SECOND = 1_000_000


def told(name: str, lineage: str) -> tuple[float | None, float | None]:
    """(how many, their sum)"""
    return (
        REGISTRY.get_sample_value(f"recloop_{name}_count", {"lineage": lineage}),
        REGISTRY.get_sample_value(f"recloop_{name}_sum", {"lineage": lineage}),
    )


def test_samples_wait_to_be_trained_and_steps_to_be_published():
    metrics, core, world = Metrics("77/waits"), new_core(), World()
    core.train(world.records(3), START_US)
    core.train(world.records(3, first_offset=3), START_US + SECOND)
    metrics.waited([START_US - 2 * SECOND, START_US - SECOND], START_US)
    assert told("trainer_wait_seconds", "77/waits") == (2, pytest.approx(3.0))
    plan = core.build(START_US + SECOND)
    assert plan is not None and len(plan.header.steps) == 2
    metrics.published(plan, START_US + 2 * SECOND)
    assert told("trainer_held_seconds", "77/waits") == (2, pytest.approx(3.0))


def test_a_record_that_cannot_be_used_is_told_once_it_is_on_dead_letters():
    def letters() -> float:
        return REGISTRY.get_sample_value("recloop_trainer_dead_letters_total", {"topic": "samples"}) or 0.0

    metrics, core, before = Metrics("77/letters"), new_core(), letters()
    core.train([RawRecord(0, 0, b"\xff\xff")], START_US)
    plan = core.build(START_US)
    assert plan is not None and letters() == before
    metrics.published(plan, START_US)
    assert letters() == before + 1
