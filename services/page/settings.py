"""Settings of the page."""

from __future__ import annotations

from pydantic import Field, model_validator

from services.runtime.settings import Group, GrpcServerSettings, ProcessSettings


class WebSettings(Group):
    """The page itself, over HTTP."""

    host: str = "127.0.0.1"
    """Address to listen on. Loopback unless told otherwise: the page asks nobody who they are, and its
    switches change the world of a running load."""
    port: int = Field(default=7080, ge=0, le=65535)
    """Where a browser finds it; 0 takes a free one (tests)."""
    names: str = "localhost,127.0.0.1,[::1]"
    """Host names, comma-separated, under which the page may be asked for. Others are refused: a foreign name
    that is made to point here would read the page with the rights of its own site."""
    max_watchers: int = Field(default=32, ge=1)
    """Open pages; each is sent every look. More are refused."""
    max_questions: int = Field(default=8, ge=1)
    """Questions to the loop (lists, reasons, switches) in progress; more are refused, not queued."""
    max_body_bytes: int = Field(default=4_096, ge=256)
    """Of a question; none needs more."""


class MetricsTargets(Group):
    """host:port of each service's metrics page; empty = not asked. A name of several addresses (a headless
    Service) is several replicas; several with commas between them are places where one may be."""

    gateway: str = "127.0.0.1:7251"
    """Requests, latency, arms."""
    recall: str = "127.0.0.1:7252"
    """Vectors: generation and sequence."""
    ranking: str = "127.0.0.1:7254"
    """Models: generation and sequence, their age; how long a delta takes."""
    collector: str = "127.0.0.1:7255"
    """Events, and how long they take to be acknowledged."""
    joiner: str = "127.0.0.1:7256"
    """Samples, and how long they take."""
    feature_pipeline: str = "127.0.0.1:7257"
    """How far the features are behind."""
    release: str = "127.0.0.1:7258"
    """What each arm served: click rate, AUC."""
    trainer: str = "127.0.0.1:7259"
    """What is trained, and how long samples and steps wait."""


class Settings(ProcessSettings):
    """The page: whom it asks, how often, and how much it remembers."""

    name: str = "page"
    """Name in logs."""
    grpc: GrpcServerSettings = GrpcServerSettings(port=7064)
    """The service port (health and reflection alone), the admin port and their limits."""
    web: WebSettings = WebSettings()
    """The page itself."""
    metrics: MetricsTargets = MetricsTargets()
    """Whose metrics are read."""
    gateway_target: str = "127.0.0.1:7051"
    """Address of the gateway: a user's list."""
    feature_target: str = "127.0.0.1:7053"
    """Address of the feature server: what was known of a user and an item."""
    release_target: str = "127.0.0.1:7058"
    """Address of release: generations and arms."""
    joiner_target: str = "127.0.0.1:7056"
    """Address of the joiner: how far it is behind."""
    feature_pipeline_target: str = "127.0.0.1:7057"
    """Address of the feature pipeline."""
    trainer_target: str = "127.0.0.1:7059"
    """Address of the online trainer."""
    scenario_target: str = "127.0.0.1:7063"
    """Address of a load's switches; nobody is there while no load runs. Empty = no switches on the page."""
    interval_ms: int = Field(default=2_000, ge=200)
    """Between two looks at all sources while somebody watches."""
    idle_interval_ms: int = Field(default=10_000, ge=200)
    """The same while nobody does: there is a past to show when somebody comes, at little cost."""
    timeout_ms: int = Field(default=1_500, gt=0)
    """A source that takes longer is missing in this look."""
    window_s: float = Field(default=30.0, gt=0)
    """Rates and quantiles are those of this long: shorter ones jump, longer ones are slow to tell."""
    history_points: int = Field(default=450, ge=2)
    """Looks that the page's lines go back: a quarter of an hour."""
    max_lines: int = Field(default=120, ge=20)
    """Lines of one look; arms are few, but others name them. What is beyond is left out, counted."""
    max_replicas: int = Field(default=16, ge=1)
    """Addresses asked of one service; more are left out, counted."""
    max_answer_bytes: int = Field(default=1_000_000, gt=0)
    """Of one metrics page, of which only what is shown is asked for."""

    @model_validator(mode="after")
    def _an_answer_comes_before_the_next_look(self) -> Settings:
        if self.timeout_ms >= self.interval_ms:
            raise ValueError(
                f"timeout_ms={self.timeout_ms} is not below interval_ms={self.interval_ms}: "
                "looks would overtake each other"
            )
        if self.idle_interval_ms < self.interval_ms:
            raise ValueError(f"idle_interval_ms={self.idle_interval_ms} is below interval_ms")
        return self
