"""The samples of day 0 as rows of the lake, at the time that a seed gave that day."""

from __future__ import annotations

import pytest

from loadgen.day0_samples import table
from services.contract import times
from services.contract.errors import MalformedRecord
from services.contract.lake_rows import LogRecord, to_table
from services.contract.lake_schema import SCHEMAS
from tests.trainer_kit import World, sample_bytes

BY_US = 86_400_000_000


def test_every_time_is_moved_and_nothing_else() -> None:
    samples = [World(3).sample() for _ in range(4)]
    for sample in samples[:3]:
        sample.impressed_at.CopyFrom(sample.occurred_at)
        sample.joined_at.CopyFrom(sample.occurred_at)
    samples[0].acted_at.CopyFrom(samples[0].occurred_at)
    values = [sample_bytes(sample) for sample in samples]
    moved = table(values, BY_US)
    plain = to_table("samples", [LogRecord(0, at, 0, value) for at, value in enumerate(values)])
    assert moved.schema == SCHEMAS["samples"]
    names = {"occurred_us", "impressed_us", "acted_us", "scored_us", "joined_us"}
    for name in set(plain.schema.names) - {"appended_ms"}:
        before, after = plain[name].to_pylist(), moved[name].to_pylist()
        if name in names:
            assert after == [None if one is None else one + BY_US for one in before], name
        else:
            assert after == before, name
    first = times.to_us(samples[0].occurred_at) + BY_US
    assert moved["appended_ms"][0].as_py() == first // 1000
    assert None in moved["acted_us"].to_pylist()


def test_what_is_no_sample_is_named() -> None:
    with pytest.raises(MalformedRecord, match="sample 1"):
        table([sample_bytes(World(3).sample()), b"\xff\xff"], BY_US)
