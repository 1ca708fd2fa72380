"""Files of the safetensors format, written and read part by part.

    8 bytes: length of the header | JSON: name -> dtype, shape, [from, to) | the tensors, one behind the other

The library's own functions take and give whole files in memory. A header needs names, dtypes and shapes
alone, so a tensor can come in chunks; the bytes are those that the library writes (a test compares them).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from services.contract import columns
from services.contract.errors import InvalidInput, MalformedRecord

# In the order of a file: the widest first, so that each tensor is aligned.
_DTYPES: dict[np.dtype, str] = {
    columns.U64: "U64", columns.I64: "I64", columns.F32: "F32", columns.U32: "U32",
}  # fmt: skip
_LENGTH = np.dtype("<u8")
MAX_HEADER_BYTES = 1 << 20


class Source(Protocol):
    """A file that is open for reading at any place (pyarrow.NativeFile)."""

    def size(self) -> int:
        """Bytes."""

    def read_at(self, nbytes: int, offset: int) -> bytes:
        """Bytes from a place; fewer at the end."""


@dataclass(frozen=True)
class Tensor:
    """One tensor to be written: ``chunks`` of its rows, contiguous, in its dtype."""

    name: str
    dtype: np.dtype
    shape: tuple[int, ...]
    chunks: Callable[[], Iterable[NDArray]]

    @property
    def size(self) -> int:
        """Bytes."""
        return self.dtype.itemsize * math.prod(self.shape)


def pieces(tensors: Iterable[Tensor]) -> Iterator[memoryview]:
    """The bytes of a file, piece by piece. ValueError when chunks are not what their tensor says."""
    ordered = sorted(tensors, key=lambda one: (list(_DTYPES).index(one.dtype), one.name))
    header: dict[str, Any] = {}
    end = 0
    for one in ordered:
        offsets = [end, end := end + one.size]
        header[one.name] = {"dtype": _DTYPES[one.dtype], "shape": list(one.shape), "data_offsets": offsets}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield memoryview(np.array(len(text), _LENGTH).tobytes() + text)
    for one in ordered:
        left = one.size
        for chunk in one.chunks():
            left -= chunk.nbytes
            if chunk.dtype != one.dtype or left < 0:
                raise _misfit(one)
            if chunk.nbytes:
                yield chunk.reshape(-1).view(columns.U8).data
        if left:
            raise _misfit(one)


def _misfit(one: Tensor) -> ValueError:
    return ValueError(f"{one.name}: chunks of other rows or another dtype than {one.dtype} {one.shape}")


class TensorFile:
    """A file of tensors; MalformedRecord when it is none, or a tensor is missing."""

    def __init__(self, source: Source) -> None:
        self._source = source
        length = int(np.frombuffer(self._bytes(0, 8), _LENGTH)[0])
        if length > MAX_HEADER_BYTES:
            raise _malformed(f"a header of {length} bytes", f"at most {MAX_HEADER_BYTES}")
        self._start = 8 + length
        try:
            header = json.loads(self._bytes(8, length))
            self._tensors = {name: _entry(said) for name, said in header.items() if name != "__metadata__"}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise _malformed(repr(error), "a safetensors header") from error

    def shape(self, name: str) -> tuple[int, ...]:
        """Of one tensor."""
        return self._entry(name)[1]

    def rows(self, name: str, start: int = 0, stop: int | None = None) -> NDArray:
        """Rows [start, stop) of a tensor, writeable."""
        dtype, shape, offset = self._entry(name)
        start, stop = min(start, shape[0]), shape[0] if stop is None else min(stop, shape[0])
        size = dtype.itemsize * math.prod(shape[1:])
        data = bytearray(self._bytes(self._start + offset + start * size, (stop - start) * size))
        return np.frombuffer(data, dtype).reshape(stop - start, *shape[1:])

    def _entry(self, name: str) -> tuple[np.dtype, tuple[int, ...], int]:
        try:
            return self._tensors[name]
        except KeyError:
            raise _malformed(f"no {name}", "every part of a model") from None

    def _bytes(self, offset: int, size: int) -> bytes:
        if offset + size > self._source.size():
            raise _malformed(f"ends at {self._source.size()}", f"{offset + size} bytes at least")
        return self._source.read_at(size, offset)


def _entry(said: dict[str, Any]) -> tuple[np.dtype, tuple[int, ...], int]:
    dtype = {name: dtype for dtype, name in _DTYPES.items()}[said["dtype"]]
    shape = tuple(int(length) for length in said["shape"])
    start, end = map(int, said["data_offsets"])
    if not shape or min(shape) < 0 or start < 0 or end - start != dtype.itemsize * math.prod(shape):
        raise ValueError(f"shape {shape} from {start} to {end}")
    return dtype, shape, start


def _malformed(found: str, allowed: str) -> InvalidInput:
    return MalformedRecord.one("state", found, allowed)
