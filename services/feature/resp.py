"""The pieces of Redis' wire protocol that reading features needs (RESP2, and RESP3's pushes). Pure.

The general client in Python spends ten times as long on packing a thousand keys and parsing a thousand
values as Redis on finding them; a script that joins them inside Redis costs Redis three times as much.
Here the keys are packed as one matrix of bytes, and the reply is cut into values as it comes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

_END = b"\r\n"
_HEADER_BYTES = 32
# Pushes come between replies, and only with RESP3.
PUSH = ord(">")
Value: TypeAlias = "bytes | list[Value] | None"


class ProtocolError(OSError):
    """Bytes that are no reply; the connection is of no further use."""


def command(*words: bytes) -> bytes:
    """Any command."""
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


def mget(keys: Sequence[bytes], columns: Sequence[tuple[bytes, bytes]] = (), width: int = 8) -> bytes:
    """MGET of some keys, then of prefix + id for each of the ids (``width`` bytes each) of each column."""
    count = len(keys) + sum(len(ids) for _, ids in columns) // width
    parts = [b"*%d\r\n$4\r\nMGET\r\n" % (1 + count)]
    parts += [b"$%d\r\n%b\r\n" % (len(key), key) for key in keys]
    for prefix, ids in columns:
        start = b"$%d\r\n%b" % (len(prefix) + width, prefix)
        rows = np.empty((len(ids) // width, len(start) + width + 2), np.uint8)
        rows[:, : len(start)] = np.frombuffer(start, np.uint8)
        rows[:, len(start) : -2] = np.frombuffer(ids, np.uint8).reshape(-1, width)
        rows[:, -2:] = np.frombuffer(_END, np.uint8)
        parts.append(rows.tobytes())
    return b"".join(parts)


class Reply:
    """One reply, cut as its bytes come: an array of values, or one line. ``error``: Redis refused."""

    def __init__(self) -> None:
        self.values: list[bytes | None] = []
        self.error: str | None = None
        self.done = False
        self._count: int | None = None
        self._ignored = 0

    @property
    def begun(self) -> bool:
        """Whether a part of it has been taken."""
        return self._count is not None or self._ignored > 0

    def feed(self, buffer: bytearray, at: int) -> int:
        """Takes what is complete from ``buffer[at:]``; returns where the rest begins."""
        if self._count is None and not self._ignored:
            stop = buffer.find(_END, at)
            if stop < 0:
                return at
            at = self._begin(bytes(buffer[at:stop]), stop + 2)
        if self._ignored and not self.done:
            at = self._ignore_values(buffer, at)
        elif self._count is not None and not self.done:
            at = self._take_values(buffer, at)
        return at

    def _ignore_values(self, buffer: bytearray, at: int) -> int:
        while self._ignored:
            found = value(buffer, at)
            if found is None:
                return at
            at = found[1]
            self._ignored -= 1
        self.done = True
        return at

    def _begin(self, line: bytes, after: int) -> int:
        kind, rest = line[:1], line[1:]
        if kind == b"*":
            self._count = _number(rest)
            self.done = self._count <= 0
        elif kind == b"%":
            # HELLO's description of the server: of no interest, but to be read to its end.
            self._ignored = 2 * _number(rest)
            self.done = self._ignored == 0
        elif kind == b"+":
            self.values, self.done = [rest], True
        elif kind == b"-":
            self.error, self.done = rest.decode(errors="replace"), True
        else:
            raise ProtocolError(f"reply begins with {line[:20]!r}")
        return after

    def _take_values(self, buffer: bytearray, at: int) -> int:
        values, count, size = self.values, self._count or 0, len(buffer)
        # Nearly all headers are alike: the last one is tried before another is parsed.
        header, length = b"?", 0
        while len(values) < count:
            if not buffer.startswith(header, at):
                stop = buffer.find(_END, at, at + _HEADER_BYTES)
                if stop < 0:
                    if size - at >= _HEADER_BYTES:
                        raise ProtocolError("a value without length")
                    return at
                header = bytes(buffer[at : stop + 2])
                length = _length(header)
            start = at + len(header)
            if length < 0:
                values.append(None)
                at = start
                continue
            if start + length + 2 > size:
                return at
            values.append(bytes(buffer[start : start + length]))
            at = start + length + 2
        self.done = True
        return at


def _length(header: bytes) -> int:
    """Of a string; -1 = null, in either version of the protocol."""
    if header == b"_\r\n":
        return -1
    if header[:1] != b"$":
        raise ProtocolError(f"a value begins with {header[:20]!r}")
    return _number(header[1:-2])


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
