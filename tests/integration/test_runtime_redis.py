"""The Redis client against a real server: bytes, bounded pool, quick failure."""

from __future__ import annotations

import asyncio
import time

import pytest
import redis.asyncio as redis

from services.runtime.redis_client import connect
from services.runtime.settings import RedisSettings

pytestmark = pytest.mark.integration


async def test_values_come_back_as_bytes(redis_url: str) -> None:
    client = connect(RedisSettings(url=redis_url))
    await client.set(b"k\xff", b"\x00\x01")
    assert await client.mget([b"k\xff", b"none"]) == [b"\x00\x01", None]
    await client.aclose()


async def test_more_callers_than_connections_wait_their_turn(redis_url: str) -> None:
    client = connect(RedisSettings(url=redis_url, max_connections=2, timeout_ms=5_000))
    assert await asyncio.gather(*(client.incr("n") for _ in range(50)))
    assert await client.get("n") == b"50"
    await client.aclose()


async def test_a_server_that_is_gone_is_an_error_soon_and_found_again_when_back(private_redis) -> None:
    client = connect(RedisSettings(url=private_redis.url, timeout_ms=200, connect_timeout_ms=200))
    await client.set("k", "v")
    private_redis.kill()
    began = time.monotonic()
    with pytest.raises(redis.RedisError):
        await client.get("k")
    assert time.monotonic() - began < 1.0
    await asyncio.to_thread(private_redis.start)
    assert await client.get("k") is None
    await client.aclose()
