"""What a secured demo proves while its load runs: who must not get in does not, and is counted; certificates
are replaced and no request fails for it.

The probe knocks at the gateway in plaintext, without a certificate and with one of another CA; as ``recall``
(whose certificate and logins are good) it calls a method, writes to a topic and to a Redis key that are not
recall's. What it reports is what the other side has counted: the services' metrics, the broker's log, Redis'
own log. An attempt that gets through is an error.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any

import grpc
import redis

from local.certificates import Authority
from local.errors import LocalError, StartFailed
from local.kafka_acls import denials
from local.security import Security
from local.stack import Stack
from rec.v1 import gateway_pb2, gateway_pb2_grpc, release_pb2, release_pb2_grpc
from services.contract import topics
from services.contract.access import OPERATOR
from services.contract.errors import Forbidden
from services.runtime import exposition, redis_client
from services.runtime.grpc_client import blocking_channel
from services.runtime.kafka_producer import Producer

# Behind the start of the load generator, which takes some seconds until its first request.
BEGIN_S = 20.0
PATIENCE_S = 20.0
CALL_S = 5.0
POLL_S = 0.2
INTRUDER = "recall"
METHOD = "rec.v1.ReleaseService/SetArm"
TOPIC = topics.SAMPLES.name
# In demo.json; each at least 1.
REFUSALS = (
    "plaintext",
    "no_certificate",
    "wrong_certificate",
    "foreign_method",
    "foreign_topic",
    "foreign_key",
)


class SecurityDemo(AbstractContextManager["SecurityDemo"]):
    """Around the load: probes and rotates in a thread. ``figures`` are there behind it."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._hurry = threading.Event()
        self._thread = threading.Thread(target=self._run, name="security demo")
        self.figures: dict[str, Any] = {}
        self.problem = ""

    def __enter__(self) -> SecurityDemo:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hurry.set()
        self._thread.join()

    def _run(self) -> None:
        self._hurry.wait(BEGIN_S)
        security = self._stack.security
        assert security is not None  # only of a secured stack
        try:
            self.figures = probe(self._stack, security)
            self.figures["certificates_replaced"] = replace_certificates(self._stack, security)
        except (LocalError, OSError) as error:
            self.problem = str(error)

    def conclude(self, path: Path, say: Callable[[str], None]) -> int:
        """Adds ``security`` to the demo's figures and says it; 1 when something is wrong with it."""
        found = json.loads(path.read_text())
        found["security"] = self.figures
        path.write_text(json.dumps(found, indent=2) + "\n")
        for name, value in self.figures.items():
            say(f"  security: {name:<24}{value}")
        wrong = [self.problem] if self.problem else problems(self.figures)
        for one in wrong:
            say(f"security: FAILED: {one}")
        return int(bool(wrong))


def problems(figures: dict[str, Any]) -> list[str]:
    """What a secured demo must show, and does not."""
    missing = [f"security.{name} = 0" for name in REFUSALS if not figures.get(name)]
    return missing if figures.get("certificates_replaced") else [*missing, "no certificate was replaced"]


def probe(stack: Stack, security: Security) -> dict[str, Any]:
    """How often each attempt was counted by who refused it. Raises StartFailed when one got through."""
    before = counts(stack, security)
    knock(stack, security)
    deadline = time.monotonic() + PATIENCE_S
    while True:
        after = counts(stack, security)
        found = {name: after[name] - before[name] for name in REFUSALS}
        if all(found.values()) or time.monotonic() > deadline:
            return {**found, "redis_tls": security.redis_tls}
        time.sleep(POLL_S)


def knock(stack: Stack, security: Security) -> None:
    """Tries everything once."""
    gateway = stack.addresses.target("gateway")
    ours = security.authority.pem()
    stranger = Authority.new("nobody's CA").issue(OPERATOR)
    wrong = grpc.ssl_channel_credentials(ours, stranger[1], stranger[0])
    _must_fail("plaintext", grpc.StatusCode.UNAVAILABLE, grpc.insecure_channel(gateway), _recommend)
    for what, credentials in (
        ("no certificate", grpc.ssl_channel_credentials(ours)),
        ("a wrong certificate", wrong),
    ):
        channel = grpc.secure_channel(gateway, credentials)
        _must_fail(what, grpc.StatusCode.UNAVAILABLE, channel, _recommend)
    release = blocking_channel(stack.addresses.target("release"), security.tls(INTRUDER))
    _must_fail(f"{INTRUDER} calling {METHOD}", grpc.StatusCode.PERMISSION_DENIED, release, _set_arm)
    asyncio.run(_write_to_kafka(stack, security))
    asyncio.run(_write_to_redis(stack, security))


