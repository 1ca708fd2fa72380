"""Redis: one bounded pool per process, bytes in and out, every command under a timeout."""

from __future__ import annotations

import redis.asyncio as redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from services.runtime.settings import RedisSettings


def connect(settings: RedisSettings) -> redis.Redis:
    """A client; nothing is opened until the first command. Errors are ``redis.RedisError``. Close it with
    ``aclose``.

    One retry: a connection that the server closed while it was idle is found out by the first command on
    it.
    """
    seconds = settings.timeout_ms / 1000
    pool = redis.BlockingConnectionPool.from_url(
        settings.url,
        max_connections=settings.max_connections,
        timeout=seconds,
        socket_timeout=seconds,
        socket_connect_timeout=settings.connect_timeout_ms / 1000,
        decode_responses=False,
        retry=Retry(NoBackoff(), 1),
    )
    return redis.Redis.from_pool(pool)
