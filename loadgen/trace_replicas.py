"""When each replica of ranking had a delta: by its stream of what it has applied."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence

import grpc

from loadgen.trace_follow import StoryEnds
from loadgen.trace_proof import Contains
from loadgen.trace_story import Story
from rec.v1 import ranking_pb2, ranking_pb2_grpc
from services.contract.delta import Header
from services.contract.errors import InvalidInput, Unavailable
from services.contract.times import to_us
from services.runtime import grpc_client
from services.runtime.settings import TlsSettings

_LISTENS_S = 1.0


async def replicas(targets: str, tls: TlsSettings) -> list[str]:
    """Every replica behind host:port,host:port: a name that has several addresses (a headless Service) is
    several. With TLS a name is one, since its certificate is made out to it. Of several, those where nobody
    listens are places without a replica (a stack's second one, beside which it is replaced). InvalidInput,
    Unavailable."""
    found: list[str] = []
    for target in (one.strip() for one in targets.split(",")):
        host, _, port = target.rpartition(":")
        if not host or not port.isdecimal():
            raise InvalidInput.one("ranking_target", target, "host:port, several separated by commas")
        found += [target] if tls.on else [f"{address}:{port}" for address in await _addresses(host)]
    if len(found) == 1:
        return found
    heard = await asyncio.gather(*(_listens(target) for target in found))
    # Nobody at all: each is asked, and each says why not.
    return [target for target, listens in zip(found, heard, strict=True) if listens] or found


async def _listens(target: str) -> bool:
    host, _, port = target.rpartition(":")
    try:
        async with asyncio.timeout(_LISTENS_S):
            _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    except OSError:  # TimeoutError is one
        return False
    writer.close()
    return True


async def _addresses(host: str) -> list[str]:
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise Unavailable(f"ranking at {host}: no such name ({error.strerror or error})") from error
    # One family: a replica that answers under two addresses is one.
    family = min(one[0] for one in found)
    return sorted(
        {
            str(one[4][0]) if family == socket.AF_INET else f"[{one[4][0]}]"
            for one in found
            if one[0] == family
        }
    )


async def applied(
    story: Story, targets: Sequence[str], tls: TlsSettings, contains: Contains, patience_s: float
) -> None:
    """When each replica of ranking had the delta; StoryEnds when one has not said so in time."""
    header = contains.delta.header
    said = await asyncio.gather(*(_one(target, tls, header, patience_s) for target in targets))
    for at_us, what in sorted(one for one in said if one[0]):
        story.add(at_us, "applied", what)
    if silent := [what for at_us, what in said if not at_us]:
        raise StoryEnds("; ".join(silent))


async def _one(target: str, tls: TlsSettings, header: Header, patience_s: float) -> tuple[int, str]:
    async with grpc_client.channel(target, tls=tls) as channel:
        stub = ranking_pb2_grpc.RankingServiceStub(channel)
        try:
            async with asyncio.timeout(patience_s):
                async for one in stub.WatchApplied(ranking_pb2.WatchAppliedRequest()):
                    lineage = one.model.lineage
                    if (lineage.generation, lineage.policy) != header.lineage:
                        continue
                    if one.model.sequence >= header.sequence:
                        return to_us(one.applied_at), _applied(one, header.sequence)
        except TimeoutError:
            return 0, f"ranking at {target} has not applied it in {patience_s:.0f} s"
        except grpc.aio.AioRpcError as error:
            return 0, f"ranking at {target}: {error.code().name} {error.details()}"
    return 0, f"ranking at {target} has ended its stream"


def _applied(one: ranking_pb2.WatchAppliedResponse, wanted: int) -> str:
    where = f"by replica {one.replica}, arm {one.arm}"
    if one.model.sequence == wanted:
        return f"{where}: delta {wanted}, {one.rows:,} rows" if one.bytes else f"{where}: base {wanted}"
    how = "a base" if not one.bytes else "the oldest delta that it remembers"
    return f"{where}: by then, with {how} at {one.model.sequence}"
