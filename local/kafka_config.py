"""The broker's configuration as text: what a single KRaft node on one machine needs, and why. No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from local.certificates import CA_NAME
from local.security import BROKER, KEYSTORE_NAME
from services.contract.topics import MAX_RECORD_BYTES

HEAP_MB = 384
# One broker and controller in one process, for one machine: nothing is replicated.
CLUSTER_ID = "cmVjbG9vcC1sb2NhbC0wMQ"
SCRAM = "SCRAM-SHA-512"


def server_properties(port: int, controller_port: int, data: Path) -> str:
    """server.properties of a node that listens on 127.0.0.1 only."""
    settings = {
        "process.roles": "broker,controller",
        "node.id": 1,
        "controller.quorum.voters": f"1@127.0.0.1:{controller_port}",
        "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "PLAINTEXT",
        "log.dirs": data,
        "auto.create.topics.enable": "false",
        # Internal topics: one node cannot replicate, and 50 partitions each would only cost start-up time.
        "offsets.topic.replication.factor": 1,
        "offsets.topic.num.partitions": 4,
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
        "transaction.state.log.num.partitions": 4,
        # A transaction that has timed out hides what is committed behind it until the broker looks again.
        "transaction.abort.timed.out.transaction.cleanup.interval.ms": 1000,
        "share.coordinator.state.topic.replication.factor": 1,
        "share.coordinator.state.topic.min.isr": 1,
        # Members of a group join together at start: waiting for more only delays the first sample.
        "group.initial.rebalance.delay.ms": 0,
        # Tests use short sessions so that a killed member's partitions move quickly.
        "group.min.session.timeout.ms": 1000,
        "message.max.bytes": MAX_RECORD_BYTES,
        "replica.fetch.max.bytes": MAX_RECORD_BYTES,
        "socket.request.max.bytes": 4 * MAX_RECORD_BYTES,
        # Preallocated index files are 10 MB each by default, twice per partition.
        "log.index.size.max.bytes": 1024 * 1024,
        "log.segment.bytes": 64 * 1024 * 1024,
        # The cleaner's buffer is taken from the heap at start: 128 MB by default.
        "log.cleaner.dedupe.buffer.size": 8 * 1024 * 1024,
        "num.network.threads": 2,
        "num.io.threads": 4,
        "num.recovery.threads.per.data.dir": 2,
        # After kill -9 the controller refuses the same broker until its old session has ended (9 s by
        # default). Not lower: a broker starved of CPU for this long would be fenced.
        "broker.session.timeout.ms": 6000,
        "broker.heartbeat.interval.ms": 1000,
        # Twice a second a record that says nothing, for observers of the controller: there are none.
        "metadata.max.idle.interval.ms": 0,
    }
    return "".join(f"{key}={value}\n" for key, value in settings.items())


def secure_properties(port: int, controller_port: int, folder: Path, password: str) -> str:
    """What changes with TLS and logins; ``folder`` holds the broker's keystore and CA.

    Clients log in by SCRAM over TLS; the controller's port takes the broker's certificate alone, since the
    passwords are only known once it has started. Whoever no rule names may do nothing."""
    login = "org.apache.kafka.common.security.scram.ScramLoginModule required"
    settings = {
        "listeners": f"SASL_SSL://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}",
        "advertised.listeners": f"SASL_SSL://127.0.0.1:{port}",
        "listener.security.protocol.map": "SASL_SSL:SASL_SSL,CONTROLLER:SSL",
        "inter.broker.listener.name": "SASL_SSL",
        "sasl.enabled.mechanisms": SCRAM,
        "sasl.mechanism.inter.broker.protocol": SCRAM,
        f"listener.name.sasl_ssl.{SCRAM.lower()}.sasl.jaas.config": (
            f'{login} username="{BROKER}" password="{password}";'
        ),
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": folder / KEYSTORE_NAME,
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": folder / CA_NAME,
        "listener.name.controller.ssl.client.auth": "required",
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": f"User:{BROKER};User:CN={BROKER}",
    }
    return "".join(f"{key}={value}\n" for key, value in settings.items())


def log4j_properties(log: Path) -> str:
    """Kafka's own log goes to one bounded file (2 x 10 MB)."""
    return f"""\
status=error
appender.file.type=RollingFile
appender.file.name=file
appender.file.fileName={log}
appender.file.filePattern={log}.%i
appender.file.layout.type=PatternLayout
appender.file.layout.pattern=[%d] %p %m (%c)%n
appender.file.policies.type=Policies
appender.file.policies.size.type=SizeBasedTriggeringPolicy
appender.file.policies.size.size=10MB
appender.file.strategy.type=DefaultRolloverStrategy
appender.file.strategy.max=1
rootLogger.level=info
rootLogger.appenderRef.file.ref=file
logger.config.name=org.apache.kafka.common.config.AbstractConfig
logger.config.level=warn
"""


def java_command(
    java: Path, jars: Path, main: str, *arguments: str, options: Sequence[str] = ()
) -> list[str]:
    """Command line of a Kafka main class with a small heap.

    The serial collector takes the least memory; the loop's traffic (some MB/s) does not need more. The first
    compiler alone: the second one takes more CPU than it saves while a broker has only run for minutes.
    """
    flags = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Djava.awt.headless=true")
    # zstd, snappy and lz4 load native code; Java 24+ warns unless it is allowed.
    native = ("--enable-native-access=ALL-UNNAMED",)
    return [
        str(java),
        f"-Xmx{HEAP_MB}m",
        "-Xms64m",
        *flags,
        *native,
        *options,
        "-cp",
        f"{jars}/*",
        main,
        *arguments,
    ]
