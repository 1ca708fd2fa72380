"""A bare grpc.aio server: any request is answered with the same bytes.

``python -m benchmarks.features_echo PORT FILE``. No protobuf, no interceptor, the loop of our own servers.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import grpc
import uvloop


async def serve(port: int, answer: bytes) -> None:
    """Until it is stopped."""

    async def echo(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        return answer

    server = grpc.aio.server()
    handler = grpc.unary_unary_rpc_method_handler(echo)
    handlers = {"GetFeatures": handler}
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("rec.v1.FeatureService", handlers),)
    )
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(int(sys.argv[1]), Path(sys.argv[2]).read_bytes()))
