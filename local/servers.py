"""Redis and Kafka of one stack: its own, or the user's, which are left as they are."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from local.child import Child
from local.kafka_server import KafkaServer
from local.paths import RunPaths
from local.processes import own_topics
from local.redis_server import RedisServer
from local.security import Security
from local.stack_config import StackConfig
from local.topic_setup import create_topics
from services.contract import topics
from services.runtime.settings import KafkaSettings


class Servers:
    """``kafka`` and ``redis`` are None where the user's own are used; a secured stack has its own."""

    def __init__(self, config: StackConfig, paths: RunPaths, security: Security | None) -> None:
        ports = config.ports
        self._theirs = KafkaSettings(bootstrap_servers=config.addresses().kafka_bootstrap)
        self._topics = [*topics.ALL, *own_topics(config.services)]
        self.redis = RedisServer(paths.redis, ports.redis, security) if config.redis_url is None else None
        self.kafka = (
            KafkaServer(paths.kafka, ports.kafka, ports.kafka_controller, security)
            if config.kafka_bootstrap is None
            else None
        )

    def start(self, say: Callable[[str], None]) -> None:
        """Starts both side by side and makes the topics. Raises StartFailed; children() says what runs."""
        with ThreadPoolExecutor(2) as pool:
            work = [pool.submit(self._start_redis), pool.submit(self._start_kafka, say)]
        for one in work:
            one.result()

    def restart(self, name: str) -> Child | None:
        """Starts one again, Kafka with its data, Redis empty; None when the name is not one of ours."""
        if name == "kafka" and self.kafka is not None:
            return self.kafka.start()
        if name == "redis" and self.redis is not None:
            return self.redis.start()
        return None

    def children(self) -> dict[str, Child]:
        """The processes started so far."""
        started = {"redis": self.redis and self.redis.child, "kafka": self.kafka and self.kafka.child}
        return {name: child for name, child in started.items() if child}

    def port(self, name: str) -> int:
        """Where one listens; 0 for anything else."""
        server = {"redis": self.redis, "kafka": self.kafka}.get(name)
        return server.port if server else 0

    def _start_redis(self) -> None:
        if self.redis is not None:
            self.redis.start()

    def _start_kafka(self, say: Callable[[str], None]) -> None:
        if self.kafka is None:
            create_topics(self._theirs, self._topics)
        else:
            self.kafka.start(say)
            self.kafka.create_topics(self._topics)
