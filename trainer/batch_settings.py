"""Settings of the batch trainer: which day, from where, and when its passes end."""

from __future__ import annotations

from pydantic import Field

from services.contract.feature_sets import WORLD
from services.runtime.settings import Group, GrownSetName, GrpcServerSettings, ProcessSettings
from trainer.settings import AdmissionSettings, LearningSettings


class FitSettings(Group):
    """When the batch trainer's passes end (trainer/fit.py)."""

    judged_hours: float = Field(default=2.0, gt=0, lt=24)
    """The newest hours of the day (event time; of 24, however long it is) judge the passes and are learned
    last: a test set of another day would say how good the model was for that day."""
    max_passes: int = Field(default=5, ge=1, le=100)
    """Ids are remembered from the second pass on: more than a few only overfit."""
    patience: int = Field(default=1, ge=1)
    """Passes without a gain after which it ends."""
    min_gain: float = Field(default=1e-4, ge=0)
    """Log loss by which a pass must beat the best one."""


class BatchSettings(ProcessSettings):
    """``python -m trainer batch``."""

    name: str = "trainer-batch"
    """Name in logs."""
    grpc: GrpcServerSettings = GrpcServerSettings(port=0)
    """Not opened: a command has no server."""
    day: str = Field(pattern=r"^\d{4}-\d\d-\d\d(T\d\d:\d\d:\d\d)?$")
    """The UTC day of event time to train, or the moment at which it begins: 2026-03-01T10:30:00."""
    day_s: int = Field(default=86_400, ge=1, le=86_400)
    """Event time in a day. Less where a day of the simulated world is short (make demo-days)."""
    history_days: int = Field(default=1, ge=1)
    """Days of samples, the trained one included, that a model from scratch learns."""
    parent: str | None = None
    """Manifest of a full model to go on from: then only samples behind its offsets are learned. Default: from
    scratch."""
    learning: LearningSettings = LearningSettings(minibatch_rows=4_096)
    """The optimiser. Large steps: nothing waits for them, and they take a fifth of the time."""
    admission: AdmissionSettings = AdmissionSettings()
    """Ids in."""
    fit: FitSettings = FitSettings()
    """Passes."""
    feature_set: GrownSetName = WORLD
    """The features that the model sees: a named set, or one that it has grown to (world+item_dwell.1).
    Samples may carry more; those that carry fewer are left out, and counted in the manifest."""
    lake_uri: str = "out/lake"
    """Where the samples are."""
    model_store_uri: str = "out/model-store"
    """Where the model goes, and what a killed run goes on from."""
    signing_key_file: str = ""
    """PEM file of the private key that signs manifests; empty = they are not signed."""
    trusted_keys_file: str = ""
    """PEM file of the public keys whose manifests may be a parent; empty = signatures are not checked."""
    release_target: str = "127.0.0.1:7058"
    """host:port of the release service, which numbers the model."""
    register_model: bool = True
    """Tell release of the model; without it the manifest's address is all that comes out."""
    arm: str = ""
    """Arm to be pinned to the new model; empty = none, the model waits for release's decision."""
    threads: int = Field(default=1, ge=1)
    """Of torch; under torchrun of all ranks of a machine together, each of which gets at least one."""
    rank_timeout_s: float = Field(default=600.0, gt=0)
    """How long a rank waits for the others: they read the day and save models at different speeds. One that
    has died is known at once."""
