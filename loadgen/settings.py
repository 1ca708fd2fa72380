"""Settings of the load generator's commands: command line (``--rate 66``), RECLOOP_* environment, default."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import CliImplicitFlag, CliPositionalArg, SettingsConfigDict

from loadgen.world_config import WorldConfig
from services.contract.feature_sets import WORLD
from services.runtime.settings import (
    FeatureSetName,
    Group,
    GrpcServerSettings,
    ProcessSettings,
    RedisSettings,
)

SCENARIO_TARGET = "127.0.0.1:7063"


class WorldSettings(Group):
    """Which world. Its day 0 is cached by these numbers, so day0, seed and simulate must be told the same."""

    seed: int = 7
    """One seed for everything."""
    items: int = 100_000
    """Items at the end of day 0."""
    users: int = 20_000
    """Users at the end of day 0."""
    categories: int = 20
    """Categories; item features carry the number, tastes and trends are by category."""
    births_per_s: float = 5.0
    """New items, on day 0 and while the load runs."""
    user_births_per_s: float = 0.5
    """New users while the load runs."""
    sessions: int = 12
    """Windows through which day 0 is seen, spread over 24 hours."""
    session_s: float = 132.0
    """Length of each: 12 x 132 s x 66 requests/s x 10 shown is safely over a million impressions."""
    day0_rate: float = 66.0
    """Requests per second inside a window: as while the load runs, so that window counts mean the same."""

    def config(self) -> WorldConfig:
        """As the world takes it; InvalidInput when the numbers contradict one another."""
        return WorldConfig(**{field.name: getattr(self, field.name) for field in fields(WorldConfig)})


class _Command(ProcessSettings):
    model_config = SettingsConfigDict(cli_kebab_case=True)

    name: str = "loadgen"
    """Name in logs and as Kafka client id."""
    grpc: GrpcServerSettings = GrpcServerSettings(port=0)
    """Unused: the load generator serves nothing."""


class Day0Settings(_Command):
    """python -m loadgen day0"""

    feature_set: FeatureSetName = WORLD
    """The features that are logged and learned (contract.feature_sets)."""
    sim: WorldSettings = WorldSettings()
    """Which world."""


class Day0SamplesSettings(Day0Settings):
    """python -m loadgen day0-samples"""

    run_dir: Path = Path("out/run")
    """Where seed left world.json: the moment that the world's clock counts from."""
    lake_uri: str = ""
    """The lake of the seeded stack, which gets the samples as history of before the topics."""


class SeedSettings(_Command):
    """python -m loadgen seed"""

    world: Literal["simulate", "replay"] = "simulate"
    """simulate: catalogue, features and generation 1 of the simulated world. replay: the catalogue of the
    dataset and an untrained generation 1.
    """
    feature_set: FeatureSetName = WORLD
    """The features that generation 1 sees (contract.feature_sets): as the stack's processes are told."""
    data: str = "none"
    """The dataset of a replay: a MovieLens 100K folder, a .csv or .parquet file; none otherwise."""
    model_seed: int = Field(default=1, ge=0)
    """Of the untrained model's dense tensors, for --world replay."""
    sim: WorldSettings = WorldSettings()
    """Which simulated world."""
    run_dir: Path = Path("out/run")
    """Where world.json is written: the moment that the world's clock counts from."""
    model_store_uri: str = "out/model-store"
    """Root of the stack's model store; generation 1 is copied there."""
    signing_key_file: str = ""
    """PEM file of the private key that signs generation 1; empty = it is not signed."""
    lake_uri: str = ""
    """Where day 0 is written as the history of before the topics, so that audits and backfills count what the
    first states were made of; empty = nowhere."""
    release_target: str = "127.0.0.1:7058"
    """host:port of release."""
    release_timeout_ms: int = Field(default=30_000, gt=0)
    """How long release may take to come up and to register the first generation."""
    settle_timeout_ms: int = Field(default=120_000, ge=0)
    """How long feature_pipeline may take to fold what was seeded; 0 = it is not waited for."""
    redis: RedisSettings = RedisSettings(timeout_ms=10_000, connect_timeout_ms=10_000)
    """Redis connections. Nobody waits for an answer of the seed: it is patient while a whole stack starts."""


class TraceSettings(_Command):
    """python -m loadgen trace [REQUEST_ID]: makes a request, clicks on its first item, follows the click to
    the model that has learned it; with a request's id, or --newest-click, follows that one."""

    request_id: CliPositionalArg[str] = ""
    """A request of the past that somebody has clicked on; empty: one is made."""
    newest_click: CliImplicitFlag[bool] = False
    """Follow the newest click that stands in the log instead."""
    since_s: float = Field(default=3_600.0, gt=0)
    """How far back a request of the past, or a click, is looked for."""
    patience_s: float = Field(default=60.0, gt=0, le=3_600)
    """How long each step may take. A joiner that waits for windows (label-first) needs more than one."""
    user_key: str = Field(default="trace", min_length=1)
    """Who asks and clicks. The loop learns from this click as from any other."""
    arm: str = "online"
    """Arm that is asked for; a pinned one never has what it was clicked for. Empty: the user's own."""
    click_after_ms: int = Field(default=300, ge=0)
    """From the answer to the click."""
    deadline_ms: int = Field(default=5_000, gt=0)
    """Of each call."""
    json_out: CliImplicitFlag[bool] = False
    """Print JSON instead of a table."""
    gateway_target: str = "127.0.0.1:7051"
    """host:port of the gateway."""
    collector_target: str = "127.0.0.1:7055"
    """host:port of the collector."""
    ranking_target: str = "127.0.0.1:7054"
    """host:port of ranking. A name with several addresses is several replicas, and so are several names,
    separated by commas."""


