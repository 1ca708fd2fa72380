"""A server with TLS, the certificates around it, and what its counters say."""

from __future__ import annotations

import socket
import ssl
from pathlib import Path

from cryptography import x509
from prometheus_client import REGISTRY

from local.certificates import Authority
from rec.v1 import release_pb2, release_pb2_grpc, worker_pb2, worker_pb2_grpc
from services.runtime.grpc_server import GrpcServer
from services.runtime.process import Process
from services.runtime.settings import GrpcServerSettings, ProcessSettings, TlsSettings

WORKER = "rec.v1.WorkerService"
RELEASE = "rec.v1.ReleaseService"


class Worker(worker_pb2_grpc.WorkerServiceServicer):
    """Answers."""

    async def GetWorkerStatus(self, request, context):
        return worker_pb2.GetWorkerStatusResponse(worker="w")


class Release(release_pb2_grpc.ReleaseServiceServicer):
    """Takes every arm."""

    async def SetArm(self, request, context):
        return release_pb2.SetArmResponse()


class Town:
    """A CA, and folders with the certificates of identities."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority.new()

    def files(self, identity: str, *, reread_ms: int = 50) -> TlsSettings:
        """Issues (again) in place of what was there."""
        written = self.authority.write(self.folder / identity, identity)
        return written.model_copy(update={"reread_ms": reread_ms})


async def start(tls: TlsSettings, **limits: int) -> tuple[Process, GrpcServer]:
    """A release with a worker's service, listening."""
    process = Process(ProcessSettings(name="test", tls=tls, grpc=GrpcServerSettings(port=0, **limits)))
    server = GrpcServer(
        process.settings.grpc,
        process,
        [
            (worker_pb2_grpc.add_WorkerServiceServicer_to_server, Worker(), WORKER),
            (release_pb2_grpc.add_ReleaseServiceServicer_to_server, Release(), RELEASE),
        ],
    )
    await server.start()
    server.set_serving(True)
    return process, server


def counted(name: str, **labels: str) -> float:
    """A counter of this process."""
    return REGISTRY.get_sample_value(f"recloop_{name}_total", labels) or 0.0


def served_serial(port: int, client: TlsSettings) -> int:
    """The number of the certificate that a server shows now."""
    context = ssl.create_default_context(cafile=client.ca_file)
    context.load_cert_chain(client.certificate_file, client.key_file)
    with (
        socket.create_connection(("127.0.0.1", port), timeout=5) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as secured,
    ):
        shown = secured.getpeercert(binary_form=True)
        assert shown is not None
        return x509.load_der_x509_certificate(shown).serial_number


def serial_in(files: TlsSettings) -> int:
    """The number of the certificate in a folder."""
    return x509.load_pem_x509_certificate(Path(files.certificate_file).read_bytes()).serial_number
