"""Settings: small frozen groups, parsed once, every bad field reported at once.

Secrets are never settings: a setting names the file that holds one (runtime.secrets).

Precedence: command line (``--grpc.port 7051``), environment (``RECLOOP_GRPC__PORT``; also the customary
``KAFKA_BOOTSTRAP_SERVERS``, ``REDIS_URL`` and OpenTelemetry's names), a TOML file of one process
(``RECLOOP_SETTINGS_FILE``; groups are its tables), default. The text under a field is its reason and is what
``--help`` prints. No other file reads ``os.environ``, but for the number of partitions,
on which the contract itself depends (contract.topics).
"""

from __future__ import annotations

import os
import sys
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from services.contract.errors import NotFound
from services.contract.feature_sets import feature_set
from services.contract.view_growth import named_set

ENV_PREFIX = "RECLOOP_"
SETTINGS_FILE = "RECLOOP_SETTINGS_FILE"
# OpenTelemetry's own names for fields of tracing; the first that is set counts.
_OPENTELEMETRYS = {
    "endpoint": ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"),
    "sample_ratio": ("OTEL_TRACES_SAMPLER_ARG",),
}


def _known_set(name: str) -> str:
    try:
        feature_set(name)
    except NotFound as error:
        raise ValueError(str(error)) from None
    return name


def _grown_from_known(name: str) -> str:
    _known_set(named_set(name))
    return name


# Name of a feature set (contract.feature_sets).
FeatureSetName = Annotated[str, AfterValidator(_known_set)]
# The same with added views behind it (contract.view_growth); which there are, feature-views says.
GrownSetName = Annotated[str, AfterValidator(_grown_from_known)]


class Group(BaseModel):
    """Base of a frozen group of settings; the docstring under a field is its help text."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class GrpcServerSettings(Group):
    """One gRPC server: its three ports and its limits."""

    host: str = "127.0.0.1"
    """Address to listen on. Loopback unless told otherwise: without ``tls`` nothing asks who is calling."""
    port: int = Field(ge=0, le=65535)
    """Service port; 0 takes a free one (tests)."""
    admin_port: int | None = Field(default=None, ge=0, le=65535)
    """Health, reflection and channelz on threads of their own, so that they answer under overload. Default:
    port + 100.
    """
    metrics_port: int | None = Field(default=None, ge=0, le=65535)
    """Prometheus text over HTTP. Default: port + 200."""
    max_message_bytes: int = Field(default=16 * 1024 * 1024, gt=0)
    """Above any legal message of 10,000 candidates; larger ones are refused before they are parsed."""
    max_concurrent_rpcs: int = Field(default=256, gt=0)
    """Calls in progress; more are refused at once, since a call that waits here only misses its deadline
    later.
    """
    max_connection_age_ms: int = Field(default=1_800_000, gt=0)
    """Connections are closed politely after this, so that clients behind a headless Service find new
    replicas.
    """
    max_connection_age_grace_ms: int = Field(default=60_000, gt=0)
    """Time for the calls in progress on a connection that has reached its age."""
    lame_duck_ms: int = Field(default=0, ge=0)
    """Pause between saying NOT_SERVING and refusing calls, in which clients that watch health go elsewhere;
    none when nobody watches.
    """
    bind_wait_ms: int = Field(default=0, ge=0)
    """How long a start waits for ports that are taken, ready to go on: the successor of a process that has to
    be the only one. 0 = a taken port is refused at once.
    """
    drain_ms: int = Field(default=5_000, ge=0)
    """Time for the calls in progress when the process stops."""
    loop_stall_ms: int = Field(default=10_000, gt=0)
    """An event loop that has not turned for this long makes the admin port say NOT_SERVING, liveness
    included.
    """

    def admin_or_default(self) -> int:
        """The admin port to bind."""
        return _beside(self.port, 100) if self.admin_port is None else self.admin_port

    def metrics_or_default(self) -> int:
        """The metrics port to bind."""
        return _beside(self.port, 200) if self.metrics_port is None else self.metrics_port


def _beside(port: int, distance: int) -> int:
    return port + distance if port else 0


class GrpcClientSettings(Group):
    """Channels to other services."""

    max_message_bytes: int = Field(default=16 * 1024 * 1024, gt=0)
    """As the servers' limit."""
    keepalive_ms: int = Field(default=30_000, ge=5_000)
    """Finds a dead peer behind a silent network; servers refuse pings more often than every 5 s."""
    reconnect_max_ms: int = Field(default=1_000, gt=0)
    """A restarted peer is found again within this."""
    retry_attempts: int = Field(default=3, ge=2, le=5)
    """Tries of a call declared idempotent that met UNAVAILABLE, inside its deadline."""


