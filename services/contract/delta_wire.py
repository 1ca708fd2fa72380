"""Deltas in plain types to and from their protobuf messages. The columns are checked for length here, for
content there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from rec.model.v1 import model_pb2
from services.contract import columns, model_schema, times
from services.contract.delta_types import Body, DenseChange, Header, RolledBack, Step, TableChange


def header_proto(header: Header) -> model_pb2.DeltaHeader:
    """The message of a header."""
    proto = model_pb2.DeltaHeader(
        lineage=model_pb2.Lineage(generation=header.generation, policy=header.policy),
        sequence=header.sequence,
        epoch=header.epoch,
        previous_hash=header.previous_hash,
        model_hash=header.model_hash,
        created_at=times.from_us(header.created_at_us),
        sample_offsets=_offsets_proto(header.sample_offsets),
        samples_trained=header.samples_trained,
        barrier_ids=header.barrier_ids,
        trained_until=times.from_us(header.trained_until_us),
    )
    for step in header.steps:
        proto.steps.add(
            finished_at=times.from_us(step.finished_at_us), sample_offsets=_offsets_proto(step.sample_offsets)
        )
    for barrier_id, partitions in sorted(header.open_barriers.items()):
        proto.open_barriers.add(barrier_id=barrier_id, partitions=sorted(partitions))
    if header.rollback is not None:
        proto.rollback.CopyFrom(rollback_proto(header.rollback))
    return proto


def header_of(proto: model_pb2.DeltaHeader) -> Header:
    """The header of a message, unchecked."""
    return Header(
        generation=proto.lineage.generation,
        policy=proto.lineage.policy,
        sequence=proto.sequence,
        epoch=proto.epoch,
        previous_hash=proto.previous_hash,
        created_at_us=times.to_us(proto.created_at),
        model_hash=proto.model_hash,
        sample_offsets=_offsets_of(proto.sample_offsets),
        steps=tuple(
            Step(times.to_us(step.finished_at), _offsets_of(step.sample_offsets)) for step in proto.steps
        ),
        samples_trained=proto.samples_trained,
        barrier_ids=tuple(proto.barrier_ids),
        trained_until_us=times.to_us(proto.trained_until),
        open_barriers={b.barrier_id: frozenset(b.partitions) for b in proto.open_barriers},
        rollback=rollback_of(proto.rollback) if proto.HasField("rollback") else None,
    )


def rollback_proto(back: RolledBack) -> model_pb2.RolledBack:
    """The message of what a rollback did."""
    proto = model_pb2.RolledBack(order=back.order, restored_sequence=back.restored_sequence)
    for partition, start, end in back.quarantined:
        proto.quarantined.add(partition=partition, start=start, end=end)
    return proto


def rollback_of(proto: model_pb2.RolledBack) -> RolledBack:
    """What a rollback did, of its message."""
    ranges = tuple((one.partition, one.start, one.end) for one in proto.quarantined)
    return RolledBack(proto.order, proto.restored_sequence, ranges)


def _offsets_proto(offsets: Mapping[int, int]) -> list[model_pb2.PartitionOffset]:
    return [model_pb2.PartitionOffset(partition=p, offset=offsets[p]) for p in sorted(offsets)]


def _offsets_of(protos: Iterable[model_pb2.PartitionOffset]) -> dict[int, int]:
    return {proto.partition: proto.offset for proto in protos}


def body_proto(body: Body) -> model_pb2.DeltaBody:
    """The message of a body."""
    proto = model_pb2.DeltaBody()
    for table in body.tables:
        proto.tables.add(
            table=table.table,
            ids=columns.encode(table.ids, columns.U64),
            rows=columns.encode(table.rows, columns.F32),
            optimizer=columns.encode(table.optimizer, columns.F32),
            counts=columns.encode(table.counts, columns.U32),
            last_seen_us=columns.encode(table.last_seen_us, columns.I64),
            expired_ids=columns.encode(table.expired_ids, columns.U64),
            pending_ids=columns.encode(table.pending_ids, columns.U64),
            pending_counts=columns.encode(table.pending_counts, columns.U32),
            pending_last_seen_us=columns.encode(table.pending_last_seen_us, columns.I64),
        )
    for tensor in body.dense:
        proto.dense.add(
            name=tensor.name,
            shape=tensor.values.shape,
            values=columns.encode(tensor.values, columns.F32),
            optimizer=columns.encode(tensor.optimizer, columns.F32),
        )
    return proto


def _table_of(proto: model_pb2.TableDelta) -> TableChange:
    def column(part: str, data: bytes, dtype: np.dtype, rows: int | None = None) -> NDArray:
        return columns.decode(f"{proto.table}.{part}", data, dtype, rows)

    ids = column("ids", proto.ids, columns.U64)
    pending = column("pending_ids", proto.pending_ids, columns.U64)
    n, m = len(ids), len(pending)
    return TableChange(
        table=proto.table,
        ids=ids,
        rows=columns.decode_matrix(f"{proto.table}.rows", proto.rows, n, model_schema.ROW_WIDTH),
        optimizer=columns.decode_matrix(
            f"{proto.table}.optimizer", proto.optimizer, n, model_schema.OPTIMIZER_WIDTH
        ),
        counts=column("counts", proto.counts, columns.U32, n),
        last_seen_us=column("last_seen_us", proto.last_seen_us, columns.I64, n),
        expired_ids=column("expired_ids", proto.expired_ids, columns.U64),
        pending_ids=pending,
        pending_counts=column("pending_counts", proto.pending_counts, columns.U32, m),
        pending_last_seen_us=column("pending_last_seen_us", proto.pending_last_seen_us, columns.I64, m),
    )


def _dense_of(proto: model_pb2.DenseTensor) -> DenseChange:
    shape = tuple(proto.shape)
    size = int(np.prod(shape, dtype=np.int64))
    values = columns.decode(f"{proto.name}.values", proto.values, columns.F32, size)
    optimizer = columns.decode(f"{proto.name}.optimizer", proto.optimizer, columns.F32, size)
    return DenseChange(proto.name, values.reshape(shape), optimizer.reshape(shape))


def body_of(proto: model_pb2.DeltaBody) -> Body:
    """The columns of a body as read-only views; InvalidInput when one has the wrong length."""
    return Body(
        tuple(_table_of(table) for table in proto.tables), tuple(_dense_of(tensor) for tensor in proto.dense)
    )
