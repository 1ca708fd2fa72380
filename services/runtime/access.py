"""Asks of every call who makes it, and whether the table lets it (contract.access).

Who is calling, the certificate of the connection says: the SAN URI ``<identity_prefix><name>``. Handlers are
wrapped when they are added; a server without TLS has none of this.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import grpc

from services.contract.access import CALLERS, IDENTITIES
from services.contract.errors import Forbidden
from services.runtime.grpc_errors import status_of
from services.runtime.grpc_handlers import Behaviour, behaviour_of, rewrapped
from services.runtime.settings import TlsSettings
from services.runtime.telemetry import counter, get_logger

log = get_logger(__name__)
# In the counter; whoever is not in the table could have any name.
UNKNOWN = "unknown"


class Access:
    """The table, for callers whose identities begin with ``prefix``."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix.encode()
        self._refused = counter("access_refused", "Calls refused by the table.", ["method", "identity"])

    def checked(self, path: str, behaviour: Behaviour) -> Behaviour:
        """The handler of ``/service/method``, an async function or generator, behind the question."""
        method = path.removeprefix("/")
        allowed = frozenset(CALLERS.get(method, ()))
        if inspect.isasyncgenfunction(behaviour):

            async def stream(request: Any, context: grpc.aio.ServicerContext) -> AsyncIterator[Any]:
                await self._admit(method, allowed, context)
                async for answer in behaviour(request, context):
                    yield answer

            return stream

        async def call(request: Any, context: grpc.aio.ServicerContext) -> Any:
            await self._admit(method, allowed, context)
            return await behaviour(request, context)

        return call

    async def _admit(self, method: str, allowed: frozenset[str], context: grpc.aio.ServicerContext) -> None:
        identity = self.identity_of(context)
        if identity in allowed:
            return
        self._refused.labels(method, identity if identity in IDENTITIES else UNKNOWN).inc()
        log.warning("refused", method=method, identity=identity, peer=context.peer())
        who = ", ".join(sorted(allowed)) or "nobody"
        status = status_of(Forbidden(identity, f"call {method}", f"{who} may"))
        await context.abort(status.code, status.message, status.trailing_metadata)

    def identity_of(self, context: grpc.aio.ServicerContext) -> str:
        """The caller's name; empty when its certificate says none of ours."""
        for name in context.peer_identities() or ():
            if name.startswith(self._prefix):
                return name[len(self._prefix) :].decode(errors="replace")
        return ""


def access_of(tls: TlsSettings) -> Access | None:
    """None without TLS: nobody can be asked then."""
    return Access(tls.identity_prefix) if tls.on else None


class Doorkeeper:
    """Takes the place of a server when what no Guard stands before is added to it: health, reflection."""

    def __init__(self, server: grpc.aio.Server, access: Access) -> None:
        self._server = server
        self._access = access

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """grpc.aio.Server's: the methods of these are registered as well."""

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """grpc.aio.Server's."""
        wrapped = {
            name: rewrapped(handler, self._access.checked(f"/{service}/{name}", behaviour_of(handler)))
            for name, handler in handlers.items()
        }
        self._server.add_registered_method_handlers(service, wrapped)


def door(server: grpc.aio.Server, access: Access | None) -> Any:
    """What health and reflection are added to."""
    return server if access is None else Doorkeeper(server, access)
