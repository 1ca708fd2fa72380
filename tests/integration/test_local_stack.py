"""The stack as tests and the demo use it: kill, restart, memory, and a start that fails."""

from __future__ import annotations

import json
import os
import signal
import time

import pytest

from local.errors import NotRunning, StartFailed
from local.ports import Ports, is_free
from local.stack import Stack
from local.stack_config import StackConfig

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    config = StackConfig(tmp_path_factory.mktemp("stack"), ports=Ports.free(), services=("release",))
    with Stack(config) as running:
        yield running


def test_a_killed_process_comes_back_on_its_ports_and_its_kill_is_no_accident(stack):
    before = stack.pid("release")
    stack.kill("release")
    assert stack.health("release") == "UNREACHABLE"
    stack.restart("release")
    assert stack.health("release") == "SERVING"
    assert stack.pid("release") != before
    assert stack.deaths == []


def test_restart_ends_a_running_process_first_and_keeps_its_peak_memory(stack):
    peak = stack.peak_memory_mb()
    stack.restart("release")
    assert stack.health("release") == "SERVING"
    after = stack.peak_memory_mb()
    assert set(after) == {"kafka", "redis", "release"}
    assert all(after[name] >= peak[name] > 1 for name in peak)


def test_a_killed_broker_comes_back_with_its_log(stack):
    stack.kill("kafka")
    stack.restart("kafka")
    stack.restart("release")
    assert stack.health("release") == "SERVING"


def test_state_names_every_process_with_its_ports(stack):
    state = json.loads(stack.paths.state.read_text())
    assert state["status"] == "up"
    assert {name: one["pid"] for name, one in state["processes"].items()} == {
        name: stack.pid(name) for name in ("kafka", "redis", "release")
    }
    assert state["processes"]["release"]["admin"] == stack.config.ports.services["release"].admin


def test_an_unknown_name_says_what_there_is(stack):
    with pytest.raises(NotRunning, match="kafka"):
        stack.pid("gateway")


def test_a_process_that_dies_by_itself_is_told(tmp_path):
    told = []
    config = StackConfig(tmp_path, ports=Ports.free(), services=("release",))
    with Stack(config, on_death=told.append) as running:
        os.kill(running.pid("release"), signal.SIGKILL)
        deadline = time.monotonic() + 10
        while not told and time.monotonic() < deadline:
            time.sleep(0.05)
        assert [child.name for child in told] == running.deaths == ["release"]


def test_a_start_that_fails_says_why_and_leaves_nothing(tmp_path):
    ports = Ports.free()
    config = StackConfig(
        tmp_path, ports=ports, services=("release",), process_env={"release": {"RECLOOP_LOG_LEVEL": "LOUD"}}
    )
    with pytest.raises(StartFailed, match=r"release ended with status 2(.|\n)*log_level = 'LOUD'"):
        Stack(config).start()
    assert [port for port in ports.by_user().values() if not is_free(port)] == []
    assert json.loads((tmp_path / "state.json").read_text())["status"] == "down"


def test_a_seed_that_fails_fails_the_start_with_its_output(tmp_path):
    config = StackConfig(
        tmp_path, ports=Ports.free(), services=("release", "gateway"), seed=["--world", "no"]
    )
    with pytest.raises(StartFailed, match="the seed ended with status"):
        Stack(config).start()
