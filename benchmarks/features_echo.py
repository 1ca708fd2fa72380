"""A bare grpc.aio server: any request is answered with the same bytes.

``python -m benchmarks.features_echo PORT FILE``. No protobuf, nothing around the handler, the loop of our own
servers. ``--message`` reads the request and builds and serialises the answer as protobuf messages; ``--mget
FILE URL`` sends a command to Redis for each request, and answers when its reply is whole: what any server
costs that does so, before it computes anything.
"""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path
from typing import Any

import grpc
import uvloop

from rec.v1.feature_pb2 import GetFeaturesRequest, GetFeaturesResponse
from services.runtime.redis_reader import RedisReader
from services.runtime.settings import RedisSettings


def _as_message(answer: bytes) -> Any:
    """The handler that makes a new message of the same fields each time."""
    made = GetFeaturesResponse.FromString(answer)
    fields = {field.name: value for field, value in made.ListFields()}

    async def echo(request: GetFeaturesRequest, context: grpc.aio.ServicerContext) -> GetFeaturesResponse:
        return GetFeaturesResponse(**fields)

    return grpc.unary_unary_rpc_method_handler(
        echo, GetFeaturesRequest.FromString, GetFeaturesResponse.SerializeToString
    )


def _as_bytes(answer: bytes, mget: tuple[str, str] | None) -> Any:
    if mget is None:

        async def echo(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
            return answer

        return grpc.unary_unary_rpc_method_handler(echo)
    command, reader = Path(mget[0]).read_bytes(), RedisReader(RedisSettings(url=mget[1]), 100)

    async def ask(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        await reader.ask(command, lambda reply: None)
        return answer

    return grpc.unary_unary_rpc_method_handler(ask)


async def serve(given: argparse.Namespace) -> None:
    """Until it is stopped."""
    answer = given.answer.read_bytes()
    handler = _as_message(answer) if given.message else _as_bytes(answer, given.mget)
    server = grpc.aio.server()
    handlers = {"GetFeatures": handler}
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("rec.v1.FeatureService", handlers),)
    )
    server.add_insecure_port(f"127.0.0.1:{given.port}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("port", type=int)
    parser.add_argument("answer", type=Path)
    parser.add_argument("--message", action="store_true")
    parser.add_argument("--mget", nargs=2)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(parser.parse_args()))
