"""One stack: Redis, Kafka and the services, started together, watched, stopped in order.

    with Stack(StackConfig(root, ports=Ports.free())) as stack:
        stack.kill("joiner")
        stack.restart("joiner")

Start: ports are checked, Redis and Kafka start side by side, topics are made, then all services start at
once. ``release`` is the first to answer (it needs only its log); then the seed writes catalogue, features
and generation 1, upon which the others become SERVING. Stop: stage by stage in reverse, SIGTERM, SIGKILL
after the grace. A stack with a Kafka of its own begins empty, and so does its model store: generations are
numbered by what is in Kafka.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType, TracebackType

from local.child import Child, Identity, current_identity, describe_exit
from local.errors import NotRunning, StartFailed
from local.health import status_of
from local.kafka_server import STOP_GRACE_S as KAFKA_GRACE_S
from local.paths import REPOSITORY, RunPaths
from local.ports import require_free
from local.processes import (
    BY_NAME,
    PAGE,
    SERVICE_GRACE_S,
    Addresses,
    process_environment,
    shared_environment,
    stop_order,
)
from local.readiness import wait_serving
from local.redis_server import redis_tls
from local.security import Security, identity_of
from local.servers import Servers
from local.stack_config import StackConfig
from local.state import ProcessState, StackState, write_state
from services.contract.signature import make_keys

WATCH_S = 1.0

Say = Callable[[str], None]


def _quiet(_line: str) -> None:
    return None


class Stack:
    """Owns the processes of one stack. Not for use by several threads at once."""

    def __init__(
        self, config: StackConfig, say: Say = _quiet, on_death: Callable[[Child], None] | None = None
    ) -> None:
        self.config = config
        self.paths = RunPaths(config.root)
        self.addresses = config.addresses()
        self.children: dict[str, Child] = {}
        self.deaths: list[str] = []
        self.started_in_s = 0.0
        self._say = say
        self._on_death = on_death
        self.security = Security(self.paths.security, redis_tls()) if config.secure else None
        self._servers = Servers(config, self.paths, self.security)
        self._peaks: dict[str, int] = {}
        self._status = "down"
        self._stop_watching = threading.Event()
        self._watcher: threading.Thread | None = None
        self._identity = current_identity()

    def __enter__(self) -> Stack:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # -- start

    def start(self) -> None:
        """Starts everything and waits until it is ready. When that fails, everything is stopped again.

        Raises PortBusy, MissingPrerequisite, StartFailed."""
        began = time.monotonic()
        own_kafka, own_redis = self.config.kafka_bootstrap is None, self.config.redis_url is None
        require_free(self.config.ports.by_user(redis=own_redis, kafka=own_kafka))
        self._clean()
        make_keys(self.paths.model_keys)
        try:
            self._set_status("starting")
            try:
                self._servers.start(self._say)
            finally:
                self.children.update(self._servers.children())
            self._watcher = threading.Thread(target=self._watch, name="stack-watcher", daemon=True)
            self._watcher.start()
            for name in self.config.services:
                self._start_service(name)
            self._set_status("starting")
            self._seed_and_wait(began)
        except BaseException:
            self.stop()
            raise
        self.started_in_s = time.monotonic() - began
        self._set_status("up")

    def _clean(self) -> None:
        """Logs of the last run go; data too, when Kafka starts empty."""
        shutil.rmtree(self.paths.logs, ignore_errors=True)
        self.paths.logs.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(self.paths.security, ignore_errors=True)
        if self.security is not None:
            self.security.write()
        if self.config.kafka_bootstrap is None:
            shutil.rmtree(self.paths.kafka, ignore_errors=True)
            if self.config.model_store_uri is None:
                shutil.rmtree(self.addresses.model_store_uri, ignore_errors=True)
            if self.config.lake_uri is None:
                # Its files are named by offsets, and those begin anew.
                shutil.rmtree(self.addresses.lake_uri, ignore_errors=True)
            # As the lake's: checkpoints hold offsets.
            shutil.rmtree(self.paths.flink.root, ignore_errors=True)

    def _start_service(self, name: str) -> None:
        self.children[name] = self.launch(name, self.addresses)

    def launch(
        self, name: str, addresses: Addresses, more: Mapping[str, str] = MappingProxyType({})
    ) -> Child:
        """A process of the stack, listening where ``addresses`` say, that is no part of it yet: ``adopt``
        it, or end it. ``more``: environment for it alone."""
        spec = BY_NAME[name]
        own = {**self.config.process_env.get(name, {}), **more}
        secrets = self._secrets(spec.module[0])
        environment = process_environment(spec, addresses, self.config.env, own, secrets)
        return Child.start(
            name,
            spec.command(),
            self.paths.log(name),
            env={**os.environ, **environment},
            cwd=spec.home(),
            nice=spec.nice,
        )

    def adopt(self, child: Child, addresses: Addresses) -> None:
        """Takes a launched process for the part of its name; whose place it takes is no part any more."""
        self._keep_peak(self._child(child.name))
        self.children[child.name] = child
        self.addresses = addresses
        self._set_status(self._status)

    def _seed_and_wait(self, began: float) -> None:
        """The seed starts at once and waits for release by itself: both take as long to start."""
        awaited = set(self.config.awaited())
        deadline = began + self.config.ready_timeout_s
        if self.config.seed is None:
            self._wait_ready(awaited, deadline, began)
            return
        seed = self._start_seed(self.config.seed)
        try:
            self._wait_ready(awaited, deadline, began, lambda: _require_good(seed))
            if not seed.wait(max(1.0, deadline - time.monotonic())):
                raise StartFailed(f"the seed did not end in time; {seed.log} ends with:\n{seed.tail()}")
            _require_good(seed)
        finally:
            seed.kill()
        self._say(f"{time.monotonic() - began:5.1f} s  seeded")

    def _start_seed(self, arguments: Sequence[str]) -> Child:
        self._say(f"       seeding: loadgen seed {' '.join(arguments)}")
        patience = str(int(self.config.ready_timeout_s * 1000))
        return Child.start(
            "seed",
            [sys.executable, "-m", "loadgen", "seed", *arguments],
            self.paths.log("seed"),
            env={**self.environment("loadgen"), "RECLOOP_RELEASE_TIMEOUT_MS": patience},
            cwd=REPOSITORY,
        )

    def _wait_ready(
        self, names: set[str], deadline: float, began: float, meanwhile: Callable[[], None] = lambda: None
    ) -> None:
        targets = {name: self.addresses.admin_target(name) for name in names}

        def ready(name: str) -> None:
            where = f" at {self.addresses.page}" if name == PAGE else ""
            self._say(f"{time.monotonic() - began:5.1f} s  {name} is serving{where}")

        wait_serving(self.children, targets, deadline, ready, meanwhile)

    # -- while it runs

    def environment(self, module: str = "") -> dict[str, str]:
        """The full environment of a command that works against this stack: a module, or the operator's."""
        return {**os.environ, **self.own_environment(module)}

    def own_environment(self, module: str = "") -> dict[str, str]:
        """What of it is the stack's own."""
        return {**shared_environment(self.addresses, self.config.env), **self._secrets(module)}

    def _secrets(self, module: str) -> dict[str, str]:
        if self.security is None:
            return {}
        where = self.addresses
        return self.security.environment(identity_of(module), where.kafka_bootstrap, where.redis_url)

    def pid(self, name: str) -> int:
        """Process id of a part."""
        return self._child(name).pid

    def log(self, name: str) -> str:
        """The whole log of a part."""
        return self._child(name).log.read_text(errors="replace")

    def kill(self, name: str, number: int = signal.SIGKILL) -> None:
        """Ends a part by a signal and waits until it is gone."""
        self._keep_peak(self._child(name))
        self._child(name).kill(number)

    def restart(self, name: str, wait: bool = True) -> None:
        """Starts a part again (SIGTERM first when it runs), with the same ports and data; ``wait`` for
        SERVING.

        A restarted Redis is empty."""
        child = self._child(name)
        if child.exit_code is None:
            child.stop(SERVICE_GRACE_S)
        self._keep_peak(child)
        if server := self._servers.restart(name):
            self.children[name] = server
        else:
            self._start_service(name)
        self._set_status(self._status)
        if wait and name in BY_NAME:
            now = time.monotonic()
            self._wait_ready({name}, now + self.config.ready_timeout_s, now)

    def health(self, name: str) -> str:
        """SERVING, NOT_SERVING or UNREACHABLE."""
        return status_of(self.addresses.admin_target(name))

    def peak_memory_mb(self) -> dict[str, float]:
        """Highest resident size so far by process, in MB (10^6 bytes), also of those that have ended."""
        for child in list(self.children.values()):
            self._keep_peak(child)
        return {name: round(peak / 1e6, 1) for name, peak in sorted(self._peaks.items())}

    def _keep_peak(self, child: Child) -> None:
        self._peaks[child.name] = max(self._peaks.get(child.name, 0), child.sample_memory())

    def _child(self, name: str) -> Child:
        if name not in self.children:
            raise NotRunning(
                f"{name} is not part of this stack: {', '.join(self.children) or 'nothing runs'}"
            )
        return self.children[name]

    def _watch(self) -> None:
        """Samples memory and says at once when a process dies that nobody stopped."""
        told: set[Identity] = set()
        while not self._stop_watching.wait(WATCH_S):
            for child in list(self.children.values()):
                self._keep_peak(child)
                if child.exit_code is not None and not child.stopping and child.identity not in told:
                    told.add(child.identity)
                    self.deaths.append(child.name)
                    if self._on_death:
                        self._on_death(child)

    # -- stop

    def stop(self) -> None:
        """Stops what runs, in order. Leaves no process and no port; safe to call twice."""
        self._stop_watching.set()
        if self._watcher:
            self._watcher.join()
        if self._status == "down" and not self.children:
            return
        self._set_status("stopping")
        for group in stop_order(self.children):
            with ThreadPoolExecutor(len(group)) as pool:
                list(pool.map(self._stop_child, group))
        if self._peaks:
            self.paths.memory.write_text(
                json.dumps({"peak_memory_mb": self.peak_memory_mb()}, indent=2) + "\n"
            )
        self.children.clear()
        self._set_status("down")

    def _stop_child(self, name: str) -> None:
        child = self.children[name]
        self._keep_peak(child)
        began, ran = time.monotonic(), child.exit_code is None
        clean = child.stop(KAFKA_GRACE_S if name == "kafka" else SERVICE_GRACE_S)
        if ran:
            how = "stopped" if clean else "did not stop in time and was killed"
            self._say(f"{name} {how} ({time.monotonic() - began:.1f} s)")

    def _set_status(self, status: str) -> None:
        self._status = status
        processes = {name: self._state_of(name, child) for name, child in self.children.items()}
        where = self.addresses
        write_state(
            self.paths.state,
            StackState(
                status,
                self._identity,
                where.kafka_bootstrap,
                where.redis_url,
                where.model_store_uri,
                processes,
            ),
        )

    def _state_of(self, name: str, child: Child) -> ProcessState:
        ports = self.config.ports
        state = ProcessState(child.identity.pid, child.identity.started_at, str(child.log))
        if name in ports.services:
            own = ports.services[name]
            state.grpc, state.admin, state.metrics = own.grpc, own.admin, own.metrics
            state.host = self.addresses.host(name)
        else:
            state.grpc = self._servers.port(name)
        if name == "kafka" and self._servers.kafka is not None:
            state.log = str(self._servers.kafka.log)
        return state


def _require_good(seed: Child) -> None:
    if seed.exit_code:
        said = describe_exit(seed.exit_code)
        raise StartFailed(f"the seed {said}; {seed.log} ends with:\n{seed.tail()}")
