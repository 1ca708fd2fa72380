"""The launcher's own commands, as a user runs them, on ports and in folders of their own."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from local import control
from local.ports import Ports, free_ports, is_free
from local.state import StackState, read_state

pytestmark = pytest.mark.integration
REPOSITORY = Path(__file__).resolve().parents[2]
WAIT_S = 60.0


def command(*arguments: str, run_dir: Path) -> list[str]:
    return [sys.executable, "-m", "local", *arguments, "--run-dir", str(run_dir)]


def environment() -> dict[str, str]:
    user = ("KAFKA_BOOTSTRAP_SERVERS", "REDIS_URL", "RECLOOP_MODEL_STORE_URI")
    return {name: value for name, value in os.environ.items() if name not in user}


def run(*arguments: str, run_dir: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments, run_dir=run_dir),
        cwd=REPOSITORY, env=environment(), capture_output=True, text=True, timeout=WAIT_S, check=False,
    )  # fmt: skip


def wait_for_status(run_dir: Path, status: str) -> StackState:
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        state = read_state(run_dir / "state.json")
        if state is not None and state.status == status:
            return state
        time.sleep(0.1)
    raise AssertionError(f"never {status}")


def assert_nothing_left(state: StackState) -> None:
    """The kernel needs a moment to take down a killed JVM's threads and sockets."""
    ports = [port for one in state.processes.values() for port in (one.grpc, one.admin, one.metrics) if port]
    assert ports
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and (state.living() or not all(is_free(port) for port in ports)):
        time.sleep(0.05)
    assert state.living() == []
    assert [port for port in ports if not is_free(port)] == []


@pytest.fixture
def foreground(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], StackState, Path]]:
    """``up`` in the foreground with no seed: only release is awaited."""
    output = tmp_path / "output.txt"
    with output.open("wb") as file:
        launcher = subprocess.Popen(
            command("up", "--seed", "none", "--free-ports", run_dir=tmp_path),
            cwd=REPOSITORY, env=environment(), stdout=file, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        yield launcher, wait_for_status(tmp_path, "up"), output
    finally:
        launcher.kill()
        launcher.wait()
        run("down", run_dir=tmp_path)  # nothing to do, unless the test failed


def test_up_detached_then_down_leaves_no_process_and_no_port(tmp_path):
    started = run("up", "--seed", "none", "--free-ports", "--detach", run_dir=tmp_path)
    try:
        assert started.returncode == 0, started.stdout + started.stderr
        assert "release" in started.stdout and "stop with: make down" in started.stdout
        state = wait_for_status(tmp_path, "up")
        assert {"redis", "kafka", "release", "page"} <= set(state.living())
        address = started.stdout.partition("page is serving at ")[2].split()[0]
        page = http.client.HTTPConnection(address.removeprefix("http://").rstrip("/"), timeout=10)
        page.request("GET", "/")
        assert b"recloop, live" in page.getresponse().read()
        page.close()
        again = run("up", "--seed", "none", "--free-ports", run_dir=tmp_path)
        assert again.returncode == 1 and "already up" in again.stderr
        shown = run("status", run_dir=tmp_path)
        assert "release" in shown.stdout and "SERVING" in shown.stdout
        assert "kafka" in run("logs", "-n", "3", run_dir=tmp_path).stdout
    finally:
        ended = run("down", run_dir=tmp_path)
    assert ended.returncode == 0, ended.stdout
    assert_nothing_left(state)
    assert not state.launcher_runs()
    assert run("status", run_dir=tmp_path).returncode == 3
    assert json.loads((tmp_path / "memory.json").read_text())["peak_memory_mb"]["kafka"] > 50
    assert run("down", run_dir=tmp_path).returncode == 0


def test_ctrl_c_stops_everything(foreground, tmp_path):
    launcher, state, _output = foreground
    launcher.send_signal(signal.SIGINT)
    launcher.wait(WAIT_S)
    assert_nothing_left(state)
    assert wait_for_status(tmp_path, "down")


def test_the_launcher_replaces_a_process_when_it_is_asked_to(foreground, tmp_path):
    launcher, before, output = foreground
    said: list[str] = []
    done = control.ask(tmp_path / "control.sock", "replace", said.append, service="release")
    assert (done["how"], done["clean"]) == ("handed over", True), done
    assert said[-1].startswith("release: handed over")
    after = wait_for_status(tmp_path, "up")
    assert after.processes["release"].pid != before.processes["release"].pid
    assert after.processes["kafka"] == before.processes["kafka"]
    assert "SERVING" in run("status", run_dir=tmp_path).stdout
    refused = run("roll", "lake", run_dir=tmp_path)
    assert refused.returncode == 1 and "lake: this stack has" in refused.stderr
    launcher.send_signal(signal.SIGINT)
    assert launcher.wait(WAIT_S) == 0, output.read_text()
    assert_nothing_left(after)
    assert not (tmp_path / "control.sock").exists()
    assert "no stack is up" in run("roll", run_dir=tmp_path).stderr


def test_a_death_is_said_at_once_and_kill_9_of_the_launcher_leaves_nothing(foreground):
    launcher, state, output = foreground
    os.kill(state.processes["release"].pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while b"was killed by SIGKILL; its log ends with" not in output.read_bytes():
        assert time.monotonic() < deadline, output.read_text()
        time.sleep(0.1)
    launcher.kill()
    launcher.wait()
    assert_nothing_left(state)


def test_a_foreign_port_is_named_with_its_owner_and_nothing_is_started(tmp_path):
    # The documented ports, moved so that Kafka's is the one taken here.
    port = next(port for port in free_ports(500) if port < 24_000)
    with socket.create_server(("127.0.0.1", port)):
        offset = port - Ports.shifted().kafka
        done = run("up", "--seed", "none", "--port-offset", str(offset), run_dir=tmp_path)
    assert done.returncode == 1
    assert f"port {port} (kafka) is used by pid {os.getpid()}" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "kafka").exists()


def test_doctor_says_each_part_in_a_line(tmp_path):
    done = run("doctor", "--free-ports", run_dir=tmp_path)
    said = [line.split(":")[0].split()[1] for line in done.stdout.splitlines()]
    parts = ["Python", "cores", "memory", "disk", "Java", "Kafka", "Redis", "ports", "Flink"]
    assert said == parts, done.stdout
    assert done.returncode == 0, done.stdout


def test_the_users_own_servers_are_used_and_left_alone(tmp_path, private_kafka, private_redis):
    from local.stack import Stack
    from local.stack_config import StackConfig

    config = StackConfig(
        tmp_path / "run",
        ports=Ports.free(),
        services=("release",),
        kafka_bootstrap=private_kafka.bootstrap,
        redis_url=private_redis.url,
    )
    with Stack(config) as stack:
        assert set(stack.children) == {"release"}
        assert stack.health("release") == "SERVING"
    assert private_kafka.child.exit_code is None and private_redis.child.exit_code is None