class TlsSettings(Group):
    """Mutual TLS between the services: all three files, or none (plaintext)."""

    certificate_file: str = ""
    """This process's certificate chain in PEM; its SAN URI says who it is."""
    key_file: str = ""
    """The private key of the certificate, in PEM, without a password."""
    ca_file: str = ""
    """Certificates in PEM of whoever may sign a peer's; several while a CA is replaced."""
    identity_prefix: str = Field(default="spiffe://recloop/", min_length=1)
    """What the URI of an identity begins with; the rest is the name that contract.access knows."""
    reread_ms: int = Field(default=5_000, gt=0)
    """How often the files are looked at: changed ones are used by every connection made from then on."""

    @model_validator(mode="after")
    def _whole(self) -> TlsSettings:
        files = (self.certificate_file, self.key_file, self.ca_file)
        if any(files) and not all(files):
            raise ValueError("certificate_file, key_file and ca_file: all three, or none")
        return self

    @property
    def on(self) -> bool:
        """Whether there is anything to speak TLS with."""
        return bool(self.certificate_file)


class _Login(Group):
    """Who this process is to a server, and whom it takes for that server."""

    username: str = ""
    """Name to log in with; empty: no login."""
    password_file: str = ""
    """File that holds the password, and nothing else."""
    ca_file: str = ""
    """Certificates in PEM of whoever signed the server's; empty: no TLS."""

    @model_validator(mode="after")
    def _whole(self) -> _Login:
        if bool(self.username) != bool(self.password_file):
            raise ValueError("username and password_file: both, or neither")
        return self


class KafkaSettings(_Login):
    """Kafka connections. With a username: SCRAM-SHA-512, over TLS where there is a ca_file."""

    bootstrap_servers: str = "127.0.0.1:9092"
    """host:port, comma-separated. Also read from KAFKA_BOOTSTRAP_SERVERS."""
    connect_timeout_ms: int = Field(default=60_000, gt=0)
    """How long a start waits for a broker that is not there yet; then the process ends with the reason."""
    request_timeout_ms: int = Field(default=10_000, gt=0)
    """One request to a broker."""
    linger_ms: int = Field(default=40, ge=0)
    """How long a record waits for others that go with it: a request costs broker and client about 1 ms of a
    core each, far more than the records in it. Those of a transaction do not wait."""
    max_batch_bytes: int = Field(default=512 * 1024, gt=0)
    """Unsent bytes a partition may gather in one batch."""
    max_pending_records: int = Field(default=20_000, gt=0)
    """Records sent and not yet acknowledged, per producer; beyond it senders are refused."""
    max_pending_bytes: int = Field(default=64 * 1024 * 1024, gt=0)
    """Bytes of the same."""
    stalled_ms: int = Field(default=2_000, gt=0)
    """A record unacknowledged for this long means that Kafka is away: new records are refused at once."""
    transaction_timeout_ms: int = Field(default=30_000, gt=0)
    """The broker aborts an open transaction whose owner has vanished; a restarted owner does so at once."""
    fetch_max_wait_ms: int = Field(default=100, gt=0)
    """A partition drained while a fetch is under way is only asked for again when that fetch returns: this
    bounds it.
    """
    fetch_min_bytes: int = Field(default=65_536, ge=1)
    """A fetch waits for this many bytes, or for ``fetch_max_wait_ms``: a fetch per record costs more than the
    record does. 1 = at once (replays, which wait for barriers)."""
    max_fetch_bytes: int = Field(default=16 * 1024 * 1024, gt=0)
    """Bytes of one fetch answer."""
    max_partition_fetch_bytes: int = Field(default=4 * 1024 * 1024, gt=0)
    """Of these, of one partition. A delta has half a megabyte: at one a fetch, whoever catches up with some
    hundred of them waits for as many answers."""
    session_timeout_ms: int = Field(default=10_000, gt=0)
    """A group member silent for this long loses its partitions."""


class RedisSettings(_Login):
    """Redis connections. ca_file: for a rediss:// URL, instead of the system's."""

    url: str = "redis://127.0.0.1:6379/0"
    """Also read from REDIS_URL."""
    max_connections: int = Field(default=32, gt=0)
    """Connections of one process; callers wait for one up to the timeout."""
    timeout_ms: int = Field(default=500, gt=0)
    """One command, including the wait for a connection: features answer inside 50 ms or with defaults."""
    connect_timeout_ms: int = Field(default=500, gt=0)
    """Opening one connection."""


class TracingSettings(Group):
    """OpenTelemetry traces by OTLP over gRPC. What else an exporter can be told (headers, certificates) are
    OpenTelemetry's own variables, OTEL_EXPORTER_OTLP_*."""

    endpoint: str = ""
    """http://host:4317 of a collector (https:// with TLS); empty: no traces, and no cost. Also read from
    OTEL_EXPORTER_OTLP_TRACES_ENDPOINT and OTEL_EXPORTER_OTLP_ENDPOINT."""
    sample_ratio: float = Field(default=0.01, ge=0, le=1)
    """Share of the requests that are traced, by their ids: the same in every process, or stories have holes.
    Also read from OTEL_TRACES_SAMPLER_ARG."""
    max_links: int = Field(default=128, ge=1, le=10_000)
    """Links of one span: a training step learns from many requests. Those beyond it are counted."""
    max_queue_spans: int = Field(default=4_096, ge=1)
    """Spans that wait to be sent; more are dropped and counted."""
    export_timeout_ms: int = Field(default=3_000, gt=0)
    """Of sending a batch of spans, retries included; also how long the end of a process waits for the last
    ones."""


