"""Every process of a running stack replaced by a new one, under load: no request fails, no event is lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from local import control
from local.ports import HOST, SPARE_HOST, Ports
from local.processes import BY_NAME, LOOP, PAGE
from local.stack import Stack
from local.stack_config import StackConfig
from local.state import read_state
from tests.system.conftest import REPOSITORY, WORLD, loadgen

pytestmark = [pytest.mark.system, pytest.mark.timeout(400)]
RATE, WINDOW_MS = "12", "4000"
# What a source may take: nothing is missing because a machine is slow while processes start, only where
# nobody answers.
PATIENT_MS = "1500"


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    """A seeded stack whose launcher takes requests, as that of ``up`` does."""
    subprocess.run(loadgen("day0", *WORLD), cwd=REPOSITORY, env=os.environ, check=True, timeout=240)
    run_dir = tmp_path / "run"
    config = StackConfig(
        root=run_dir,
        ports=Ports.free(),
        seed=["--world", "simulate", *WORLD, "--run-dir", str(run_dir)],
        services=(*LOOP, PAGE),
        process_env={
            "trainer": {"RECLOOP_BASE_INTERVAL_S": "8"},
            "joiner": {"RECLOOP_WINDOW_MS": WINDOW_MS},
            "recall": {"RECLOOP_CO_CLICK_BUDGET_MS": PATIENT_MS, "RECLOOP_VECTORS_BUDGET_MS": PATIENT_MS},
        },
    )
    with Stack(config) as started, control.listening(started.paths.control) as listener:
        threading.Thread(target=control.serve, args=(listener, started, print), daemon=True).start()
        yield started
        assert started.deaths == []


def test_every_process_is_replaced_under_load_and_nothing_is_lost(stack: Stack, tmp_path: Path) -> None:
    before = {name: stack.pid(name) for name in stack.config.services}
    out = tmp_path / "out"
    done = subprocess.run(
        [
            sys.executable, "-m", "local", "roll", "--run-dir", str(stack.paths.root), "--out", str(out),
            "--rate", RATE, "--", *WORLD, "--window-ms", WINDOW_MS, "--candidates", "300",
        ],
        cwd=REPOSITORY, env=os.environ, text=True, capture_output=True, timeout=300, check=False,
    )  # fmt: skip
    assert (out / "roll.json").is_file(), done.stdout + done.stderr
    found = json.loads((out / "roll.json").read_text())
    assert done.returncode == 0, (found, done.stdout[-4000:], done.stderr[-4000:])
    assert found["failed_checks"] == []
    assert [one["service"] for one in found["services"]] == [
        name for name in BY_NAME if name in stack.config.services
    ]
    assert all(one["clean"] and one["requests"] for one in found["services"])
    assert found["failed_requests"] == found["lost_events"] == 0
    assert found["requests"] > 100 and found["samples"] > 500
    # Who only answers is replaced without a gap, so nothing is missing from an answer either.
    assert found["degraded_requests"] == 0, found["degraded_by"]

    assert all(stack.pid(name) != before[name] for name in before), "a new process each"
    assert all(stack.health(name) == "SERVING" for name in before)
    state = read_state(stack.paths.state)
    assert state is not None
    hosts = {name: state.processes[name].host for name in before}
    assert hosts == {name: SPARE_HOST if BY_NAME[name].beside else HOST for name in before}
    gateway = next(one for one in found["services"] if one["service"] == "gateway")
    assert gateway["clients"] >= 1, "the load watches the gateway's health"
