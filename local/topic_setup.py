"""Creates the loop's topics: ``python -m local.topic_setup``, against KAFKA_BOOTSTRAP_SERVERS (a login from
RECLOOP_KAFKA__USERNAME, __PASSWORD_FILE and __CA_FILE).

``python -m local.topic_setup -lookup -lf`` creates the output topics of joiners with these suffixes too.
On its own, without the launcher's dependencies: a container runs it once, before the services start.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, for_code

from local.errors import LocalError, StartFailed
from services.contract import topics
from services.contract.errors import LoopError
from services.runtime.kafka_connect import connection_options
from services.runtime.settings import Connections, KafkaSettings

POLL_S = 0.05
# Of each partition, where there are as many brokers.
COPIES = 3
TOPIC_ALREADY_EXISTS = 36


def create_topics(
    kafka: KafkaSettings, wanted: Sequence[topics.Topic] = topics.ALL, timeout_s: float = 30.0
) -> None:
    """Creates the topics that do not exist yet, then waits until all their partitions have a leader.

    Callable from inside a running event loop too. Raises StartFailed, naming the topic and Kafka's reason."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, _create_topics(kafka, wanted, timeout_s)).result()


async def _create_topics(kafka: KafkaSettings, wanted: Sequence[topics.Topic], timeout_s: float) -> None:
    bootstrap, options = kafka.bootstrap_servers, connection_options(kafka)
    deadline = time.monotonic() + timeout_s
    while True:
        admin = AIOKafkaAdminClient(**options, request_timeout_ms=10_000)
        try:
            await admin.start()
            await _create_missing(admin, wanted)
            while waiting := await _without_leader(admin, wanted):
                if time.monotonic() > deadline:
                    raise StartFailed(
                        f"Kafka at {bootstrap}: no leader for {', '.join(waiting)} in {timeout_s:.0f} s"
                    )
                await asyncio.sleep(POLL_S)
            return
        except (KafkaError, OSError) as error:
            if time.monotonic() > deadline:
                raise StartFailed(f"Kafka at {bootstrap} does not answer: {error!r}") from error
            await asyncio.sleep(0.2)
        finally:
            await admin.close()


async def _create_missing(admin: AIOKafkaAdminClient, wanted: Sequence[topics.Topic]) -> None:
    existing = set(await admin.list_topics())
    await _check_partitions(admin, [topic for topic in wanted if topic.name in existing])
    missing = [topic for topic in wanted if topic.name not in existing]
    if not missing:
        return
    copies = min(COPIES, len((await admin.describe_cluster())["brokers"]))
    new = [
        NewTopic(topic.name, topic.partitions, copies, topic_configs=topic.kafka_config())
        for topic in missing
    ]
    response = await admin.create_topics(new, timeout_ms=10_000)
    for name, code, *message in response.topic_errors:
        if code not in (0, TOPIC_ALREADY_EXISTS):
            raise StartFailed(f"Kafka refused topic {name}: {for_code(code).__name__} {message}")


async def _check_partitions(admin: AIOKafkaAdminClient, existing: Sequence[topics.Topic]) -> None:
    # Asked for none, Kafka describes all.
    described = await admin.describe_topics([topic.name for topic in existing]) if existing else ()
    counts = {found["topic"]: len(found["partitions"]) for found in described}
    for topic, count in topics.miscounted(existing, counts):
        raise StartFailed(
            f"topic {topic.name} has {count} partitions, {topic.partitions} are wanted: delete it, or "
            f"set {topics.PARTITIONS_VARIABLE}"
        )


async def _without_leader(admin: AIOKafkaAdminClient, wanted: Sequence[topics.Topic]) -> list[str]:
    described = {
        found["topic"]: found for found in await admin.describe_topics([topic.name for topic in wanted])
    }
    waiting = []
    for topic in wanted:
        partitions = described.get(topic.name, {}).get("partitions", [])
        if len(partitions) < topic.partitions or any(one["leader"] < 0 for one in partitions):
            waiting.append(topic.name)
    return waiting


def main(suffixes: Sequence[str]) -> int:
    """0 = every topic is there and has leaders; 1 = said in one line why not."""
    if {"-h", "--help"} & {*suffixes}:
        print(__doc__)
        return 0
    kafka = Connections().kafka
    try:
        beside = [topics.suffixed(topic, suffix) for suffix in suffixes for topic in topics.JOINED]
        create_topics(kafka, [*topics.ALL, *beside])
    except (LocalError, LoopError, ValueError) as error:
        print(f"topics: {error}", file=sys.stderr)
        return 1
    print(f"topics: {len(topics.ALL) + len(beside)} topics at {kafka.bootstrap_servers}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
