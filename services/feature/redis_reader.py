"""One connection to Redis for reading features: requests in a row, replies in the same order (resp.py).

A caller that gives up leaves its place in the row, and its reply is dropped when it comes. A connection that
is lost fails everybody who waits on it with OSError; the next request opens another.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from typing import cast

from redis.asyncio.connection import parse_url

from services.feature import metrics
from services.feature.resp import ProtocolError, Reply, command
from services.runtime.settings import RedisSettings

Waiting = tuple[Reply, "asyncio.Future[list[bytes | None]]"]


class _Row(asyncio.Protocol):
    """The row of requests on one connection."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._waiting: deque[Waiting] = deque()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Asyncio's."""
        # A cast: uvloop's transports do not derive from asyncio's.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Asyncio's."""
        self._buffer += data
        at = 0
        try:
            while self._waiting:
                reply, future = self._waiting[0]
                at = reply.feed(self._buffer, at)
                if not reply.done:
                    break
                self._waiting.popleft()
                _answer(reply, future)
        except ProtocolError as error:
            self.abort(error)
        del self._buffer[:at]

    def connection_lost(self, error: Exception | None) -> None:
        """Asyncio's."""
        self._transport = None
        self._fail(error or ConnectionResetError("redis closed the connection"))

    @property
    def usable(self) -> bool:
        """Whether requests may be sent."""
        return self._transport is not None and not self._transport.is_closing()

    def __len__(self) -> int:
        return len(self._waiting)

    def send(self, request: bytes) -> asyncio.Future[list[bytes | None]]:
        """The future of the reply; it fails with OSError."""
        if self._transport is None:
            raise ConnectionResetError("not connected")
        future: asyncio.Future[list[bytes | None]] = asyncio.get_running_loop().create_future()
        self._waiting.append((Reply(), future))
        self._transport.write(request)
        return future

    def abort(self, error: Exception) -> None:
        """Drops the connection and fails everybody."""
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.abort()
        self._fail(error)

    def _fail(self, error: Exception) -> None:
        while self._waiting:
            _, future = self._waiting.popleft()
            if not future.done():
                future.set_exception(error if isinstance(error, OSError) else OSError(str(error)))


def _answer(reply: Reply, future: asyncio.Future[list[bytes | None]]) -> None:
    if future.done():  # the caller has given up
        return
    if reply.error is not None:
        future.set_exception(OSError(f"redis: {reply.error}"))
    else:
        future.set_result(reply.values)


class RedisReader:
    """Opens its connection with the first request, and again when it was lost."""

    def __init__(self, settings: RedisSettings, max_waiting: int) -> None:
        self._url = parse_url(settings.url)
        self._connect_s = settings.connect_timeout_ms / 1000
        self._max_waiting = max_waiting
        self._row: _Row | None = None
        self._opening = asyncio.Lock()

    async def ask(self, request: bytes) -> list[bytes | None]:
        """The reply to a packed command; OSError (also as TimeoutError) when there is none."""
        row = self._row
        if row is None or not row.usable:
            row = await self._open()
        if len(row) >= self._max_waiting:
            metrics.ROW_FULL.inc()
            raise ConnectionRefusedError(f"{len(row)} reads wait for redis already")
        return await row.send(request)

    async def _open(self) -> _Row:
        async with self._opening:
            if self._row is not None and self._row.usable:
                return self._row
            async with asyncio.timeout(self._connect_s):
                row = await self._connect()
                try:
                    for words in self._greeting():
                        await row.send(command(*words))
                except BaseException:
                    row.abort(ConnectionAbortedError("not let in"))
                    raise
            metrics.CONNECTIONS.inc()
            self._row = row
            return row

    async def _connect(self) -> _Row:
        loop = asyncio.get_running_loop()
        if "path" in self._url:
            _, row = await loop.create_unix_connection(_Row, self._url["path"])
            return row
        secure = self._url.get("connection_class", None)
        tls = ssl.create_default_context() if secure is not None else None
        host, port = self._url.get("host", "localhost"), self._url.get("port", 6379)
        _, row = await loop.create_connection(_Row, host, port, ssl=tls)
        return row

    def _greeting(self) -> list[tuple[bytes, ...]]:
        words: list[tuple[bytes, ...]] = []
        password, user = self._url.get("password"), self._url.get("username")
        if password:
            names = (user.encode(),) if user else ()
            words.append((b"AUTH", *names, password.encode()))
        if self._url.get("db"):
            words.append((b"SELECT", b"%d" % self._url["db"]))
        return words

    def drop(self, why: str) -> None:
        """Gives the connection up: everybody who waits fails, the next request opens another."""
        row, self._row = self._row, None
        if row is not None:
            row.abort(ConnectionAbortedError(why))

    async def close(self) -> None:
        """Closes."""
        self.drop("closing")
