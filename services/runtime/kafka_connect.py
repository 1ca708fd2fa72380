"""What every Kafka client is made with, and starting one when the broker may not be there yet."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka import errors as kafka
from aiokafka.admin import AIOKafkaAdminClient

from services.contract import topics
from services.contract.errors import FieldViolation, Forbidden, InvalidInput, Unavailable
from services.runtime.kafka_errors import loop_error
from services.runtime.secrets import read_password, signed_by
from services.runtime.settings import KafkaSettings
from services.runtime.telemetry import get_logger

log = get_logger(__name__)
_DROP_S = 2.0
_LOG_EVERY = 10
_CHOICE = f"({topics.PARTITIONS_VARIABLE} says how many the event topics have)"
_BACKOFF_S = (0.1, 0.2, 0.5, 1.0)


def connection_options(settings: KafkaSettings) -> dict[str, Any]:
    """Where the brokers are, and how this process proves who it is: for aiokafka's constructors. InvalidInput
    names a file that is not whole."""
    options: dict[str, Any] = {"bootstrap_servers": settings.bootstrap_servers}
    protocol = "SSL" if settings.ca_file else "PLAINTEXT"
    if settings.ca_file:
        options["ssl_context"] = signed_by("kafka.ca_file", settings.ca_file)
    if settings.username:
        protocol = f"SASL_{protocol}"
        options["sasl_mechanism"] = "SCRAM-SHA-512"
        options["sasl_plain_username"] = settings.username
        options["sasl_plain_password"] = read_password("kafka.password_file", settings.password_file)
    return options | {"security_protocol": protocol}


async def connected(settings: KafkaSettings, make: Callable[[], Any], what: str) -> Any:
    """A started client, after as many tries as ``connect_timeout_ms`` allows; then Unavailable. Forbidden:
    the broker's rules do not let it start. InvalidInput: a topic has other partitions than ours.

    Each try is a client of its own, since one that failed to start cannot be started again."""
    deadline = time.monotonic() + settings.connect_timeout_ms / 1000
    tries = 0
    while True:
        client = make()
        try:
            async with asyncio.timeout(max(0.1, deadline - time.monotonic())):
                await client.start()
                await _check_partitions(client)
            return client
        except (TimeoutError, OSError, kafka.KafkaError) as error:
            await _stop(client)
            if isinstance(denied := loop_error(error, what), Forbidden):
                raise denied from error
            if time.monotonic() >= deadline or not _may_pass(error):
                raise Unavailable(f"{what}: Kafka at {settings.bootstrap_servers}: {error!r}") from error
            if tries % _LOG_EVERY == 0:
                log.warning(
                    "kafka not there yet", what=what, at=settings.bootstrap_servers, error=repr(error)
                )
        except BaseException:
            await _stop(client)
            raise
        await asyncio.sleep(_BACKOFF_S[min(tries, len(_BACKOFF_S) - 1)])
        tries += 1


async def _check_partitions(client: Any) -> None:
    """Of all topics that there are, and that this process may see."""
    if isinstance(client, AIOKafkaAdminClient):
        return
    network = client.client if isinstance(client, AIOKafkaProducer) else client._client
    try:
        cluster = await network.fetch_all_metadata()
    except kafka.KafkaError as error:
        raise kafka.KafkaConnectionError(f"no metadata: {error!r}") from error
    counts = {name: len(cluster.partitions_for_topic(name) or ()) for name in cluster.topics()}
    wrong = [
        FieldViolation(f"partitions of topic {topic.name}", str(count), f"{topic.partitions} {_CHOICE}")
        for topic, count in topics.miscounted(topics.ALL, counts)
    ]
    if wrong:
        raise InvalidInput(wrong)


async def _stop(client: Any) -> None:
    await (client.close() if isinstance(client, AIOKafkaAdminClient) else client.stop())


async def drop(client: AIOKafkaProducer) -> None:
    """Closes a producer without delivering what is pending (flush first, where it matters).

    The client's own ``stop`` waits for ever for batches that a missing broker cannot take, and failing
    those batches from outside trips its retries; so the sender is cancelled and the connections are closed.
    """
    client._closed = True
    sender = client._sender.sender_task
    if sender is not None:
        sender.cancel()
        _, running = await asyncio.wait({sender}, timeout=_DROP_S)
        if running:
            sender.cancel()  # the first cancellation lets requests in progress end; this one does not
            await asyncio.wait({sender}, timeout=_DROP_S)
    await client.client.close()


def _may_pass(error: BaseException) -> bool:
    return isinstance(error, OSError | TimeoutError | kafka.KafkaConnectionError) or bool(
        getattr(error, "retriable", False)
    )