def _must_fail(
    what: str, code: grpc.StatusCode, channel: grpc.Channel, call: Callable[[grpc.Channel], object]
) -> None:
    with channel:
        try:
            call(channel)
        except grpc.RpcError as error:
            if error.code() is not code:
                raise StartFailed(f"{what}: {error.code().name}, not {code.name}") from error
            return
    raise StartFailed(f"{what}: was answered")


def _recommend(channel: grpc.Channel) -> object:
    request = gateway_pb2.RecommendRequest(user_key="probe", n=1)
    return gateway_pb2_grpc.GatewayServiceStub(channel).Recommend(request, timeout=CALL_S)


def _set_arm(channel: grpc.Channel) -> object:
    return release_pb2_grpc.ReleaseServiceStub(channel).SetArm(release_pb2.SetArmRequest(), timeout=CALL_S)


async def _write_to_kafka(stack: Stack, security: Security) -> None:
    producer = Producer(security.kafka(INTRUDER, stack.addresses.kafka_bootstrap), "probe")
    await producer.start()
    try:
        async with asyncio.timeout(CALL_S):
            await producer.send(TOPIC, b"forged", b"forged")
    except Forbidden:
        return
    finally:
        await producer.stop()
    raise StartFailed(f"{INTRUDER} wrote to {TOPIC}")


async def _write_to_redis(stack: Stack, security: Security) -> None:
    client = redis_client.connect(security.redis(INTRUDER, stack.addresses.redis_url))
    try:
        await client.set("f:forged", b"forged")
    except redis.exceptions.NoPermissionError:
        return
    finally:
        await client.aclose()
    raise StartFailed(f"{INTRUDER} wrote to Redis")


def counts(stack: Stack, security: Security) -> dict[str, int]:
    """What has been refused until now, by whoever refused it."""
    handshakes = metric(stack, "gateway", "recloop_tls_refused_total", "reason")
    calls = metric(stack, "release", "recloop_access_refused_total", "method")
    denied = denials(stack.paths.kafka / "server.log")
    return {
        **{name: int(handshakes.get(name, 0)) for name in REFUSALS[:3]},
        "foreign_method": int(calls.get(METHOD, 0)),
        "foreign_topic": sum(
            count for (who, _, _, name), count in denied.items() if (who, name) == (INTRUDER, TOPIC)
        ),
        "foreign_key": asyncio.run(_redis_denials(stack, security)),
    }


async def _redis_denials(stack: Stack, security: Security) -> int:
    client = redis_client.connect(security.redis(OPERATOR, stack.addresses.redis_url))
    try:
        found: Any = await client.acl_log()
    finally:
        await client.aclose()
    # Not what the client library says about itself, which recall may not either.
    return sum(
        int(one["count"])
        for one in found
        if (_text(one["username"]), _text(one["object"])) == (INTRUDER, "set")
    )


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


def metric(stack: Stack, process: str, name: str, label: str) -> dict[str, float]:
    """A metric of a process, added up by one of its labels."""
    target = stack.addresses.metrics_target(process)
    return exposition.fetched(target, CALL_S).by(name, label)


def replace_certificates(stack: Stack, security: Security) -> int:
    """Issues new ones to every process; returns how many processes have taken theirs."""
    before = {name: _taken(stack, name) for name in stack.config.services}
    security.rotate()
    deadline = time.monotonic() + PATIENCE_S
    while waiting := [name for name, had in before.items() if _taken(stack, name) <= had]:
        if time.monotonic() > deadline:
            raise StartFailed(f"{', '.join(waiting)} did not take new certificates in {PATIENCE_S:.0f} s")
        time.sleep(POLL_S)
    return len(before)


def _taken(stack: Stack, process: str) -> float:
    return metric(stack, process, "recloop_tls_reloads_total", "outcome").get("taken", 0.0)
