"""Settings of the trainer: how it learns, what it admits, when it publishes."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from services.contract.feature_sets import WORLD
from services.runtime.settings import FeatureSetName, Group, GrpcServerSettings, ProcessSettings


class LearningSettings(Group):
    """The optimiser. Defaults are those that did best on MovieLens 100K behind 10-minute barriers
    (benchmarks/tune_replay.py)."""

    minibatch_rows: int = Field(default=256, ge=1, le=65_536)
    """Rows per step when reading a stream: many small steps learn more from the same rows than one large
    one."""
    bias_rate: float = Field(default=0.1, gt=0)
    """Step of the id biases under row-wise Adagrad."""
    factor_rate: float = Field(default=0.2, gt=0)
    """Step of the factor columns under row-wise Adagrad."""
    recall_rate: float = Field(default=0.05, gt=0)
    """Step of recall's columns."""
    dense_rate: float = Field(default=0.005, gt=0)
    """Step of the dense tensors under Adagrad."""
    row_start: float = Field(default=0.1, gt=0)
    """Added to the accumulator of a row: keeps its first steps small."""
    dense_start: float = Field(default=0.001, gt=0)
    """Added to the accumulator of a dense value."""
    row_decay: float = Field(default=0.02, ge=0)
    """L2 pull of touched rows to zero."""
    init_scale: float = Field(default=0.05, ge=0)
    """Half-width of the uniform start of factors; a new id starts from a hash of itself, so the start does
    not depend on the order in which ids come."""
    row_clip: float = Field(default=10.0, gt=0)
    """Largest norm of one row's gradient in a step."""
    dense_clip: float = Field(default=1.0, gt=0)
    """Largest norm of the gradient of all dense tensors, summed and divided by step.DENSE_UNIT_ROWS."""
    max_abs_value: float = Field(default=50.0, gt=0)
    """A step that would make any parameter larger than this is not taken: its records go to dead-letters."""
    max_loss: float = Field(default=50.0, gt=0)
    """A step with a larger mean loss is not taken."""
    recall_positives: int = Field(default=512, ge=0)
    """Positives of one step that take part in recall's softmax; 0 switches it off."""
    position_window_rows: int = Field(default=1_000_000, ge=1)
    """Length of the running mean of position shares."""
    loss: Literal["log", "fnw"] = "log"
    """log: cross-entropy on final labels; a correction is rejected. fnw: fake negative weighted, for a joiner
    that says negatives early and corrects them: clicks are learned at once without pulling the probabilities
    down (trainer/loss.py)."""
    rate_correction: Literal["training", "serving"] = "training"
    """Where down-sampled negatives are set right. training: a kept one weighs 1/r. serving: it weighs 1,
    which keeps the steps smooth when r is small, and the served logit is the fitted one + ln r."""
    negative_rate: float = Field(default=1.0, gt=0, le=1)
    """r, the joiner's negative_rate, where positives must be weighed by it as well: with rate_correction
    serving and with loss fnw. Then a record of negatives with another rate is rejected."""
    seed: int = Field(default=1, ge=0)
    """Of the start of a new model."""

    @model_validator(mode="after")
    def _rate_is_corrected_once(self) -> LearningSettings:
        if self.expected_rate is None and self.negative_rate != 1:
            raise ValueError(
                f"negative_rate {self.negative_rate} is for rate_correction serving or loss fnw; "
                "else the rate comes with the samples"
            )
        return self

    @property
    def expected_rate(self) -> float | None:
        """The sample_rate that negatives must carry; None = any."""
        declared = self.rate_correction == "serving" or self.loss == "fnw"
        return self.negative_rate if declared else None


class AdmissionSettings(Group):
    """Which ids get a row, and for how long."""

    min_count_user: int = Field(default=1, ge=1)
    """Users have few events: the first one counts."""
    min_count_item: int = Field(default=2, ge=1)
    """An item shown once says nothing about it."""
    min_count_category: int = Field(default=1, ge=1)
    """There are few categories."""
    ttl_s: int = Field(default=30 * 86_400, ge=1)
    """Event time after which an id that was not seen leaves."""
    pending_ttl_s: int = Field(default=2 * 86_400, ge=1)
    """The same for an id not yet admitted."""
    sweep_rows: int = Field(default=5_000, ge=1)
    """Most ids that leave in one delta."""
    max_rows: int = Field(default=5_000_000, ge=1)
    """Rows of one table; beyond it nothing new is admitted."""
    max_pending: int = Field(default=1_000_000, ge=1)
    """Ids waiting for admission in one table; beyond it new ones are not remembered."""

    def min_count(self, table: str) -> int:
        """How often an id must be seen before it gets a row."""
        return {"user": self.min_count_user, "item": self.min_count_item}.get(table, self.min_count_category)


