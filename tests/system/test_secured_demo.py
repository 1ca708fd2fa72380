"""SECURE=1: the same demo, with certificates, logins and rules; a probe beside it; certificates replaced
under load. In a smaller world, so that it starts sooner.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from local.commands import UNJUDGED
from local.kafka_acls import denials
from local.processes import LOOP, PAGE
from local.security_demo import INTRUDER, REFUSALS, TOPIC

pytestmark = [pytest.mark.system, pytest.mark.timeout(280)]
REPOSITORY = Path(__file__).resolve().parents[2]
WORLD = {
    "RECLOOP_SIM__ITEMS": "3000",
    "RECLOOP_SIM__USERS": "300",
    "RECLOOP_SIM__SESSIONS": "2",
    "RECLOOP_SIM__SESSION_S": "30",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a demo that has passed."""
    made = tmp_path_factory.mktemp("secured")
    command = (
        *(sys.executable, "-m", "local", "demo", "--free-ports", "--run-dir", str(made / "run")),
        *("--out", str(made / "out"), "--rate", "20", "--duration-s", "40", *UNJUDGED),
    )
    done = subprocess.run(
        command, env={**os.environ, **WORLD, "SECURE": "1"}, cwd=REPOSITORY,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=270, check=False,
    )  # fmt: skip
    (made / "demo.log").write_text(done.stdout)
    assert done.returncode == 0, done.stdout[-6_000:]
    return made


@pytest.fixture(scope="module")
def figures(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "out" / "demo.json").read_text())


def test_every_attempt_is_refused_and_counted(figures: dict[str, Any]) -> None:
    assert {name: figures["security"][name] >= 1 for name in REFUSALS} == dict.fromkeys(REFUSALS, True)


def test_certificates_are_replaced_under_load_and_no_request_fails(figures: dict[str, Any]) -> None:
    assert figures["security"]["certificates_replaced"] == len([*LOOP, PAGE])
    assert figures["requests"] >= 500
    assert figures["errors"] == 0


def test_the_loop_is_closed(figures: dict[str, Any]) -> None:
    assert figures["drained"]
    assert figures["samples"] == figures["impressions"]
    assert figures["deltas_applied"] >= 1
    # A busy machine may miss a deadline now and then; a source that may not read what it needs always does.
    assert sum(figures["degraded"].values()) < figures["requests"] / 10


def test_nobody_else_is_denied_anything_by_kafka(folder: Path) -> None:
    denied = denials(folder / "run" / "kafka" / "server.log")
    assert {(who, name) for who, _, _, name in denied} == {(INTRUDER, TOPIC)}


def test_no_secret_is_in_a_log(folder: Path) -> None:
    run = folder / "run"
    passwords = [path.read_text() for path in (run / "security").rglob("*-password")]
    assert len(passwords) > len(LOOP)
    logs = [folder / "demo.log", run / "kafka" / "server.log", *(run / "logs").iterdir()]
    text = "\n".join(path.read_text(errors="replace") for path in logs)
    assert [one for one in passwords if one in text] == []
    assert "PRIVATE KEY" not in text
