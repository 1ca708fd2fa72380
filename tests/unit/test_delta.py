"""The delta codec: what comes back, and what is refused under which name."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rec.model.v1 import model_pb2
from services.contract import delta, model_schema
from services.contract.delta import BadDelta, Body, DenseChange, Header, Step, TableChange
from tests.trainer_kit import header_after, new_state, random_body, random_change

HEADER = Header(
    generation=3,
    policy="online",
    sequence=7,
    epoch=2,
    previous_hash=bytes(range(32)),
    created_at_us=1_700_000_000_123_456,
    model_hash=0x0123456789ABCDEF,
    sample_offsets={0: 10, 3: 2**40},
    steps=(Step(1_700_000_000_100_000, {0: 9}), Step(1_700_000_000_120_000, {0: 10, 3: 2**40})),
    samples_trained=12_345,
    barrier_ids=("b-1", "b-2"),
    trained_until_us=877_000_000_000_001,
    open_barriers={"b-3": frozenset({0, 2})},
)


def _reason(value: bytes) -> str:
    with pytest.raises(BadDelta) as caught:
        delta.open_body(delta.unseal(value))
    return caught.value.reason


def test_a_sealed_delta_comes_back_unchanged() -> None:
    body = random_body(1)
    value, digest = delta.seal(HEADER, body)
    sealed = delta.unseal(value)
    assert (sealed.header, sealed.hash) == (HEADER, digest)
    opened = delta.open_body(sealed)
    for sent, came in zip(body.tables, opened.tables, strict=True):
        for part in ("ids", "rows", "optimizer", "counts", "last_seen_us", "expired_ids", "pending_ids"):
            assert np.array_equal(getattr(sent, part), getattr(came, part))
    for before, after in zip(body.dense, opened.dense, strict=True):
        assert before.name == after.name
        assert np.array_equal(before.values, after.values)
        assert np.array_equal(before.optimizer, after.optimizer)


def test_the_same_update_has_the_same_bytes() -> None:
    assert delta.seal(HEADER, random_body(1)) == delta.seal(HEADER, random_body(1))


def test_any_flipped_bit_is_seen() -> None:
    value, _ = delta.seal(HEADER, Body((random_change(np.random.default_rng(0), "item", [1, 2]),)))
    for place in range(0, len(value), 7):
        broken = bytearray(value)
        broken[place] ^= 0x10
        assert _reason(bytes(broken)) in ("bad_hash", "undecodable")


def test_garbage_is_undecodable() -> None:
    assert _reason(b"\xff\xff\xff") == "undecodable"


def test_an_oversized_record_is_refused_before_it_is_parsed() -> None:
    assert _reason(bytes(delta.MAX_DELTA_BYTES + 1)) == "undecodable"


def test_a_delta_too_large_for_a_record_does_not_leave() -> None:
    rows = delta.MAX_DELTA_BYTES // delta.BYTES_PER_ROW + 1
    with pytest.raises(BadDelta):
        delta.seal(HEADER, Body((random_change(np.random.default_rng(0), "item", list(range(rows))),)))


@pytest.mark.parametrize(
    "changed",
    [{"generation": 0}, {"policy": ""}, {"sequence": 0}, {"epoch": 0}, {"previous_hash": b"short"}],
)
def test_a_header_out_of_range_is_refused(changed: dict[str, object]) -> None:
    with pytest.raises(BadDelta) as caught:
        delta.seal(replace(HEADER, **changed), Body())  # type: ignore[arg-type]
    assert caught.value.reason == "bad_header"


def _change(**changed: object) -> TableChange:
    return replace(random_change(np.random.default_rng(0), "item", [1, 2, 3]), **changed)  # type: ignore[arg-type]


NAN_ROWS = np.full((3, model_schema.ROW_WIDTH), np.nan, np.float32)
INFINITE = np.full((3, model_schema.OPTIMIZER_WIDTH), np.inf, np.float32)
BAD_BODIES = {
    "NaN": Body((_change(rows=NAN_ROWS),)),
    "infinite optimizer": Body((_change(optimizer=INFINITE),)),
    "negative optimizer": Body((_change(optimizer=-np.ones((3, 2), np.float32)),)),
    "wrong width": Body((_change(rows=np.zeros((3, 5), np.float32)),)),
    "one count too few": Body((_change(counts=np.zeros(2, np.uint32)),)),
    "repeated id": Body((_change(ids=np.array([1, 1, 2], np.uint64)),)),
    "unordered ids": Body((_change(ids=np.array([2, 1, 3], np.uint64)),)),
    "expired id with values": Body((_change(expired_ids=np.array([2], np.uint64)),)),
    "unknown table": Body((replace(_change(), table="shop"),)),
    "table twice": Body((_change(), _change())),
    "unknown tensor": Body((), (DenseChange("extra", np.zeros(1, np.float32), np.zeros(1, np.float32)),)),
    "tensor shape": Body((), (DenseChange("bias", np.zeros(1, np.float32), np.zeros(2, np.float32)),)),
    "infinite tensor": Body(
        (), (DenseChange("bias", np.array([np.inf], np.float32), np.zeros(1, np.float32)),)
    ),
}


@pytest.mark.parametrize("name", BAD_BODIES)
def test_a_bad_body_neither_leaves_nor_enters(name: str) -> None:
    with pytest.raises(BadDelta) as caught:
        delta.check_body(BAD_BODIES[name])
    assert caught.value.reason == "bad_body"
    with pytest.raises(BadDelta):
        delta.seal(HEADER, BAD_BODIES[name])


def test_a_column_cut_short_is_refused_by_the_reader_as_well() -> None:
    value, _ = delta.seal(header_after(new_state()), random_body(2))
    record = model_pb2.ParameterDelta.FromString(value)
    body = model_pb2.DeltaBody.FromString(record.body)
    body.tables[0].rows = body.tables[0].rows[:-4]
    record.body = body.SerializeToString()
    record.hash = delta.chain_hash(record.header, record.body)
    assert _reason(record.SerializeToString()) == "bad_body"
