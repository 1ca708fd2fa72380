"""``fetch``: gets what pip does not, once: Kafka's jars and its formatted storage; checks Java and Redis."""

from __future__ import annotations

from local import java, kafka_jars, kafka_server, redis_server


def fetch() -> int:
    """Prints one line per part. Raises LocalError for what is missing."""
    print(f"setup: Java at {java.java()}", flush=True)
    folder = kafka_jars.jars(lambda line: print(f"setup: {line}", flush=True))
    kafka_server.formatted_template(folder)
    print(f"setup: Kafka {folder.name.removeprefix('kafka-')} in {folder}", flush=True)
    print(f"setup: Redis at {redis_server.redis_binary()}", flush=True)
    return 0
