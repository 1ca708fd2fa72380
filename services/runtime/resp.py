"""The pieces of Redis' wire protocol that reading needs (RESP2, and RESP3's pushes). Pure.

The general client in Python spends ten times as long on packing a thousand keys and parsing a thousand
values as Redis on finding them; a script that joins them inside Redis costs Redis three times as much.
Here the keys are packed as one matrix of bytes, and the reply is cut into values by a compiled loop, which
copies none of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numba import njit
from numpy.typing import NDArray

_END = b"\r\n"
_HEADER_BYTES = 32
# Pushes come between replies, and only with RESP3.
PUSH = ord(">")
Value: TypeAlias = "bytes | list[Value] | None"
# Keys that begin alike: (prefix, the rest of each one after the other, how many bytes each rest has).
Column = tuple[bytes, bytes, int]
_LF, _CR, _ZERO, _MINUS = 10, 13, 48, ord("-")
_STRING, _NULL = ord("$"), ord("_")
# The largest request reads 10,000 items under 32 views.
MAX_VALUES = 1 << 20
# Redis' own limit of a value.
_MAX_BYTES = 1 << 29
# Writable, as what comes from the connection: another type would be compiled once more.
_NOTHING = np.zeros(1, np.uint8)
_NO_SPANS = np.zeros((0, 2), np.int64)


class ProtocolError(OSError):
    """Bytes that are no reply; the connection is of no further use."""


def command(*words: bytes) -> bytes:
    """Any command."""
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


def keys_of(columns: Sequence[Column]) -> int:
    """How many they are."""
    return sum(len(entities) // width for _, entities, width in columns)


def mget(columns: Sequence[Column]) -> bytes:
    """MGET of the keys of some columns."""
    parts: list[Any] = [b"*%d\r\n$4\r\nMGET\r\n" % (1 + keys_of(columns))]
    for prefix, entities, width in columns:
        start = b"$%d\r\n%b" % (len(prefix) + width, prefix)
        if len(entities) == width:
            parts += (start, entities, _END)
            continue
        rows = np.empty(len(entities) // width * (len(start) + width + 2), np.uint8)
        _packed(np.frombuffer(start, np.uint8), np.frombuffer(entities, np.uint8), width, rows)
        parts.append(rows)
    return b"".join(parts)


@njit(cache=True, nogil=True)
def _packed(start, entities, width, out):  # type: ignore[no-untyped-def]
    """``start``, an entity and the end of a line, for each of the entities."""
    to, head, each = np.uint64(0), np.uint64(start.shape[0]), np.uint64(width)
    for at in range(np.uint64(0), np.uint64(entities.shape[0]), each):
        for byte in range(head):
            out[to + byte] = start[byte]
        for byte in range(each):
            out[to + head + byte] = entities[at + byte]
        to += head + each
        out[to], out[to + np.uint64(1)] = _CR, _LF
        to += np.uint64(2)


def ids_of(keys: Reply) -> NDArray[np.uint64]:
    """The last 8 bytes of each of some keys as a number."""
    ids = np.empty(len(keys.spans), "<u8")
    _tails(keys.data, keys.spans, ids.view(np.uint8))
    return ids.astype(np.uint64, copy=False)


@njit(cache=True, nogil=True)
def _tails(data, spans, out):  # type: ignore[no-untyped-def]
    for n in range(spans.shape[0]):
        end = spans[n, 0] + spans[n, 1]
        for byte in range(8):
            out[8 * n + byte] = data[end - 8 + byte]


class Reply:
    """One reply: an array of values, or one line. ``spans`` [n, 2]: where in ``data`` each value begins and
    its length, -1 for null. ``error``: Redis refused."""

    def __init__(self) -> None:
        self.data: NDArray[np.uint8] = _NOTHING
        self.spans: NDArray[np.int64] = _NO_SPANS
        self.error: str | None = None
        self.done = False
        self._line: bytes | None = None
        # Of an array: values cut so far, and where the next begins, counted from the reply's beginning.
        self._cut, self._next = 0, 0
        self._ignored = 0

    @classmethod
    def nulls(cls, count: int) -> Reply:
        """As if Redis had none of so many values."""
        made = cls()
        made.spans, made.done = np.full((count, 2), -1, np.int64), True
        return made

    @property
    def begun(self) -> bool:
        """Whether a part of it has been looked at."""
        return self._next > 0

    @property
    def values(self) -> list[bytes | None]:
        """All of them, or the line."""
        if self._line is not None:
            return [self._line]
        data = self.data.tobytes()
        return [None if size < 0 else data[at : at + size] for at, size in self.spans.tolist()]

    def feed(self, buffer: bytearray, at: int) -> int:
        """Looks at the reply that begins at ``buffer[at]`` (at each call: a reply is taken once it is whole);
        returns where it ends, ``at`` while it is not ``done``."""
        if not self.begun:
            stop = buffer.find(_END, at)
            if stop < 0:
                return at
            self._begin(bytes(buffer[at:stop]), stop + 2 - at)
        if self._ignored:
            self._ignore_values(buffer, at)
        elif not self.done:
            self._cut_values(buffer, at)
        return at + self._next if self.done else at

    def _begin(self, line: bytes, after: int) -> None:
        kind, rest = line[:1], line[1:]
        if kind == b"*":
            count = max(_number(rest), 0)
            if count > MAX_VALUES:
                raise ProtocolError(f"a reply of {count} values: at most {MAX_VALUES}")
            self.spans, self.done = np.empty((count, 2), np.int64), count == 0
        elif kind == b"%":
            # HELLO's description of the server: of no interest, but to be read to its end.
            self._ignored = 2 * _number(rest)
            self.done = self._ignored == 0
        elif kind == b"+":
            self._line, self.done = rest, True
        elif kind == b"-":
            self.error, self.done = rest.decode(errors="replace"), True
        else:
            raise ProtocolError(f"reply begins with {line[:20]!r}")
        self._next = after

    def _ignore_values(self, buffer: bytearray, at: int) -> None:
        while self._ignored:
            found = value(buffer, at + self._next)
            if found is None:
                return
            self._next = found[1] - at
            self._ignored -= 1
        self.done = True

    def _cut_values(self, buffer: bytearray, at: int) -> None:
        # No name for the view of the buffer: while there is one, the buffer cannot give up what was read.
        self._cut, self._next = cut(np.frombuffer(buffer, np.uint8), at, self._next, self.spans, self._cut)
        if self._cut < 0:
            begin = at + self._next
            raise ProtocolError(f"a value begins with {bytes(buffer[begin : begin + 20])!r}")
        if self._cut == len(self.spans):
            self.data, self.done = np.frombuffer(buffer[at : at + self._next], np.uint8), True


@njit(cache=True, nogil=True)
def cut(data, begin, at, spans, had):  # type: ignore[no-untyped-def]
    """Fills ``spans`` from its row ``had`` on with the values that are whole, from ``begin`` + ``at``; places
    are counted from ``begin``. Returns (how many it has then, -1 when bytes are no value; where the next
    begins)."""
    size = data.shape[0] - begin
    while had < spans.shape[0]:
        end = at
        while end < size and end - at < _HEADER_BYTES and data[begin + end] != _LF:
            end += 1
        if end - at == _HEADER_BYTES:
            return -1, at
        if end == size:
            break
        kind, digit = data[begin + at], at + 1
        length: Any = 0
        null = kind == _NULL or data[begin + digit] == _MINUS
        digit += data[begin + digit] == _MINUS
        bad = kind not in (_STRING, _NULL) or data[begin + end - 1] != _CR
        bad |= (digit < end - 1) != (kind == _STRING)
        for place in range(digit, end - 1):
            figure = np.int64(data[begin + place]) - _ZERO
            length = min(length * 10 + figure, _MAX_BYTES + 1)
            bad |= figure < 0 or figure > 9
        if bad or length > _MAX_BYTES:
            return -1, at
        if not null and end + 1 + length + 2 > size:
            break
        spans[had, 0], spans[had, 1] = end + 1, -1 if null else length
        at = end + 1 + (0 if null else length + 2)
        had += 1
    return had, at


def value(buffer: bytearray, at: int) -> tuple[Value, int] | None:
    """Any value that begins at ``at``, and where it ends; None when its end has not come yet. Numbers stay
    bytes, a map is the list of its keys and values in turn."""
    stop = buffer.find(_END, at)
    if stop < 0:
        return None
    kind, rest, after = buffer[at : at + 1], bytes(buffer[at + 1 : stop]), stop + 2
    if kind in (b"$", b"="):
        return _string(buffer, after, _number(rest))
    if kind in (b"*", b"~", b">", b"%"):
        return _values(buffer, after, _number(rest) * (2 if kind == b"%" else 1))
    if kind not in (b"+", b"-", b",", b"(", b":", b"#", b"_"):
        raise ProtocolError(f"a value begins with {bytes(buffer[at : at + 20])!r}")
    return (None if kind == b"_" else rest), after


def _string(buffer: bytearray, at: int, length: int) -> tuple[Value, int] | None:
    if length < 0:
        return None, at
    if at + length + 2 > len(buffer):
        return None
    return bytes(buffer[at : at + length]), at + length + 2


def _values(buffer: bytearray, at: int, count: int) -> tuple[Value, int] | None:
    values: list[Value] = []
    for _ in range(count):
        found = value(buffer, at)
        if found is None:
            return None
        values.append(found[0])
        at = found[1]
    return (values if count >= 0 else None), at


def _number(digits: bytes) -> int:
    try:
        return int(digits)
    except ValueError as error:
        raise ProtocolError(f"{digits[:20]!r} is no number") from error
