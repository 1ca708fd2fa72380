"""The bytes of a delta, as other processes and later versions must find them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from services.contract import delta, model_schema
from services.contract.delta import Body, DenseChange, Header, Step, TableChange

GOLDEN = Path(__file__).parent.parent / "golden" / "delta_v1.bin"


def _delta() -> tuple[Header, Body]:
    ids = np.array([3, 2**63 + 5], np.uint64)
    rows = (np.arange(2 * model_schema.ROW_WIDTH, dtype=np.float32) / 8).reshape(2, -1)
    change = replace(
        TableChange("item"),
        ids=ids,
        rows=rows,
        optimizer=np.array([[0.5, 0.25], [1, 2]], np.float32),
        counts=np.array([7, 2**32 - 1], np.uint32),
        last_seen_us=np.array([1, 1_700_000_000_000_000], np.int64),
        expired_ids=np.array([9], np.uint64),
        pending_ids=np.array([11, 12], np.uint64),
        pending_counts=np.array([1, 0], np.uint32),
        pending_last_seen_us=np.array([5, 6], np.int64),
    )
    header = Header(
        generation=1,
        policy="online",
        sequence=1,
        epoch=1,
        previous_hash=bytes(range(32)),
        created_at_us=1_700_000_000_000_001,
        model_hash=0x0123456789ABCDEF,
        sample_offsets={0: 5, 1: 6},
        steps=(Step(1_700_000_000_000_000, {0: 5, 1: 6}),),
        samples_trained=100,
        barrier_ids=("b",),
        trained_until_us=1_600_000_000_000_000,
        open_barriers={"c": frozenset({1, 0})},
    )
    bias = DenseChange("bias", np.array([-0.5], np.float32), np.array([0.125], np.float32))
    return header, Body((change,), (bias,))


def test_the_bytes_are_those_of_the_golden_file() -> None:
    value, _ = delta.seal(*_delta())
    assert value == GOLDEN.read_bytes()


def test_the_golden_file_says_what_it_said() -> None:
    header, body = _delta()
    sealed = delta.unseal(GOLDEN.read_bytes())
    assert sealed.header == header
    opened = delta.open_body(sealed)
    assert opened.tables[0].ids.tolist() == body.tables[0].ids.tolist()
    assert np.array_equal(opened.tables[0].rows, body.tables[0].rows)
    assert opened.tables[0].pending_counts.tolist() == [1, 0]
    assert opened.dense[0].values.tolist() == [-0.5]
