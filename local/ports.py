"""Which part listens where on one machine, and what to say when a port is taken.

A stack can have every port shifted by an offset, or any free ports, so that several stacks run side by side.
"""

from __future__ import annotations

import errno
import fcntl
import random
import socket
import time
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

import psutil

from local.errors import PortBusy
from local.paths import cache_dir

HOST = "127.0.0.1"
# On the loopback interface as well (all of 127.0.0.0/8 is, on Linux): a process that replaces another one
# has the same ports at an address of its own, as a pod has.
SPARE_HOST = "127.0.0.2"
REDIS = 6379
KAFKA = 9092
KAFKA_CONTROLLER = 9093
SCENARIOS = 7063
# The live page, over HTTP.
PAGE = 7080
# Below the range (32768 and up on Linux) from which the kernel takes the ports of outgoing connections: one
# in there, like gRPC's customary 50051, is now and then taken by a client when its service starts.
SERVICES = {
    "gateway": 7051,
    "recall": 7052,
    "feature": 7053,
    "ranking": 7054,
    "collector": 7055,
    "joiner": 7056,
    "feature_pipeline": 7057,
    "release": 7058,
    "trainer": 7059,
    "lake": 7060,
    "joiner_label_first": 7061,
    "joiner_lookup": 7062,
    "page": 7064,
}
ADMIN_ABOVE = 100
METRICS_ABOVE = 200
# As above.
FREE_RANGE = range(20_000, 30_000)
# How long a free port is given to who asked for it.
GIVEN_S = 60.0


@dataclass(frozen=True)
class ServicePorts:
    """gRPC service port, admin port (health, reflection, channelz) and Prometheus port of one process."""

    grpc: int
    admin: int
    metrics: int


@dataclass(frozen=True)
class Ports:
    """Every port of one stack."""

    redis: int
    kafka: int
    kafka_controller: int
    # Where a load's switches listen (loadgen scenario).
    scenarios: int
    # Where a browser finds the live page.
    page: int
    services: Mapping[str, ServicePorts]

    @classmethod
    def shifted(cls, offset: int = 0) -> Ports:
        """The documented ports, all moved by ``offset``."""
        services = {
            name: ServicePorts(port + offset, port + offset + ADMIN_ABOVE, port + offset + METRICS_ABOVE)
            for name, port in SERVICES.items()
        }
        redis, kafka, controller = REDIS + offset, KAFKA + offset, KAFKA_CONTROLLER + offset
        return cls(redis, kafka, controller, SCENARIOS + offset, PAGE + offset, services)

    @classmethod
    def free(cls) -> Ports:
        """Ports that nobody listens on now, for a private stack beside others."""
        found = free_ports(5 + 3 * len(SERVICES))
        services = {
            name: ServicePorts(*found[5 + 3 * index : 8 + 3 * index]) for index, name in enumerate(SERVICES)
        }
        redis, kafka, controller, scenarios, page = found[:5]
        return cls(redis, kafka, controller, scenarios, page, services)

    def by_user(self, redis: bool = True, kafka: bool = True) -> dict[str, int]:
        """What listens -> port; Redis and Kafka only when the stack starts them itself."""
        ports = {"redis": self.redis} if redis else {}
        if kafka:
            ports |= {"kafka": self.kafka, "kafka controller": self.kafka_controller}
        ports["page web"] = self.page
        for name, service in self.services.items():
            ports |= {name: service.grpc, f"{name} admin": service.admin, f"{name} metrics": service.metrics}
        return ports


def is_free(port: int, host: str = HOST) -> bool:
    """Whether a server could listen on the port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            raise
    return True


def require_free(ports: Mapping[str, int]) -> None:
    """Raises PortBusy, one line: which port for what, who has it, what to do."""
    busy = {name: port for name, port in ports.items() if not is_free(port)}
    if not busy:
        return
    owners = listeners(busy.values())
    said = ", ".join(
        f"port {port} ({name}) is used by {owners.get(port, 'another process')}"
        for name, port in busy.items()
    )
    raise PortBusy(f"{said}. End it (a stack of ours: make down), or start with --port-offset")


def listeners(ports: Iterable[int]) -> dict[int, str]:
    """Who listens on the ports, as 'pid 12 (name)', as far as the system tells this user."""
    wanted = set(ports)
    found: dict[int, str] = {}
    try:
        connections = psutil.net_connections(kind="tcp")
    except psutil.AccessDenied:
        return found
    for connection in connections:
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port in wanted and connection.pid:
            try:
                name = psutil.Process(connection.pid).name()
            except psutil.Error:
                name = "?"
            found[connection.laddr.port] = f"pid {connection.pid} ({name})"
    return found


def free_ports(count: int) -> list[int]:
    """Distinct ports that nobody listens on now, and that nobody else who asks here gets within a minute, by
    when who asked listens. Another program could still take one."""
    cache_dir().mkdir(parents=True, exist_ok=True)
    with (cache_dir() / "ports").open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        now_s = time.time()
        pairs = (line.split() for line in file)
        given = {int(port): float(until_s) for port, until_s in pairs if float(until_s) > now_s}
        found = list(islice(filter(is_free, _in_any_order(given)), count))
        if len(found) < count:
            raise PortBusy(f"fewer than {count} free ports in {FREE_RANGE.start}..{FREE_RANGE.stop - 1}")
        given |= dict.fromkeys(found, now_s + GIVEN_S)
        file.truncate(0)
        file.writelines(f"{port} {until_s}\n" for port, until_s in given.items())
    return found


def _in_any_order(but: Container[int]) -> Iterator[int]:
    return (port for port in random.sample(FREE_RANGE, len(FREE_RANGE)) if port not in but)
