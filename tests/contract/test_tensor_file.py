"""Files written part by part are those of the safetensors library, byte for byte."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest
import safetensors.numpy
from numpy.typing import NDArray

from services.contract import model_file, model_frozen, tensor_file
from services.contract.errors import MalformedRecord
from services.contract.model_state import Frozen, ModelState
from services.contract.tensor_file import Tensor, TensorFile
from tests.feature_kit import SHAPE
from tests.trainer_kit import new_state, random_change


def _tensor(name: str, values: NDArray, rows: int = 3) -> Tensor:
    def chunks() -> list[NDArray]:
        return [values[n : n + rows] for n in range(0, len(values), rows)]

    return Tensor(name, values.dtype, values.shape, chunks)


@pytest.fixture
def tensors() -> dict[str, NDArray]:
    random = np.random.default_rng(0)
    return {
        "b.rows": random.normal(0, 1, (10, 34)).astype(np.float32),
        "a.counts": random.integers(0, 9, 7).astype(np.uint32),
        'odd "name"': random.normal(0, 1, (1,)).astype(np.float32),
        "z.ids": random.integers(0, 2**63, 5).astype(np.uint64),
        "none": np.empty((0, 34), np.float32),
        "times": np.array([-1, 2], np.int64),
    }


def _written(tensors: dict[str, NDArray]) -> bytes:
    return b"".join(tensor_file.pieces(_tensor(name, values) for name, values in tensors.items()))


def test_the_bytes_are_those_of_the_library(tensors: dict[str, NDArray]) -> None:
    assert _written(tensors) == safetensors.numpy.save(tensors)


def test_the_library_reads_a_models_file_and_it_is_what_the_library_would_write(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(model_frozen, "CHUNK_ROWS", 8)
    state = new_state()
    state.tables["item"].apply(random_change(np.random.default_rng(1), "item", list(range(1, 30))))
    state.tables["user"].pending.set(
        np.array([5], np.uint64), np.array([1], np.uint32), np.array([2], np.int64)
    )
    data = b"".join(model_file.pieces(Frozen(state)))
    read = safetensors.numpy.load(data)
    assert safetensors.numpy.save(read) == data
    ids, slots = state.tables["item"].ids()
    assert np.array_equal(read["item.ids"], ids)
    assert np.array_equal(read["item.rows"], state.tables["item"].rows[slots])
    assert read["user.pending_ids"].tolist() == [5]
    assert np.array_equal(read["dense.hidden1.weight"], state.dense["hidden1.weight"])


def test_rows_are_read_from_anywhere(tensors: dict[str, NDArray]) -> None:
    file = TensorFile(pa.BufferReader(safetensors.numpy.save(tensors)))
    for name, values in tensors.items():
        assert file.shape(name) == values.shape
        assert np.array_equal(file.rows(name), values)
        assert np.array_equal(file.rows(name, 1, 4), values[1:4])
    file.rows("z.ids")[0] = 1


def test_chunks_that_are_not_the_tensor_are_refused(tensors: dict[str, NDArray]) -> None:
    values = tensors["b.rows"]
    for wrong in (
        values[:9],
        np.concatenate([values, values]),
        values.astype(np.float64),
        values.view(np.uint32),
    ):
        broken = Tensor("x", values.dtype, values.shape, lambda wrong=wrong: [wrong])
        with pytest.raises(ValueError, match="x: chunks of other rows or another dtype"):
            list(tensor_file.pieces([broken]))


def _with_header(header: object) -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff" * 8,
        (100).to_bytes(8, "little") + b"{}",
        _with_header([1]),
        _with_header({"a": 1}),
        _with_header({"a": {"dtype": "F99", "shape": [1], "data_offsets": [0, 4]}}),
        _with_header({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}),
        _with_header({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, -4]}}),
        _with_header({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}),
        _with_header({"b": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}) + b"1234",
    ],
)
def test_what_is_no_file_of_tensors_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedRecord, match="state"):
        TensorFile(pa.BufferReader(data)).rows("a")


def test_a_models_file_that_lacks_a_part_is_refused_by_name() -> None:
    read = safetensors.numpy.load(b"".join(model_file.pieces(Frozen(new_state()))))
    del read["item.counts"]
    read["item.ids"] = np.array([1], np.uint64)
    with pytest.raises(MalformedRecord, match=r"item\.counts"):
        model_file.read_into(ModelState(SHAPE), pa.BufferReader(safetensors.numpy.save(read)))
