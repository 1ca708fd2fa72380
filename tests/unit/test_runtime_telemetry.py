"""Logs that repeat, metrics that are made twice."""

from __future__ import annotations

import asyncio
import gc
import logging
import weakref

from services.runtime.telemetry import Sparse, collect_garbage_every, counter, histogram, observe_all


def record(name: str, message: str) -> logging.LogRecord:
    return logging.LogRecord(name, logging.WARNING, "", 0, message, None, None)


def test_a_librarys_repeated_message_passes_once_in_a_while_and_says_how_many_were_held() -> None:
    now = [0.0]
    sparse = Sparse("aiokafka", 10.0, lambda: now[0])
    assert sparse.filter(record("aiokafka.conn", "cannot connect"))
    assert not sparse.filter(record("aiokafka.conn", "cannot connect"))
    assert not sparse.filter(record("aiokafka", "cannot connect"))
    assert sparse.filter(record("aiokafka", "another message"))
    now[0] = 10.0
    again = record("aiokafka", "cannot connect")
    assert sparse.filter(again)
    assert again.getMessage() == "cannot connect (and 2 more like it)"


def test_our_own_messages_always_pass() -> None:
    sparse = Sparse("aiokafka", 10.0, lambda: 0.0)
    assert all(sparse.filter(record("services.x", "same")) for _ in range(3))


def test_a_metric_made_twice_is_the_same_metric() -> None:
    assert counter("made_twice", "Test.") is counter("made_twice", "Test.")


def test_many_values_observed_at_once_are_the_values_observed_one_by_one() -> None:
    values = [0.0, 0.1, 0.1000001, 0.5, 0.7, 9.0]
    one, all_ = (
        histogram(name, "Test.", ["what"], buckets=(0.1, 0.5, 1.0)).labels("x") for name in ("single", "bulk")
    )
    for value in values:
        one.observe(value)
    observe_all(all_, values)
    samples = [[(s.name, s.labels, s.value) for s in each._child_samples()] for each in (one, all_)]
    assert samples[0][:-1] == samples[1][:-1] and len(samples[0]) == 7
    observe_all(all_, [])
    assert [(s.name, s.labels, s.value) for s in all_._child_samples()][:-1] == samples[0][:-1]


async def test_garbage_is_collected_by_the_clock_and_the_rule_comes_back_afterwards() -> None:
    class Node:
        itself: object

    collecting = asyncio.create_task(collect_garbage_every(0.05))
    await asyncio.sleep(0)
    assert not gc.isenabled()
    node = Node()
    node.itself = node
    gone = weakref.ref(node)
    del node
    assert gone() is not None
    async with asyncio.timeout(5):
        while gone() is not None:  # noqa: ASYNC110 - the collector's clock decides when
            await asyncio.sleep(0.01)
    collecting.cancel()
    await asyncio.gather(collecting, return_exceptions=True)
    assert gc.isenabled()
