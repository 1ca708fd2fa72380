"""``python -m services.runtime.probe host:port [service]``: exit 0 when gRPC health says SERVING, else 1.

For images without a shell or grpc_health_probe; ask the admin port, which answers under overload.
"""

from __future__ import annotations

import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

TIMEOUT_S = 3


def probe(target: str, service: str = "") -> str:
    """The serving status of a target as a word; the gRPC code's name when it does not answer."""
    with grpc.insecure_channel(target) as channel:
        request = health_pb2.HealthCheckRequest(service=service)
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=TIMEOUT_S)
        except grpc.RpcError as error:
            return error.code().name
    return health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)


def main(argv: list[str]) -> int:
    """Prints the status; 0 = SERVING, 1 = anything else, 2 = wrong arguments."""
    if not 1 <= len(argv) <= 2:
        print("usage: python -m services.runtime.probe host:port [service]", file=sys.stderr)  # noqa: T201
        return 2
    status = probe(*argv)
    print(status)  # noqa: T201
    return 0 if status == "SERVING" else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
