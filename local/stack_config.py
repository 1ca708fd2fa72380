"""What a stack is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from local.ports import HOST, Ports
from local.processes import BY_NAME, LOOP, PAGE, Addresses
from local.redis_server import redis_tls, redis_url

READY_TIMEOUT_S = 240.0


@dataclass(frozen=True)
class StackConfig:
    """``root``: absolute folder of its state, data and logs.

    ``seed``: arguments of ``loadgen seed``; None seeds nothing. ``wait_for``: the processes that ``start``
    waits for; None = all of them, or, unseeded, release and the page (the others have no model yet).
    ``env`` goes to every process, ``process_env`` to one. ``kafka_bootstrap`` and ``redis_url`` are the
    user's own servers, left as they are. ``secure``: TLS, logins and rules everywhere (local.security).
    """

    root: Path
    ports: Ports = field(default_factory=Ports.shifted)
    seed: Sequence[str] | None = None
    services: Sequence[str] = LOOP
    wait_for: Sequence[str] | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    process_env: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    kafka_bootstrap: str | None = None
    redis_url: str | None = None
    model_store_uri: str | None = None
    lake_uri: str | None = None
    secure: bool = False
    ready_timeout_s: float = READY_TIMEOUT_S

    def __post_init__(self) -> None:
        named = {*self.services, *self.process_env, *(self.wait_for or ())}
        unknown = named - set(BY_NAME)
        if unknown:
            raise ValueError(f"no such process: {', '.join(sorted(unknown))}; there are {', '.join(BY_NAME)}")
        if missing := set(self.wait_for or ()) - set(self.services):
            raise ValueError(f"wait_for names processes that are not started: {', '.join(sorted(missing))}")
        if self.secure and (self.kafka_bootstrap or self.redis_url):
            raise ValueError("a secured stack starts its own Kafka and Redis, whose users and rules it makes")
        if not self.root.is_absolute():
            raise ValueError(f"root {self.root} must be absolute: the processes run in the repository")

    def awaited(self) -> tuple[str, ...]:
        """The processes that must be SERVING before ``start`` returns."""
        if self.wait_for is not None:
            return tuple(self.wait_for)
        if self.seed is None:
            return tuple(name for name in self.services if name in ("release", PAGE))
        return tuple(self.services)

    def addresses(self) -> Addresses:
        """Where everything is."""
        return Addresses(
            ports=self.ports,
            kafka_bootstrap=self.kafka_bootstrap or f"{HOST}:{self.ports.kafka}",
            redis_url=self.redis_url or redis_url(self.ports.redis, tls=self.secure and redis_tls()),
            model_store_uri=self.model_store_uri or str(self.root / "model-store"),
            run_dir=str(self.root),
            lake_uri=self.lake_uri or str(self.root / "lake"),
        )
