"""``fetch``: gets what pip does not, once: Kafka's jars, formatted storage and start cache; checks Java and
Redis.
"""

from __future__ import annotations

from local import java, kafka_jars, kafka_server, kafka_start_cache, redis_server


def fetch() -> int:
    """Prints one line per part. Raises LocalError for what is missing."""
    print(f"setup: Java at {java.java()}", flush=True)
    folder = kafka_jars.jars(_say)
    kafka_server.formatted_template(folder)
    kafka_start_cache.make_start_cache(folder, _say)
    print(f"setup: Kafka {folder.name.removeprefix('kafka-')} in {folder}", flush=True)
    print(f"setup: Redis at {redis_server.redis_binary()}", flush=True)
    return 0


def _say(line: str) -> None:
    print(f"setup: {line}", flush=True)
