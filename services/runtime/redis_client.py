"""Redis: one bounded pool per process, bytes in and out, every command under a timeout."""

from __future__ import annotations

from typing import Any

import redis.asyncio as redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from services.runtime.secrets import read_password
from services.runtime.settings import RedisSettings


def connect(settings: RedisSettings) -> redis.Redis:
    """A client; nothing is opened until the first command. Errors are ``redis.RedisError``. Close it with
    ``aclose``.

    One retry: a connection that the server closed while it was idle is found out by the first command on
    it. InvalidInput names a password file that is not whole.
    """
    seconds = settings.timeout_ms / 1000
    pool = redis.BlockingConnectionPool.from_url(
        settings.url,
        **login_options(settings),
        max_connections=settings.max_connections,
        timeout=seconds,
        socket_timeout=seconds,
        socket_connect_timeout=settings.connect_timeout_ms / 1000,
        decode_responses=False,
        retry=Retry(NoBackoff(), 1),
    )
    return redis.Redis.from_pool(pool)


def login_options(settings: RedisSettings) -> dict[str, Any]:
    """Who this process is to Redis and whom it takes for it, in redis-py's words; empty without either.
    InvalidInput names a password file that is not whole."""
    options: dict[str, Any] = {}
    if settings.username:
        options["username"] = settings.username
        options["password"] = read_password("redis.password_file", settings.password_file)
    if settings.ca_file:
        options["ssl_ca_certs"] = settings.ca_file
    return options
