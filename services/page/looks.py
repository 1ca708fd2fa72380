"""Metrics pages over HTTP: of every replica of a service, only the names that are shown.

A name that has several addresses (a headless Service) is several replicas; addresses with commas between them
are places where one may be. A page that does not come in time,
is too long or is none is an error of its replica alone.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence

import aiohttp

from services.contract.errors import InvalidInput, LoopError, Unavailable
from services.page import metrics
from services.page.sources import Heard
from services.runtime.exposition import Reading, parse

# Neighbours: compressing would cost the process that is looked at more than the bytes do.
_PLAIN = {"Accept-Encoding": "identity"}

NOBODY = "nobody answers there"


def host_port(target: str) -> tuple[str, int]:
    """Of ``host:port``; InvalidInput."""
    host, _, port = target.rpartition(":")
    if not host or not port.isascii() or not port.isdigit():
        raise InvalidInput.one("target", target, "host:port")
    return host.strip("[]"), int(port)


async def addresses(target: str, most: int) -> list[tuple[str, int]]:
    """(address, port) of every replica behind a target, in order; those beyond ``most`` are counted.
    Unavailable when the name has none."""
    if "," in target:
        return [host_port(one) for one in target.split(",")][:most]
    host, port = host_port(target)
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise Unavailable(f"no such name: {error.strerror or error}") from error
    # One family: a replica that answers under two addresses is one.
    family = min(one[0] for one in found)
    distinct = sorted({one[4][0] for one in found if one[0] == family and isinstance(one[4][0], str)})
    metrics.LEFT_OUT.labels("replicas").inc(max(0, len(distinct) - most))
    return [(address, port) for address in distinct[:most]]


class MetricsLook:
    """Asks over one HTTP session, which its owner closes."""

    def __init__(self, session: aiohttp.ClientSession, max_bytes: int, max_replicas: int) -> None:
        self._session = session
        self._max_bytes = max_bytes
        self._max_replicas = max_replicas

    async def ask(self, target: str, names: Sequence[str], timeout_s: float) -> Heard:
        """Readings by replica; nothing for an empty target."""
        if not target:
            return Heard()
        try:
            async with asyncio.timeout(timeout_s):
                where = await addresses(target, self._max_replicas)
        except (LoopError, TimeoutError) as error:
            return Heard(errors={target: str(error) or "its name is not resolved in time"})
        names_of = [_name(address, port) for address, port in where]
        found = await asyncio.gather(*(self._read(name, names, timeout_s) for name in names_of))
        answers = {name: one for name, one in zip(names_of, found, strict=True) if isinstance(one, Reading)}
        errors = {name: one for name, one in zip(names_of, found, strict=True) if isinstance(one, str)}
        if answers and "," in target:
            # Of places where a replica may be, an empty one is no replica that is missing.
            errors = {name: why for name, why in errors.items() if why != NOBODY}
        return Heard(answers, errors)

    async def _read(self, where: str, names: Sequence[str], timeout_s: float) -> Reading | str:
        """A replica's page, or why there is none."""
        try:
            async with asyncio.timeout(timeout_s):
                return parse((await self._body(where, names)).decode())
        except TimeoutError:
            return f"no answer in {timeout_s:g} s"
        except aiohttp.ClientConnectorError:
            return NOBODY
        except aiohttp.ClientError as error:
            return type(error).__name__
        except (LoopError, UnicodeDecodeError) as error:
            return str(error)

    async def _body(self, where: str, names: Sequence[str]) -> bytes:
        """Unavailable when it is no page, or a longer one than is read."""
        wanted = [("name[]", name) for name in names]
        async with self._session.get(f"http://{where}/metrics", params=wanted, headers=_PLAIN) as answer:
            if answer.status != 200:
                raise Unavailable(f"answered {answer.status}")
            body = b""
            async for part in answer.content.iter_any():
                body += part
                if len(body) > self._max_bytes:
                    raise Unavailable(f"its page has more than {self._max_bytes} bytes")
        return body


def _name(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
