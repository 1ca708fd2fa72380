"""What a process does first: whatever would be refused later, files and logins, is said at once, in one line.

Kafka or Redis that does not answer yet is no fault; one that refuses the login is.
"""

from __future__ import annotations

import asyncio
import ssl
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import redis.asyncio as redis
from aiokafka import errors as kafka
from aiokafka.conn import create_conn
from redis.exceptions import AuthenticationError, AuthorizationError, NoPermissionError

from services.contract.errors import InvalidInput
from services.runtime.kafka_connect import connection_options
from services.runtime.redis_client import connect
from services.runtime.settings import Connections, KafkaSettings, RedisSettings
from services.runtime.tls import files_of

_REFUSED = (
    kafka.AuthenticationFailedError,
    kafka.AuthenticationMethodNotSupported,
    kafka.UnsupportedSaslMechanismError,
    kafka.SaslAuthenticationFailed,
    ssl.SSLError,
)


async def check(settings: Connections) -> None:
    """InvalidInput for the first secret that is not whole or not taken."""
    if settings.tls.on:
        files_of(settings.tls)
    if settings.kafka.username:
        await _kafka_login(settings.kafka)
    if settings.redis.username:
        await _redis_login(settings.redis)


async def _kafka_login(settings: KafkaSettings) -> None:
    options = connection_options(settings)
    for server in options.pop("bootstrap_servers").split(","):
        host, _, port = server.strip().rpartition(":")
        limit_ms = settings.request_timeout_ms
        try:
            connection = await create_conn(host, int(port), request_timeout_ms=limit_ms, **options)
        except _REFUSED as error:
            where = f"a login that Kafka at {server} takes ({error or type(error).__name__})"
            raise InvalidInput.one("kafka.username", settings.username, where) from error
        except (OSError, TimeoutError, kafka.KafkaError):
            continue  # not there yet: those who need it wait for it
        connection.close()


async def _redis_login(settings: RedisSettings) -> None:
    client = connect(settings)
    try:
        await client.ping()
    except (AuthenticationError, AuthorizationError, NoPermissionError) as error:
        allowed = f"a login that Redis takes ({error})"
        raise InvalidInput.one("redis.username", settings.username, allowed) from error
    except redis.RedisError as error:
        if isinstance(error.__cause__, ssl.SSLError):
            raise InvalidInput.one("redis.ca_file", settings.ca_file, f"Redis' signer ({error})") from error
    finally:
        await client.aclose()


def require_whole(settings: Connections, who: str) -> None:
    """``check``, for a process that has not begun: says the fault on stderr and exits with 2."""
    if not (settings.tls.on or settings.kafka.username or settings.redis.username):
        return
    with said_at_once(who):
        asyncio.run(check(settings))


@contextmanager
def said_at_once(who: str) -> Iterator[None]:
    """A fault of the settings ends the process: one line on stderr, exit code 2."""
    try:
        yield
    except InvalidInput as error:
        print(f"{who}: {error}", file=sys.stderr)  # noqa: T201
        raise SystemExit(2) from None