class PaceSettings(Group):
    """How often one policy is synchronised."""

    policy: str = Field(min_length=1, max_length=64)
    """The policy of the lineages meant: (generation, policy)."""
    interval_s: int = Field(gt=0)
    """Event time between two of its deltas."""


class OnlineSettings(ProcessSettings):
    """``python -m trainer online``."""

    name: str = "trainer"
    """Name in logs and as Kafka client id."""
    grpc: GrpcServerSettings = GrpcServerSettings(port=7059)
    """The service port, the admin port and their limits."""
    learning: LearningSettings = LearningSettings()
    """The optimiser."""
    admission: AdmissionSettings = AdmissionSettings()
    """Ids in and out."""
    feature_set: FeatureSetName = WORLD
    """The features that every sample carries (contract.feature_sets); feature-views says what stands behind
    them, and each lineage's base which of them its model sees."""
    arm: str = "online"
    """The arm whose lineage this trainer continues."""
    candidate_arm: str = "candidate"
    """The arm whose lineage is trained aside, to take over when release points ``arm`` there."""
    extra_arms: tuple[str, ...] = ()
    """More arms whose lineages are trained aside, as JSON: ["hourly", "daily"]; to compare policies."""
    paces: tuple[PaceSettings, ...] = ()
    """Policies that publish at intervals of event time, as JSON: [{"policy": "hourly", "interval_s": 3600}];
    all others as soon as publish_interval_ms allows, or a barrier asks."""
    lineage_linger_s: float = Field(default=60.0, ge=0)
    """A lineage that no arm follows any more is trained for so long: until ranking has swapped."""
    lineage_retry_s: float = Field(default=5.0, gt=0)
    """Pause before a lineage aside that could not be trained is tried again."""
    model_store_uri: str = "out/model-store"
    """Where bases are kept."""
    signing_key_file: str = ""
    """PEM file of the private key that signs manifests; empty = they are not signed."""
    trusted_keys_file: str = ""
    """PEM file of the public keys whose manifests are loaded; empty = signatures are not checked."""
    release_target: str = "127.0.0.1:7058"
    """host:port of the release service, which is told of new bases."""
    publish_interval_ms: int = Field(default=500, ge=10)
    """Between deltas: a good half of the freshness that users can see."""
    max_delta_rows: int = Field(default=20_000, ge=1, le=30_000)
    """Touched rows at which a delta leaves at once; 30,000 rows and one more poll fit into one record."""
    max_poll_records: int = Field(default=1_000, ge=1, le=4_096)
    """Records trained in one go, between which a delta can leave."""
    max_record_rows: int = Field(default=1_000, ge=1, le=2_000)
    """Rows of one samples record; a larger one is a dead letter."""
    max_poll_rows: int = Field(default=4_096, ge=1, le=8_192)
    """Rows trained in one go."""
    poll_ms: int = Field(default=20, ge=1)
    """Longest wait for samples; bounds how late a due delta leaves."""
    gather_ms: int = Field(default=60, ge=0)
    """Pause between polls, in which samples gather: a step of ten rows costs as much as one of a hundred. 0
    for replays, which wait for barriers."""
    barrier_gather_ms: int = Field(default=0, ge=0)
    """For replays: samples wait so long for the barrier behind them, and are learned when it has come from
    every partition, all at once and in the order of the log: one step instead of one for each partition, and
    the same one whoever was faster. 0 = they do not wait."""
    base_interval_s: float = Field(default=300.0, gt=0)
    """Between bases: bounds how many deltas a new replica has to read."""
    base_after_deltas: int = Field(default=600, ge=1)
    """A start that had to read this many deltas writes a base with its first own one."""
    base_retry_max_s: float = Field(default=30.0, gt=0)
    """Longest pause between tries to register a base."""
    publish_retry_ms: int = Field(default=500, ge=10)
    """Pause before the publisher starts anew after Kafka was away."""
    release_wait_s: float = Field(default=120.0, gt=0)
    """How long a start waits for the arm's first release."""
    threads: int = Field(default=1, ge=1)
    """Of torch; set from the container's limit, torch would take the node's cores."""
    evaluation_rows: int = Field(default=50_000, ge=100)
    """Rows over which the rolling AUC and log loss are taken, as the stream has them: under fnw a corrected
    row counts twice."""
    status_interval_s: float = Field(default=2.0, gt=0)
    """Between refreshes of the rolling AUC in the metrics."""