class Connections(BaseSettings):
    """How this process connects to others: what a command takes from the environment that has no settings of
    its own."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        env_nested_delimiter="__",
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        nested_model_default_partial_update=True,
        cli_avoid_json=True,
        cli_hide_none_type=True,
    )

    grpc_client: GrpcClientSettings = GrpcClientSettings()
    """Channels to other services."""
    tls: TlsSettings = TlsSettings()
    """Mutual TLS of the service port and of the channels."""
    kafka: KafkaSettings = KafkaSettings()
    """Kafka connections."""
    redis: RedisSettings = RedisSettings()
    """Redis connections."""
    tracing: TracingSettings = TracingSettings()
    """Where spans are sent."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Explicit values, then RECLOOP_*, then the customary names."""
        customary = InitSettingsSource(settings_cls, init_kwargs=_customary_names(os.environ))
        return init_settings, env_settings, customary


class ProcessSettings(Connections):
    """What every process has; each process adds its own fields in a subclass."""

    name: str
    """Name in logs and as Kafka client id."""
    grpc: GrpcServerSettings
    """The service port, the admin port and their limits."""
    log_level: str = Field(default="INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$")
    """DEBUG, INFO, WARNING or ERROR."""
    time_scale: float = Field(default=1.0, ge=0.0)
    """Event seconds per wall second between events; 0 = event time moves only with events (replays)."""
    shutdown_ms: int = Field(default=10_000, gt=0)
    """One deadline for draining, flushing and closing; under the 30 s after which orchestrators kill."""

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], *sources: Any, **named: Any
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The connections' sources, then the file."""
        found = super().settings_customise_sources(settings_cls, *sources, **named)
        path = os.environ.get(SETTINGS_FILE)
        return (*found, _file_source(settings_cls, Path(path))) if path else found


def _file_source(settings_cls: type[BaseSettings], path: Path) -> PydanticBaseSettingsSource:
    try:
        return InitSettingsSource(settings_cls, init_kwargs=tomllib.loads(path.read_text()))
    except (OSError, ValueError) as error:
        raise SettingsError(f"{SETTINGS_FILE}={path}: {error}") from error


def _customary_names(environ: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if environ.get("KAFKA_BOOTSTRAP_SERVERS"):
        found["kafka"] = {"bootstrap_servers": environ["KAFKA_BOOTSTRAP_SERVERS"]}
    if environ.get("REDIS_URL"):
        found["redis"] = {"url": environ["REDIS_URL"]}
    if tracing := _opentelemetrys_names(environ):
        found["tracing"] = tracing
    return found


def _opentelemetrys_names(environ: Any) -> dict[str, Any]:
    found = {}
    for field, names in _OPENTELEMETRYS.items():
        if value := next((environ[name] for name in names if environ.get(name)), ""):
            found[field] = value
    return found


# Where something is, not how it works: it differs on every machine, and a URL may hold a password.
_PLACES = ("host", "port", "target", "servers", "url", "uri", "dir", "file", "out", "endpoint")


def differing(settings: BaseModel) -> dict[str, str]:
    """Settings that are not the defaults, by dotted name; places (addresses, folders) are left out."""
    return dict(_differing(settings, None, ""))


def _differing(settings: BaseModel, usual: object, prefix: str) -> Iterator[tuple[str, str]]:
    """``usual``: the default of the whole group, where it has one."""
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        given = type(usual) is type(settings)
        default = getattr(usual, name) if given else field.get_default(call_default_factory=True)
        if isinstance(value, BaseModel):
            yield from _differing(value, default, f"{prefix}{name}.")
        elif name.rpartition("_")[2] not in _PLACES and value != default:
            yield f"{prefix}{name}", str(value)


SettingsT = TypeVar("SettingsT", bound=ProcessSettings)


def load(cls: type[SettingsT], argv: Sequence[str] | None = None) -> SettingsT:
    """Parses command line and environment; names every bad field on stderr and exits with 2."""
    package = cls.__module__.rpartition(".")[0] or cls.__module__
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        # The two underscored arguments are pydantic-settings' own, unknown to the model's signature.
        return cls(_cli_parse_args=arguments, _cli_prog_name=f"python -m {package}")  # type: ignore[call-arg]
    except ValidationError as error:
        for bad in error.errors():
            field = ".".join(str(part) for part in bad["loc"])
            print(f"{package}: setting {field} = {bad['input']!r}: {bad['msg']}", file=sys.stderr)  # noqa: T201
    except SettingsError as error:
        print(f"{package}: {error}", file=sys.stderr)  # noqa: T201
    raise SystemExit(2)
