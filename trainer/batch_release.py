"""What the batch trainer and release tell each other."""

from __future__ import annotations

from rec.model.v1 import model_pb2
from rec.v1 import release_pb2, release_pb2_grpc
from services.contract.model_store import SavedBase
from services.runtime.grpc_client import channel
from trainer.batch_settings import BatchSettings
from trainer.orders import Orders, Range

_RPC_TIMEOUT_S = 10.0


async def quarantined_by(settings: BatchSettings) -> list[Range]:
    """What the rollbacks that release knows have quarantined: (partition, start, end) of samples."""
    async with channel(settings.release_target, settings.grpc_client, settings.tls) as to_release:
        stub = release_pb2_grpc.ReleaseServiceStub(to_release)
        answer = await stub.ListReleases(release_pb2.ListReleasesRequest(), timeout=_RPC_TIMEOUT_S)
    orders = Orders()
    for record in answer.rollbacks:
        orders.take(record)
    return orders.quarantine.ranges()


async def register(settings: BatchSettings, saved: SavedBase) -> int:
    """Release's number of the model (the same for the same model); points the arm there when one is named."""
    async with channel(settings.release_target, settings.grpc_client, settings.tls) as to_release:
        stub = release_pb2_grpc.ReleaseServiceStub(to_release)
        answer = await stub.RegisterGeneration(
            release_pb2.RegisterGenerationRequest(
                manifest_uri=saved.manifest_uri,
                manifest_digest=saved.manifest_digest,
                parent_generation=saved.manifest["parent_generation"],
            ),
            timeout=_RPC_TIMEOUT_S,
        )
        if settings.arm:
            await stub.SetArm(
                release_pb2.SetArmRequest(
                    arm=settings.arm,
                    lineage=model_pb2.Lineage(generation=answer.generation, policy=saved.policy),
                    pinned_sequence=0,
                    state=model_pb2.RELEASE_STATE_SERVING,
                ),
                timeout=_RPC_TIMEOUT_S,
            )
        return int(answer.generation)
