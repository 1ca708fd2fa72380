"""Every process of the loop: its command line, its place in the order of stopping, its environment."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

from local import compiled
from local.paths import REPOSITORY, RunPaths
from local.ports import HOST, SPARE_HOST, Ports
from services.contract import topics
from services.contract.signature import SIGNING_NAME, TRUSTED_NAME
from services.contract.topics import Topic

SERVICE_GRACE_S = 15.0
# In which clients hear that a process drains, and go to the one beside it.
LAME_DUCK_MS = 1_000
# A nice value. What answers requests, and the way of a click into the served model, have the machine first;
# what nobody waits for takes a third of their share where there is too little for all, and everything that
# they leave. Not less: a day's model has to come before the day's end, however busy the day is.
# Kubernetes shares the CPU out by its requests.
ASIDE = 5


@dataclass(frozen=True)
class ProcessSpec:
    """One process. Processes of one ``stage`` stop together, stages in falling order: requests end before
    what serves them, writers before readers, so that nothing acknowledged waits for a process that has
    gone.
    """

    name: str
    module: tuple[str, ...]
    stage: int
    # Whether the loop needs it; the others are started when they are asked for (up --with).
    in_loop: bool = True
    # Whether two of it may serve side by side. The others own what they write (a log, a lineage, partitions):
    # a second one would fence the first while it still works.
    beside: bool = False
    # Its priority.
    nice: int = 0
    # What makes it another process than the one of the same module.
    env: Mapping[str, str] = field(default_factory=dict)

    def command(self) -> list[str]:
        """The command line, with the interpreter that runs the launcher."""
        return [sys.executable, "-m", *self.module]

    def home(self) -> Path:
        """The folder to start it in, whose code it runs."""
        return compiled.home() if self.module == ("services.joiner",) else REPOSITORY


def _joiner(scheme: str) -> ProcessSpec:
    """A joiner that builds samples in another way, beside the loop's own, to topics of its own."""
    name = f"joiner_{scheme.replace('-', '_')}"
    env = {
        "RECLOOP_NAME": name,
        "RECLOOP_GROUP_ID": f"joiner-{scheme}",
        "RECLOOP_SCHEME": scheme,
        "RECLOOP_OUTPUT_SUFFIX": f"-{scheme}",
    }
    return ProcessSpec(name, ("services.joiner",), 3, in_loop=False, env=env)


SPECS = (
    ProcessSpec("release", ("services.release",), 1),
    ProcessSpec("trainer", ("trainer", "online"), 2),
    ProcessSpec("lake", ("services.lake",), 2, in_loop=False, nice=ASIDE),
    ProcessSpec("joiner", ("services.joiner",), 3),
    _joiner("label-first"),
    _joiner("lookup"),
    ProcessSpec("feature_pipeline", ("services.feature_pipeline",), 3),
    ProcessSpec("collector", ("services.collector",), 4, beside=True),
    ProcessSpec("ranking", ("services.ranking",), 4, beside=True),
    ProcessSpec("recall", ("services.recall",), 4, beside=True),
    ProcessSpec("feature", ("services.feature",), 4, beside=True),
    ProcessSpec("gateway", ("services.gateway",), 5, beside=True),
    # It asks all others, and none of them it.
    ProcessSpec("page", ("services.page",), 6, in_loop=False),
)
BY_NAME = {spec.name: spec for spec in SPECS}
LOOP = tuple(spec.name for spec in SPECS if spec.in_loop)
# Beside the loop wherever a person may want to look at it.
PAGE = "page"
OPTIONAL = tuple(spec.name for spec in SPECS if not spec.in_loop)

# Threads: two cores are shared by nine processes, and a pool per process would only switch contexts.
# Arenas: glibc gives each thread a heap of its own, which never shrinks.
RUNTIME = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "2",
    "PYTHONUNBUFFERED": "1",
}


