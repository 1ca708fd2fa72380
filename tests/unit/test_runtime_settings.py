"""Settings: precedence, all bad fields at once, help with reasons."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import Field

from services.contract.errors import InvalidInput
from services.runtime import tracing
from services.runtime.grpc_client import service_config
from services.runtime.settings import (
    GrpcClientSettings,
    GrpcServerSettings,
    ProcessSettings,
    TracingSettings,
    load,
)


class Settings(ProcessSettings):
    """Settings of a test process."""

    name: str = "test"
    """Its name."""
    grpc: GrpcServerSettings = GrpcServerSettings(port=50099)
    """Its ports."""
    batch_ms: int = Field(default=5, gt=0)
    """Because a batch needs a moment."""


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    opentelemetry = (
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
        "OTEL_TRACES_SAMPLER_ARG",
    )
    for name in ("KAFKA_BOOTSTRAP_SERVERS", "REDIS_URL", *opentelemetry):
        monkeypatch.delenv(name, raising=False)


def test_the_command_line_beats_the_environment_and_that_beats_the_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert load(Settings, []).batch_ms == 5
    monkeypatch.setenv("RECLOOP_BATCH_MS", "7")
    monkeypatch.setenv("RECLOOP_GRPC__DRAIN_MS", "70")
    assert load(Settings, []).batch_ms == 7
    loaded = load(Settings, ["--batch_ms", "9", "--grpc.max_concurrent_rpcs", "3"])
    assert (loaded.batch_ms, loaded.grpc.max_concurrent_rpcs, loaded.grpc.drain_ms) == (9, 3, 70)
    assert loaded.grpc.port == 50099, "a partial override keeps the process's other defaults"


def test_the_customary_names_are_read_and_ours_beat_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "k:1")
    monkeypatch.setenv("REDIS_URL", "redis://r:2/0")
    loaded = load(Settings, [])
    assert (loaded.kafka.bootstrap_servers, loaded.redis.url) == ("k:1", "redis://r:2/0")
    monkeypatch.setenv("RECLOOP_KAFKA__BOOTSTRAP_SERVERS", "ours:9")
    assert load(Settings, []).kafka.bootstrap_servers == "ours:9"


def test_opentelemetrys_own_names_are_read_and_ours_beat_them(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load(Settings, []).tracing == TracingSettings()
    assert TracingSettings().endpoint == ""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://all:4317")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0.5")
    loaded = load(Settings, []).tracing
    assert (loaded.endpoint, loaded.sample_ratio) == ("http://all:4317", 0.5)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://traces:4317")
    monkeypatch.setenv("RECLOOP_TRACING__SAMPLE_RATIO", "0.25")
    loaded = load(Settings, []).tracing
    assert (loaded.endpoint, loaded.sample_ratio) == ("http://traces:4317", 0.25)


def test_tracing_without_its_extra_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "find_spec", lambda _name: None)
    tracing.configure(TracingSettings(), "test")
    with pytest.raises(InvalidInput, match="the extra 'tracing' is installed"):
        tracing.configure(TracingSettings(endpoint="http://x:1"), "test")
    assert tracing.active() is None


def test_admin_and_metrics_ports_follow_the_service_port_unless_given() -> None:
    assert (Settings().grpc.admin_or_default(), Settings().grpc.metrics_or_default()) == (50199, 50299)
    moved = load(Settings, ["--grpc.port", "60000", "--grpc.admin_port", "61000"]).grpc
    assert (moved.port, moved.admin_or_default(), moved.metrics_or_default()) == (60000, 61000, 60200)
    free = GrpcServerSettings(port=0)
    assert (free.admin_or_default(), free.metrics_or_default()) == (0, 0)


def test_every_bad_field_is_reported_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        load(Settings, ["--batch_ms", "0", "--grpc.port", "x", "--time_scale", "-1"])
    assert ended.value.code == 2
    text = capsys.readouterr().err
    assert "batch_ms" in text
    assert "grpc.port" in text
    assert "time_scale" in text


def test_an_unknown_setting_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        load(Settings, ["--bach_ms", "3"])
    assert ended.value.code == 2
    assert "bach_ms" in capsys.readouterr().err


def test_help_prints_every_setting_with_its_reason(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        load(Settings, ["--help"])
    assert ended.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "--batch_ms int Because a batch needs a moment. (default: 5)" in text
    for group, field in (("grpc", "drain_ms"), ("kafka", "linger_ms"), ("redis", "url")):
        assert f"--{group}.{field}" in text


def test_every_setting_of_every_group_gives_a_reason() -> None:
    groups = [
        Settings,
        *(type(getattr(Settings(), name)) for name in ("grpc", "grpc_client", "kafka", "redis")),
    ]
    missing = [
        f"{group.__name__}.{name}"
        for group in groups
        for name, field in group.model_fields.items()
        if not field.description
    ]
    assert missing == []


def test_settings_are_frozen() -> None:
    with pytest.raises(Exception, match="frozen"):
        Settings().batch_ms = 1  # type: ignore[misc]


def test_only_declared_names_are_retried() -> None:
    assert "methodConfig" not in service_config(GrpcClientSettings(), ())
    config = service_config(GrpcClientSettings(), ("a.B", "c.D/E"))
    (method,) = config["methodConfig"]  # type: ignore[misc]
    assert method["name"] == [{"service": "a.B"}, {"service": "c.D", "method": "E"}]
    assert method["retryPolicy"]["retryableStatusCodes"] == ["UNAVAILABLE"]


def test_a_file_stands_behind_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "test.toml"
    path.write_text("batch_ms = 7\n[grpc]\nport = 1\ndrain_ms = 70\n")
    monkeypatch.setenv("RECLOOP_SETTINGS_FILE", str(path))
    monkeypatch.setenv("RECLOOP_GRPC__PORT", "2")
    loaded = load(Settings, [])
    assert (loaded.batch_ms, loaded.grpc.drain_ms, loaded.grpc.port) == (7, 70, 2)
    path.write_text("bach_ms = 7\n[kafka]\nlinger = 5\n")
    for broken, said in ((path, ("bach_ms", "kafka.linger")), (tmp_path / "none.toml", ("none.toml",))):
        monkeypatch.setenv("RECLOOP_SETTINGS_FILE", str(broken))
        with pytest.raises(SystemExit) as ended:
            load(Settings, [])
        assert ended.value.code == 2
        text = capsys.readouterr().err
        assert [one for one in said if one not in text] == []


def test_a_file_that_is_none_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "half.toml"
    path.write_text("batch_ms = ")
    monkeypatch.setenv("RECLOOP_SETTINGS_FILE", str(path))
    with pytest.raises(SystemExit):
        load(Settings, [])
    assert "half.toml" in capsys.readouterr().err
