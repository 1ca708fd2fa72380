"""Settings of release."""

from __future__ import annotations

from pydantic import Field

from services.runtime.settings import GrpcServerSettings, ProcessSettings


class Settings(ProcessSettings):
    """Numbers generations and decides what each arm serves."""

    name: str = "release"
    """Name in logs and as Kafka client id."""
    grpc: GrpcServerSettings = GrpcServerSettings(port=7058)
    """The service port, the admin port and their limits."""
    transactional_id: str = "release"
    """Kafka lets one owner per id live: a second release fences the first, which then ends."""
    write_timeout_ms: int = Field(default=5_000, gt=0)
    """A decision that Kafka has not acknowledged by then is answered UNAVAILABLE; the log is read anew."""
    model_store_uri: str = "out/model-store"
    """Root of the model store; manifests named relative to it are found there."""
    trusted_keys_file: str = ""
    """PEM file of the public keys whose manifests are registered; empty = manifests are not read."""
    read_timeout_ms: int = Field(default=30_000, gt=0)
    """Reading the log to its end; it is compacted, so that more means a stuck broker."""