@dataclass(frozen=True)
class Addresses:
    """Where the shared parts of one stack are."""

    ports: Ports
    kafka_bootstrap: str
    redis_url: str
    model_store_uri: str
    run_dir: str
    lake_uri: str
    # Where a process listens that was started beside another one, until both have changed places again.
    hosts: Mapping[str, str] = field(default_factory=dict)

    def host(self, name: str) -> str:
        """The address of a process, as a pod has one."""
        return self.hosts.get(name, HOST)

    def other_host(self, name: str) -> str:
        """Where its successor listens, on the same ports."""
        return HOST if self.host(name) == SPARE_HOST else SPARE_HOST

    def at(self, name: str, host: str) -> Addresses:
        """The same with one process elsewhere."""
        return replace(self, hosts={**self.hosts, name: host})

    def targets(self, name: str) -> str:
        """Where a client may find a service, now and when it has been replaced: what gRPC's clients are
        told."""
        if not BY_NAME[name].beside:
            return self.target(name)
        port = self.ports.services[name].grpc
        return f"{self.host(name)}:{port},{self.other_host(name)}:{port}"

    def target(self, name: str) -> str:
        """host:port of a service's gRPC port."""
        return f"{self.host(name)}:{self.ports.services[name].grpc}"

    def admin_target(self, name: str) -> str:
        """host:port of a service's admin port."""
        return f"{self.host(name)}:{self.ports.services[name].admin}"

    def metrics_target(self, name: str) -> str:
        """host:port of a service's metrics page."""
        return f"{self.host(name)}:{self.ports.services[name].metrics}"

    def metrics_targets(self, name: str) -> str:
        """As ``targets``."""
        if not BY_NAME[name].beside:
            return self.metrics_target(name)
        port = self.ports.services[name].metrics
        return f"{self.host(name)}:{port},{self.other_host(name)}:{port}"

    @property
    def page(self) -> str:
        """Where a browser finds the live page."""
        return f"http://{HOST}:{self.ports.page}/"


def shared_environment(addresses: Addresses, extra: Mapping[str, str]) -> dict[str, str]:
    """What every process of a stack, and every command against it, gets: addresses first, ``extra`` wins."""
    keys = RunPaths(Path(addresses.run_dir)).model_keys
    targets = {f"RECLOOP_{name.upper()}_TARGET": addresses.targets(name) for name in addresses.ports.services}
    return {
        **RUNTIME,
        **targets,
        "RECLOOP_SCENARIO_TARGET": f"{HOST}:{addresses.ports.scenarios}",
        "KAFKA_BOOTSTRAP_SERVERS": addresses.kafka_bootstrap,
        "RECLOOP_KAFKA__BOOTSTRAP_SERVERS": addresses.kafka_bootstrap,
        "REDIS_URL": addresses.redis_url,
        "RECLOOP_REDIS__URL": addresses.redis_url,
        "RECLOOP_MODEL_STORE_URI": addresses.model_store_uri,
        "RECLOOP_LAKE_URI": addresses.lake_uri,
        "RECLOOP_RUN_DIR": addresses.run_dir,
        "RECLOOP_SIGNING_KEY_FILE": str(keys / SIGNING_NAME),
        "RECLOOP_TRUSTED_KEYS_FILE": str(keys / TRUSTED_NAME),
        **extra,
    }


def process_environment(
    spec: ProcessSpec,
    addresses: Addresses,
    extra: Mapping[str, str],
    own: Mapping[str, str],
    secrets: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, str]:
    """The environment of one service: the shared one, its three ports, what is set for it alone, and where
    its own ``secrets`` are.
    """
    ports = addresses.ports.services[spec.name]
    return {
        **shared_environment(addresses, extra),
        "RECLOOP_GRPC__HOST": addresses.host(spec.name),
        "RECLOOP_GRPC__PORT": str(ports.grpc),
        "RECLOOP_GRPC__ADMIN_PORT": str(ports.admin),
        "RECLOOP_GRPC__METRICS_PORT": str(ports.metrics),
        **({"RECLOOP_GRPC__LAME_DUCK_MS": str(LAME_DUCK_MS)} if spec.beside else {}),
        # Who only reads models cannot sign one.
        **({} if spec.name == "trainer" else {"RECLOOP_SIGNING_KEY_FILE": ""}),
        **secrets,
        **(_page_environment(addresses) if spec.name == PAGE else {}),
        **spec.env,
        **own,
    }


def _page_environment(addresses: Addresses) -> dict[str, str]:
    asked = (name for name in LOOP if name != "feature")
    targets = {f"RECLOOP_METRICS__{name.upper()}": addresses.metrics_targets(name) for name in asked}
    return {**targets, "RECLOOP_WEB__PORT": str(addresses.ports.page)}


def own_topics(names: Iterable[str]) -> list[Topic]:
    """The topics that some processes write for themselves, beside those of the loop."""
    suffixes = [BY_NAME[name].env.get("RECLOOP_OUTPUT_SUFFIX", "") for name in names]
    return [topics.suffixed(topic, suffix) for suffix in suffixes if suffix for topic in topics.JOINED]


def stop_order(names: Mapping[str, object]) -> list[list[str]]:
    """Groups of names to stop together, first group first; Redis and Kafka last."""
    stages: dict[int, list[str]] = {}
    for name in names:
        spec = BY_NAME.get(name)
        stages.setdefault(spec.stage if spec else 0, []).append(name)
    return [sorted(stages[stage]) for stage in sorted(stages, reverse=True)]
