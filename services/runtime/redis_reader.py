"""One connection to Redis for reading: requests in a row, replies in the same order (resp.py).

A caller that gives up leaves its place in the row, and its reply is dropped when it comes. A connection that
is lost fails everybody who waits on it with OSError; the next request opens another.

With ``Tracking`` Redis also says on this connection which keys were written (RESP3, CLIENT TRACKING in
broadcast mode). Replies and these messages are handed on in the order in which Redis sent them, inside the
callback that received them: a reply's ``take`` has run before a later message is told. A server that cannot
track (before Redis 6, or a proxy) is used without.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from redis.asyncio.connection import parse_url

from services.runtime import telemetry
from services.runtime.redis_client import login_options
from services.runtime.resp import PUSH, ProtocolError, Reply, command, value
from services.runtime.settings import RedisSettings

log = telemetry.get_logger(__name__)
REFUSED = telemetry.counter("redis_reads_refused", "Reads refused: too many wait for Redis")
CONNECTIONS = telemetry.counter("redis_read_connections", "Connections opened for reading")
UNTRACKED = telemetry.counter("redis_untracked", "Connections to a Redis that cannot track keys")

Values = list[bytes | None]
# How the push begins that names keys (null instead of their array when all were flushed).
_WRITTEN = b">2\r\n$10\r\ninvalidate\r\n"
Take = Callable[[Reply], Any]
Waiting = tuple[Reply, Take, "asyncio.Future[Any]"]


@dataclass(frozen=True)
class Tracking:
    """Whom to tell about keys below ``prefixes``. written: keys, as the values of a reply; forget: whatever
    is known may have been written (all keys flushed, connection lost or not yet tracked)."""

    prefixes: tuple[bytes, ...]
    written: Callable[[Reply], None]
    forget: Callable[[], None]


def _as_is(reply: Reply) -> Values:
    return reply.values


class _Row(asyncio.Protocol):
    """The row of requests on one connection."""

    def __init__(self, tracking: Tracking | None) -> None:
        self._tracking = tracking
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
        at, size = 0, len(self._buffer)
        try:
            while at < size:
                begun = at
                at = self._push(at) if self._between(at) else self._reply(at)
                if at == begun:
                    break
        except ProtocolError as error:
            self.abort(error)
        del self._buffer[:at]

    def _between(self, at: int) -> bool:
        """Whether a push begins here: no reply is half read, and none begins like this."""
        return self._buffer[at] == PUSH and (not self._waiting or not self._waiting[0][0].begun)

    def _reply(self, at: int) -> int:
        if not self._waiting:
            raise ProtocolError("an answer without a question")
        reply, take, future = self._waiting[0]
        at = reply.feed(self._buffer, at)
        if reply.done:
            self._waiting.popleft()
            _answer(reply, take, future)
        return at

    def _push(self, at: int) -> int:
        if self._buffer.startswith(_WRITTEN + b"*", at):
            keys = Reply()
            end = keys.feed(self._buffer, at + len(_WRITTEN))
            if not keys.done:
                return at
            if self._tracking is not None:
                self._tracking.written(keys)
            return end
        found = value(self._buffer, at)
        if found is None:
            return at
        # Other pushes are none of ours.
        if self._tracking is not None and found[0] == [b"invalidate", None]:
            self._tracking.forget()
        return found[1]

    def connection_lost(self, error: Exception | None) -> None:
        """Asyncio's."""
        self._transport = None
        if self._tracking is not None:
            self._tracking.forget()
        self._fail(error or ConnectionResetError("redis closed the connection"))

    @property
    def usable(self) -> bool:
        """Whether requests may be sent."""
        return self._transport is not None and not self._transport.is_closing()

    def __len__(self) -> int:
        return len(self._waiting)

    def send(self, request: bytes, take: Take = _as_is) -> asyncio.Future[Any]:
        """The future of what ``take`` makes of the reply; it fails with OSError."""
        if self._transport is None:
            raise ConnectionResetError("not connected")
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append((Reply(), take, future))
        self._transport.write(request)
        return future

    def abort(self, error: Exception) -> None:
        """Drops the connection and fails everybody."""
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.abort()
        if self._tracking is not None:
            self._tracking.forget()
        self._fail(error)

    def _fail(self, error: Exception) -> None:
        while self._waiting:
            _, _, future = self._waiting.popleft()
            if not future.done():
                future.set_exception(error if isinstance(error, OSError) else OSError(str(error)))


def _answer(reply: Reply, take: Take, future: asyncio.Future[Any]) -> None:
    if future.done():  # the caller has given up
        return
    if reply.error is not None:
        future.set_exception(OSError(f"redis: {reply.error}"))
        return
    try:
        future.set_result(take(reply))
    except Exception as error:
        future.set_exception(error)


class RedisReader:
    """Opens its connection with the first request, and again when it was lost."""

    def __init__(self, settings: RedisSettings, max_waiting: int, tracking: Tracking | None = None) -> None:
        self._tracking = tracking
        self.tracked = False
        self._url = {**parse_url(settings.url), **login_options(settings)}
        self._connect_s = settings.connect_timeout_ms / 1000
        self._max_waiting = max_waiting
        self._row: _Row | None = None
        self._opening = asyncio.Lock()

    async def ask(self, request: bytes, take: Take = _as_is) -> Any:
        """What ``take`` makes of the reply to a packed command (default: its values); OSError (also as
        TimeoutError) when there is none.
        """
        row = self._row
        if row is None or not row.usable:
            row = await self._open()
        if len(row) >= self._max_waiting:
            REFUSED.inc()
            raise ConnectionRefusedError(f"{len(row)} reads wait for redis already")
        return await row.send(request, take)

    async def _open(self) -> _Row:
        async with self._opening:
            if self._row is not None and self._row.usable:
                return self._row
            async with asyncio.timeout(self._connect_s):
                row = await self._connect()
                try:
                    for words in self._greeting():
                        await row.send(command(*words))
                    self.tracked = await self._track(row)
                except BaseException:
                    row.abort(ConnectionAbortedError("not let in"))
                    raise
            CONNECTIONS.inc()
            self._row = row
            return row

    async def _track(self, row: _Row) -> bool:
        """Whether Redis tells of written keys from now on; False when it cannot."""
        if self._tracking is None:
            return False
        try:
            await row.send(command(b"HELLO", b"3"))
            prefixes = [word for prefix in self._tracking.prefixes for word in (b"PREFIX", prefix)]
            await row.send(command(b"CLIENT", b"TRACKING", b"ON", b"BCAST", *prefixes))
        except ConnectionError:
            raise
        except OSError as error:
            UNTRACKED.inc()
            log.warning("redis does not track keys: every item is read each time", error=str(error))
            return False
        return True

    async def _connect(self) -> _Row:
        loop = asyncio.get_running_loop()
        if "path" in self._url:
            _, row = await loop.create_unix_connection(self._new_row, self._url["path"])
            return row
        secure = self._url.get("connection_class", None)
        tls = ssl.create_default_context(cafile=self._url.get("ssl_ca_certs")) if secure is not None else None
        host, port = self._url.get("host", "localhost"), self._url.get("port", 6379)
        _, row = await loop.create_connection(self._new_row, host, port, ssl=tls)
        return row

    def _new_row(self) -> _Row:
        return _Row(self._tracking)

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