class WorldLogSettings(_Command):
    """python -m loadgen world-log"""

    sim: WorldSettings = WorldSettings()
    """Which world."""
    drift: float = Field(default=1.0, ge=0, le=100)
    """How fast tastes, trends and qualities move; 0 = the world stands still."""
    rate: float = Field(default=2.5, gt=0, le=10_000)
    """Requests per second of event time, Poisson; each shows ten items."""
    duration_s: float = Field(default=3_600.0, gt=0)
    """Event time from the first to the last request."""
    run: int = Field(default=0, ge=0)
    """Another number draws other arrivals from the same seed."""
    log: Path = Path("out/world.parquet")
    """File that is written."""


class SimulateSettings(_Command):
    """python -m loadgen simulate"""

    sim: WorldSettings = WorldSettings()
    """Which world; the one that was seeded."""
    drift: float = Field(default=1.0, ge=0, le=100)
    """How fast tastes, trends and qualities move; 0 = the world stands still."""
    schedule: str = ""
    """What happens by itself, NAME@FROM or NAME@FROM-UNTIL in seconds since the start, separated by commas:
    black-friday@40-80. What the names stand for: loadgen scenario list, or loadgen/scenarios.py."""
    scenario_target: str = SCENARIO_TARGET
    """host:port where the switches listen (loadgen scenario on NAME); empty = nowhere."""
    rate: float = Field(default=66.0, gt=0, le=10_000)
    """Intended requests per second, Poisson, open loop."""
    duration_s: float = Field(default=120.0, gt=0)
    """How long requests are sent."""
    run: int = Field(default=0, ge=0)
    """Number of this run: another one draws other arrivals from the same seed."""
    candidates: int = Field(default=1_000, ge=10, le=10_000)
    """Scored per request."""
    n: int = Field(default=100, ge=10, le=500)
    """Recommended per request; the first ten are shown."""
    deadline_ms: int = Field(default=5_000, gt=0)
    """Of each Recommend call. Latency is reported whatever it is; the deadline only says when the gateway
    gives up on scores, and an answer without scores gives no samples. Above the worst stall seen on two cores
    that run the whole stack and the load (1.6 s)."""
    max_in_flight: int = Field(default=256, gt=0)
    """Requests in flight; one more is dropped and counted, since a client that queues without limit only
    measures its own queue.
    """
    shares: dict[str, float] = Field(default_factory=dict)
    """Share of the users by arm, as JSON, summing to 1: each request names the arm of its user
    (contract/assignment.py). Empty = requests name none, and the arm online answers."""
    experiment: str = "simulate"
    """Name that users are assigned by: under another one they fall into other arms."""
    begin_at: int = Field(default=0, ge=0)
    """Unix second at which the load begins; 0 = as soon as it can. For who has to know the moment before."""
    shadow_arm: str = "frozen"
    """Arm whose choice from the same candidates is compared; empty = none."""
    shadow_share: float = Field(default=0.15, ge=0, le=1)
    """Share of the requests (by hash of the request id) that are also scored by the shadow arm."""
    window_ms: int = Field(default=20_000, gt=0)
    """The joiner's attribution window: click delays stay inside it and the drain waits for it."""
    drain_ms: int = Field(default=60_000, gt=0)
    """How long the loop may take after the load to turn everything shown into samples."""
    event_linger_ms: int = Field(default=50, ge=0)
    """Events gathered into one LogEvents call, as clients do: at 66 requests/s a fifth of the calls."""
    event_deadline_ms: int = Field(default=5_000, gt=0)
    """Of one LogEvents call."""
    event_tries: int = Field(default=20, ge=1)
    """Sends of one batch, with the same event ids, before its events count as lost."""
    max_pending_events: int = Field(default=20_000, gt=0)
    """Events waiting for their acknowledgement; more are dropped and counted."""
    min_answered_per_s: float = Field(default=60.0, ge=0)
    """The run fails below this."""
    min_delta_rows: int = Field(default=10_000, ge=0)
    """The run fails when fewer delta rows were applied."""
    max_freshness_p50_s: float = Field(default=1.5, gt=0)
    """The run fails above this."""
    require_uplift: bool = True
    """The run fails when the ten shown in the last 30 s were not truly better than the shadow arm's ten."""
    out: Path = Path("out")
    """Folder of demo.json and evidence/."""
    run_dir: Path = Path("out/run")
    """Where seed left world.json and the launcher state.json."""
    gateway_target: str = "127.0.0.1:7051"
    """host:port of the gateway."""
    collector_target: str = "127.0.0.1:7055"
    """host:port of the collector."""
    ranking_target: str = "127.0.0.1:7054"
    """host:port of ranking, watched for applied deltas."""
