"""Channels to other services, and what is left of a caller's deadline.

A deadline does not travel by itself: pass ``timeout=remaining_s(context, ...)`` on every call made for a
caller. Retries are for calls declared idempotent, on UNAVAILABLE, inside the deadline (hedging is ignored
by the library's core). With TLS a channel shows this process's certificate, the newest there is.

Where there may be several replicas (a ``dns:`` name, a list of addresses) the channel watches the health of
each on its service port and sends nothing to one that does not say SERVING: a replica that begins is found as
soon as it can answer, one that drains is left before it refuses anything. A single address is called whatever
it says: there is no other to go to, and its own refusal says why.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import grpc

from services.contract.errors import DeadlineSpent
from services.runtime import tracing
from services.runtime.grpc_rotation import RotatingChannel
from services.runtime.settings import GrpcClientSettings, TlsSettings
from services.runtime.tls import files_of

_DEFAULTS = GrpcClientSettings()
_PLAINTEXT = TlsSettings()


def channel(
    target: str,
    settings: GrpcClientSettings = _DEFAULTS,
    tls: TlsSettings = _PLAINTEXT,
    *,
    idempotent: Sequence[str] = (),
) -> grpc.aio.Channel:
    """An open channel to ``host:port``, ``dns:///name:port``, or IPv4 addresses of replicas with commas
    between them; close it.

    ``idempotent`` names the services ("rec.v1.RecallService") or methods ("rec.v1.RecallService/Retrieve")
    that may be sent again when the server was not there.
    """
    several = target.startswith("dns:") or "," in target
    options = (
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.max_send_message_length", settings.max_message_bytes),
        ("grpc.keepalive_time_ms", settings.keepalive_ms),
        ("grpc.keepalive_timeout_ms", 5_000),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", settings.reconnect_max_ms),
        # The library's own 30 s are longer than a replica takes to be replaced: all known ones could be gone.
        ("grpc.dns_min_time_between_resolutions_ms", settings.reconnect_max_ms),
        # Services are neighbours: a proxy configured for the outside must not see these calls.
        ("grpc.enable_http_proxy", 0),
        ("grpc.enable_retries", 1),
        ("grpc.service_config", json.dumps(service_config(settings, idempotent, watch_health=several))),
        *_authority(target),
    )
    where, spans = uri(target), _spans()
    if not tls.on:
        return grpc.aio.insecure_channel(where, options=options, interceptors=spans)

    def connect(credentials: grpc.ChannelCredentials) -> grpc.aio.Channel:
        return grpc.aio.secure_channel(where, credentials, options=options, interceptors=spans)

    return RotatingChannel(files_of(tls), connect)


def _spans() -> list[grpc.aio.ClientInterceptor] | None:
    traced = tracing.active()
    if traced is None:
        return None
    # Imported here: only this needs OpenTelemetry.
    from services.runtime.traced_calls import ClientSpans

    return [ClientSpans(traced)]


def uri(target: str) -> str:
    """What the library calls a target: a list of addresses has a scheme."""
    return f"ipv4:{target}" if "," in target else target


def _authority(target: str) -> tuple[tuple[str, str], ...]:
    """Of a list it is its first address: certificates are checked against one name."""
    first, comma, _ = target.partition(",")
    return (("grpc.default_authority", first),) if comma else ()


def blocking_channel(target: str, tls: TlsSettings = _PLAINTEXT) -> grpc.Channel:
    """A channel for a command that calls once or twice without an event loop; close it."""
    options = (("grpc.enable_http_proxy", 0), *_authority(target))
    if not tls.on:
        return grpc.insecure_channel(uri(target), options=options)
    return grpc.secure_channel(uri(target), files_of(tls).material.channel_credentials(), options=options)


def service_config(
    settings: GrpcClientSettings, idempotent: Sequence[str], *, watch_health: bool = False
) -> dict[str, object]:
    """gRPC's service config: round robin over the addresses (those that say SERVING, with ``watch_health``),
    retries for the idempotent names."""
    config: dict[str, object] = {"loadBalancingConfig": [{"round_robin": {}}]}
    if watch_health:
        config["healthCheckConfig"] = {"serviceName": ""}
    names = []
    for name in idempotent:
        service, _, method = name.partition("/")
        names.append({"service": service, "method": method} if method else {"service": service})
    if names:
        retry = {
            "maxAttempts": settings.retry_attempts,
            "initialBackoff": "0.02s",
            "maxBackoff": "0.2s",
            "backoffMultiplier": 2,
            "retryableStatusCodes": ["UNAVAILABLE"],
        }
        config["methodConfig"] = [{"name": names, "retryPolicy": retry}]
    return config


def remaining_s(
    context: grpc.aio.ServicerContext,
    default_s: float,
    *,
    longest_s: float | None = None,
    reserve_s: float = 0.002,
) -> float:
    """Seconds that a call made for this caller may take: what is left of its deadline minus ``reserve_s``
    (for the way back), at most ``longest_s``; DeadlineSpent when nothing is left. A caller without a deadline
    has ``default_s``, which is also what None as ``longest_s`` means.
    """
    left = context.time_remaining()
    if left is None:
        return default_s
    usable = min(default_s if longest_s is None else longest_s, left - reserve_s)
    if usable <= 0:
        raise DeadlineSpent(f"{left * 1000:.1f} ms are left, {reserve_s * 1000:.1f} ms of them reserved")
    return usable
