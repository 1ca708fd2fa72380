"""The join on Flink on one machine: what is needed, what is stale, what it is told."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from local import flink_jar
from local.child import current_identity
from local.errors import MissingPrerequisite, NotRunning
from local.flink_cluster import root_cause
from local.flink_config import FlinkShape, cluster_settings, flink_command
from local.flink_join import kafka_bootstrap
from local.paths import RunPaths
from local.state import StackState, write_state


@pytest.fixture
def home(tmp_path: Path, monkeypatch) -> Path:
    """A JDK as far as the launcher looks, and nothing else on the PATH."""
    binaries = tmp_path / "jdk" / "bin"
    binaries.mkdir(parents=True)
    (binaries / "javac").touch()
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("JAVA_HOME", str(binaries.parent))
    return binaries.parent


def says_version(home: Path, version: str) -> None:
    java = home / "bin" / "java"
    java.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\"' >&2\n")
    java.chmod(0o755)


@pytest.mark.parametrize("version", ["17.0.15", "21.0.2"])
def test_a_jdk_that_flink_supports_is_taken(home: Path, version: str):
    says_version(home, version)
    assert flink_jar.jdk() == home


@pytest.mark.parametrize("version", ["11.0.1", "25.0.2"])
def test_an_older_or_newer_java_is_one_line_that_says_what_to_install(home: Path, version: str):
    says_version(home, version)
    with pytest.raises(MissingPrerequisite, match=r"a JDK of version 17 to 21: .* apt-get install") as raised:
        flink_jar.jdk()
    assert "\n" not in str(raised.value)


def test_without_maven_only_a_jar_that_is_new_enough_is_used(home: Path, tmp_path: Path, monkeypatch):
    says_version(home, "17.0.1")
    source, built = tmp_path / "source.java", tmp_path / "built.jar"
    source.touch()
    monkeypatch.setattr(flink_jar, "SOURCES", (source,))
    monkeypatch.setattr(flink_jar, "JAR", built)
    with pytest.raises(MissingPrerequisite, match=r"Maven: .* apt-get install maven"):
        flink_jar.jar()
    built.touch()
    assert flink_jar.jar() == built
    stale = source.stat().st_mtime - 60
    os.utime(built, (stale, stale))
    with pytest.raises(MissingPrerequisite, match="Maven"):
        flink_jar.jar()


def test_kafka_is_the_users_else_that_of_the_running_stack(tmp_path: Path):
    paths = RunPaths(tmp_path)
    with pytest.raises(NotRunning, match="make up"):
        kafka_bootstrap(paths, {})
    write_state(paths.state, StackState("up", current_identity(), "k:1", "r", "m"))
    assert kafka_bootstrap(paths, {}) == "k:1"
    assert kafka_bootstrap(paths, {"KAFKA_BOOTSTRAP_SERVERS": "mine:2"}) == "mine:2"


def test_flink_listens_on_loopback_only_and_keeps_checkpoints_where_it_is_told():
    text = cluster_settings(FlinkShape(), 1, 2, Path("/kept"), Path("/scratch"))
    settings = dict(line.split(": ", 1) for line in text.splitlines())
    listening = [
        name for name in settings if name.endswith(("bind-host", "bind-address", ".host", ".address"))
    ]
    assert len(listening) == 6 and {settings[name] for name in listening} == {"127.0.0.1"}
    assert settings["execution.checkpointing.dir"] == "file:///kept"
    assert int(settings["heartbeat.interval"]) < int(settings["heartbeat.timeout"]) == 10_000


def test_the_command_line_runs_a_class_of_the_jar():
    command = flink_command(Path("/jdk"), Path("a.jar"), "main.Class", "run", flags=("-Xmx1m",))
    assert command[:2] == ["/jdk/bin/java", "-Xmx1m"]
    assert command[-4:] == ["-cp", "a.jar", "main.Class", "run"]


def test_the_reason_of_a_failed_job_is_at_the_bottom_of_its_trace():
    trace = (
        "a.Outer: failed\n\tat a.b(C.java:1)\nCaused by: b.Mid\nCaused by: c.LostTransaction: gone\n\tat x\n"
    )
    assert root_cause(trace) == "c.LostTransaction: gone"
    assert root_cause("a.Only: this\n\tat x") == "a.Only: this"
