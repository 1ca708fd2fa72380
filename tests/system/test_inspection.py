"""The commands of docs/inspect.md, each as it stands there, against a stack of real processes under load."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from local.ports import SCENARIOS, Ports
from local.processes import LOOP
from tests.go_tools import TOOLS, tool
from tests.system.conftest import REPOSITORY, Loop, seeded_loop

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]
PAGES = ("README.md", "docs/inspect.md", "docs/deploy.md")
# What a fresh stack refuses, as the page says: requests without their fields, a generation, lineage or order
# that nobody has registered, and a watch that its caller ends.
REFUSED = {
    "RankingService/Rank": "InvalidArgument",
    "RankingService/WatchApplied": "DeadlineExceeded",
    "ReleaseService/RegisterGeneration": "InvalidArgument",
    "ReleaseService/RegisterBase": "NotFound",
    "ReleaseService/ReportRollback": "NotFound",
    "ReleaseService/GateGeneration": "NotFound",
    "ReleaseService/StepGeneration": "NotFound",
    "ReleaseService/HoldGeneration": "NotFound",
}


def commands(*names: str) -> list[str]:
    """The lines of the pages' code blocks that call a tool."""
    found = []
    for page in PAGES:
        blocks = re.findall(r"^```\n(.*?)^```", (REPOSITORY / page).read_text(), re.M | re.S)
        lines = [line.partition("   # ")[0].strip() for block in blocks for line in block.splitlines()]
        found += [line for line in lines if re.match(rf"(?:echo .* \| )?(?:{'|'.join(names)}) ", line)]
    return list(dict.fromkeys(found))


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    """A stack with the lake, and a load whose world can be switched."""
    with seeded_loop(tmp_path_factory.mktemp("stack"), (*LOOP, "lake")) as seeded:
        load = seeded.simulate("--rate", "5", "--duration-s", "600")
        switches = f"grpcurl -plaintext 127.0.0.1:{SCENARIOS} list"
        try:
            Loop.wait_until(lambda: run(switches, seeded).returncode == 0, 60, "the load's switches")
            yield seeded
        finally:
            load.kill()
            load.communicate(timeout=10)


def moved(command: str, ports: Ports) -> str:
    """A command with the stack's ports instead of the documented ones."""
    where = {Ports.shifted().scenarios: ports.scenarios}
    for name, documented in Ports.shifted().services.items():
        mine = ports.services[name]
        where |= {documented.grpc: mine.grpc, documented.admin: mine.admin, documented.metrics: mine.metrics}
    return re.sub(
        r"(127\.0\.0\.1:|--port )(7\d{3})\b", lambda found: f"{found[1]}{where[int(found[2])]}", command
    )


def run(command: str, loop: Loop) -> subprocess.CompletedProcess[str]:
    """As a user does, in a shell, with the tools on the PATH."""
    named = [name for name in TOOLS if re.search(rf"\b{name}\b", command)]
    path = os.pathsep.join([*(str(tool(name).parent) for name in named), os.environ["PATH"]])
    return subprocess.run(
        ["bash", "-c", moved(command, loop.stack.config.ports)],
        env={**os.environ, "PATH": path}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_the_page_has_commands_of_every_tool():
    assert len(commands("grpcurl")) > 35
    assert all(commands(name) for name in (*TOOLS, "curl"))


@pytest.mark.parametrize("command", commands("grpcurl", "curl"), ids=lambda one: one[-48:])
def test_a_call_answers_as_the_page_says(loop: Loop, command: str):
    method = command.rpartition(" rec.v1.")[2]
    done = run(command, loop)
    if (code := REFUSED.get(method)) is None:
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip(), "an answer"
    else:
        assert done.returncode != 0 and f"Code: {code}" in done.stderr, done.stdout + done.stderr


@pytest.mark.parametrize("command", commands("evans", "ghz"), ids=lambda one: one[-48:])
def test_another_tool_finds_the_services_by_reflection_alone(loop: Loop, command: str):
    done = run(command, loop)
    assert done.returncode == 0, done.stderr
    if command.startswith("ghz"):
        good = re.search(r"\[OK\] +(\d+) responses", done.stdout)
        assert good and int(good[1]) > 150, done.stdout
    elif "call" in command:
        assert len(json.loads(done.stdout)["items"]) == 10
    else:
        assert "Recommend" in done.stdout or "user_key" in done.stdout


def test_a_browser_gets_a_form_for_every_method(loop: Loop, tmp_path: Path):
    (command,) = commands("grpcui")
    program, *rest = moved(command, loop.stack.config.ports).split()
    port = rest[rest.index("-port") + 1]
    with (tmp_path / "said").open("w") as said:
        page = subprocess.Popen([str(tool(program)), *rest], stdout=said, stderr=said)
    try:
        deadline = time.monotonic() + 20
        while "gRPC Web UI available" not in (tmp_path / "said").read_text():
            assert page.poll() is None and time.monotonic() < deadline, (tmp_path / "said").read_text()
            time.sleep(0.1)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as answer:
            assert "rec.v1.GatewayService" in answer.read().decode()
    finally:
        page.terminate()
        page.wait(10)
