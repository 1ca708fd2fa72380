"""Settings of release."""

from __future__ import annotations

from pydantic import Field, model_validator

from services.contract.feature_sets import WORLD
from services.runtime.settings import FeatureSetName, Group, GrpcServerSettings, ProcessSettings


class GateRules(Group):
    """What a full model must show on the newest rows (gate.py)."""

    min_rows: int = Field(default=2_000, ge=1)
    """Fewer rows do not tell a good model from a bad one."""
    min_positives: int = Field(default=50, ge=1)
    """The same of clicks."""
    max_auc_loss: float = Field(default=0.01, ge=0)
    """AUC below that of what was served."""
    max_log_loss_gain: float = Field(default=0.02, ge=0)
    """Log loss above that of what was served."""
    calibration_low: float = Field(default=0.5, gt=0)
    """Clicks that came over clicks foretold."""
    calibration_high: float = Field(default=2.0, gt=0)
    """The same, upwards."""
    max_row_norm: float = Field(default=50.0, gt=0)
    """Of an id's row: far above what training gives."""
    max_dense_abs: float = Field(default=50.0, gt=0)
    """Of a dense value; the trainer takes no step beyond this (learning.max_abs_value)."""
    min_canary_spread: float = Field(default=1e-4, ge=0)
    """A model that scores all canaries alike ranks nothing."""
    max_canary_shift: float = Field(default=3.0, gt=0)
    """Logits between a canary's score and that of the serving model: twentyfold odds."""


class GuardRules(Group):
    """When an arm is taken back (guard.py)."""

    min_requests: int = Field(default=100, ge=2)
    """In a window, of either arm; below it nothing is said."""
    max_log_loss_gain: float = Field(default=0.02, ge=0)
    """Log loss above the baseline's, beyond chance."""
    calibration_low: float = Field(default=0.5, gt=0)
    """Clicks that came over clicks foretold."""
    calibration_high: float = Field(default=2.0, gt=0)
    """The same, upwards."""
    max_ctr_loss: float = Field(default=0.1, ge=0, lt=1)
    """Share of the baseline's click rate that may be missing, beyond chance."""
    max_psi: float = Field(default=1.0, gt=0)
    """Distance of the scores' distributions; 0.25 is customarily another population, policies differ more."""
    sigmas: float = Field(default=3.0, ge=0)
    """Standard errors that are chance."""
    breaches: int = Field(default=2, ge=1)
    """Windows in a row; one bad window in a day of looking is noise."""


class SequentialRules(Group):
    """When the sequential test speaks (contract/sequential.py)."""

    alpha: float = Field(default=0.05, gt=0, lt=1)
    """Chance of a verdict without a difference, over all looks."""
    tau: float = Field(default=0.01, gt=0)
    """The difference of click rates that is looked for; a wrong guess costs time, never validity."""
    min_users: int = Field(default=100, ge=2)
    """Of each arm: the variance is one of many users."""


class PromotionRules(Group):
    """How a full model is tried by itself (promotion.py)."""

    shadow_s: float = Field(default=30.0, ge=0)
    """Trained aside before users get it: until it has caught up with the samples behind its cut."""
    candidate_share: float = Field(default=0.1, gt=0, lt=1)
    """Of the users, in the experiment."""
    max_users: int = Field(default=100_000, ge=2)
    """Of the smaller arm; a model that is not proven better by then is rejected."""


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
    feature_set: FeatureSetName = WORLD
    """The features that every sample carries (contract.feature_sets); feature-views says what stands behind
    them. For the gate, which scores them."""
    trusted_keys_file: str = ""
    """PEM file of the public keys whose manifests are registered; empty = manifests are not read."""
    gate: GateRules = GateRules()
    """What a full model must show."""
    guard: GuardRules = GuardRules()
    """When an arm is taken back."""
    test: SequentialRules = SequentialRules()
    """When an arm has won or lost."""
    auto_promote: bool = False
    """New full models are gated, shadowed, compared and promoted or rejected without a person."""
    promotion: PromotionRules = PromotionRules()
    """How, when they are."""
    baseline_arm: str = "baseline"
    """The arm that the guard compares with: a small share of the users on a model some minutes old. Without
    traffic on it there is nothing to compare with, and the guard waits."""
    baseline_share: float = Field(default=0.0, ge=0, lt=1)
    """Of the users, on the baseline beside whatever experiment runs; release then keeps that arm itself
    (baseline.py). 0 = no baseline, and no guard, unless somebody sets the arm and sends requests to it."""
    baseline_age_s: float = Field(default=300.0, gt=0)
    """The baseline is between once and twice this old. The trainer's base_interval_s must be between a third
    of it and all of it: the arm stands on bases, of which the newest six are kept. Rarer ones make it older,
    with more frequent ones it moves with each."""
    look_interval_s: float = Field(default=5.0, gt=0)
    """Between two looks of the guard."""
    window_s: float = Field(default=60.0, gt=0)
    """Wall time of samples that a look judges."""
    window_rows: int = Field(default=200_000, ge=1_000)
    """Rows that the window holds at most (about 60 MB, features included)."""
    rollback_s: float = Field(default=180.0, gt=0)
    """What the guard orders: the state of so long ago, which is before what its windows have seen."""
    read_timeout_ms: int = Field(default=30_000, gt=0)
    """Reading the log to its end; it is compacted, so that more means a stuck broker."""

    @model_validator(mode="after")
    def _baseline_is_older_than_what_is_taken_back(self) -> Settings:
        if self.baseline_share > 0 and self.baseline_age_s < self.rollback_s:
            raise ValueError(
                f"baseline_age_s={self.baseline_age_s} is below rollback_s={self.rollback_s}: the baseline "
                "would stand on what the guard takes back"
            )
        return self
