"""A model's state as a file of tensors (contract.tensor_file): ``table.part`` and ``dense.name``.

Written and read some thousand rows at a time, so neither needs memory for a second state.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

from services.contract import columns, model_schema, tensor_file
from services.contract.delta import Body, DenseChange, TableChange, check_body, check_shapes
from services.contract.model_frozen import CHUNK_ROWS, PENDING_COLUMNS, TABLE_COLUMNS
from services.contract.model_state import PARTS, Frozen, ModelState
from services.contract.tensor_file import Source, Tensor, TensorFile


def bodies(frozen: Frozen) -> Iterator[Body]:
    """A whole state as changes, one after the other."""
    for name, table in frozen.tables.items():
        for change in table.changes(name):
            yield Body((change,))
    dense, optimizer = frozen.head.dense, frozen.head.dense_optimizer
    yield Body((), tuple(DenseChange(name, dense[name], optimizer[name]) for name in model_schema.DENSE))


def pieces(frozen: Frozen) -> Iterator[memoryview]:
    """The bytes of the file."""
    return tensor_file.pieces(_tensors(frozen))


def read_into(state: ModelState, source: Source, breathe: Callable[[], None] = lambda: None) -> None:
    """Fills an empty state; ``breathe`` is called between two pieces of work. MalformedRecord when the file
    is none of a model or a column is wrong, BadDelta for a row that is not finite or another shape."""
    file = TensorFile(source)
    dense = tuple(
        DenseChange(name, file.rows(f"dense.{name}"), file.rows(f"dense_optimizer.{name}"))
        for name in model_schema.DENSE
    )
    check_body(Body((), dense))
    check_shapes(Body((), dense), state.shape)
    for tensor in dense:
        state.dense[tensor.name][...] = tensor.values
        state.dense_optimizer[tensor.name][...] = tensor.optimizer
    for name, table in state.tables.items():
        table.reserve(file.shape(f"{name}.ids")[0])
        for change in _changes(file, name):
            check_body(Body((change,)))
            table.apply(change)
            breathe()


def _tensors(frozen: Frozen) -> Iterator[Tensor]:
    for table in frozen.tables:
        for part, dtype in PARTS.items():
            shape = frozen.shape(table, part)
            yield Tensor(f"{table}.{part}", dtype, shape, functools.partial(frozen.part, table, part))
    for prefix, tensors in (("dense", frozen.head.dense), ("dense_optimizer", frozen.head.dense_optimizer)):
        for name, values in tensors.items():
            yield Tensor(f"{prefix}.{name}", columns.F32, values.shape, functools.partial(iter, (values,)))


def _changes(file: TensorFile, table: str) -> Iterator[TableChange]:
    for parts in (("ids", *TABLE_COLUMNS), PENDING_COLUMNS):
        for start in range(0, file.shape(f"{table}.{parts[0]}")[0], CHUNK_ROWS):
            rows = {part: file.rows(f"{table}.{part}", start, start + CHUNK_ROWS) for part in parts}
            yield TableChange(table, **rows)
