"""``python -m local report demo|freshness|releases``: the page of what the last run left, made again.

``make demo`` and ``make freshness`` write theirs when they end. ``releases`` has every decision on the
release-events of a running stack.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from pathlib import Path
from typing import Any

from local.errors import LocalError
from local.evidence import Evidence
from local.paths import REPOSITORY, RunPaths
from local.report.decisions import of_events
from local.report.freshness_page import freshness_page
from local.report.releases_page import releases_page
from local.report.run_page import run_page
from local.report.setup import setup, started_with
from local.state import read_state
from services.contract import topics
from services.runtime.settings import KafkaSettings

# Beside the evidence: what it was made with.
SETUP = "setup.json"
SIMULATE = "loadgen simulate"


def demo(out: Path, paths: RunPaths) -> Path:
    """Right behind a demo: notes what it was made with, and writes its page, which is returned."""
    figures = _read(out / "demo.json", "make demo")
    settings = {**started_with(paths.logs), SIMULATE: figures.get("settings", {})}
    made = setup(command_line("demo"), {"world": figures.get("seed", "unknown")}, settings)
    (out / "evidence" / SETUP).write_text(json.dumps(made, indent=2) + "\n")
    return demo_again(out)


def demo_again(out: Path) -> Path:
    """The page of the demo whose figures and evidence are in ``out``. LocalError when they are not."""
    figures, evidence = _read(out / "demo.json", "make demo"), out / "evidence"
    made = _read(evidence / SETUP, "make demo")
    page = run_page("The whole loop under load", figures, Evidence.read(evidence), made)
    return _write(out / "demo.html", page)


def freshness(out: Path) -> Path:
    """The page of ``out``/freshness.json, which is returned."""
    figures = _read(out / "freshness.json", "make freshness DATA=...")
    return _write(out / "freshness.html", freshness_page(figures))


def releases(out: Path, paths: RunPaths) -> Path:
    """The page of all decisions of a running stack. LocalError when its Kafka is away."""
    from aiokafka.errors import KafkaError

    from local.chaos_kafka import read

    state = read_state(paths.state)
    bootstrap = state.kafka_bootstrap if state is not None and state.runs() else ""
    bootstrap = bootstrap or os.environ.get("KAFKA_BOOTSTRAP_SERVERS") or KafkaSettings().bootstrap_servers
    try:
        records = read(bootstrap, [topics.RELEASE_EVENTS], committed=True)
    except (OSError, TimeoutError, KafkaError) as error:
        raise LocalError(f"no Kafka at {bootstrap}: is the stack up? ({error})") from error
    made = setup(command_line("report"), {}, started_with(paths.logs))
    found = of_events([record.value for record in records])
    return _write(out / "releases.html", releases_page(found, made))


def command_line(command: str) -> str:
    """What the user typed."""
    return shlex.join(["python", "-m", "local", command, *sys.argv[2:]])


def main(argv: list[str]) -> int:
    """Runs the command."""
    parser = argparse.ArgumentParser(prog="python -m local report", description=__doc__)
    parser.add_argument("what", choices=("demo", "freshness", "releases"))
    parser.add_argument("--out", type=Path, default=REPOSITORY / "out", help="folder of figures and pages")
    parser.add_argument("--run-dir", type=Path, default=REPOSITORY / "out" / "run", help="the stack's logs")
    arguments = parser.parse_args(argv)
    if arguments.what == "releases":
        path = releases(arguments.out, RunPaths(arguments.run_dir.resolve()))
    else:
        path = {"demo": demo_again, "freshness": freshness}[arguments.what](arguments.out)
    print(path)
    return 0


def _read(path: Path, first: str) -> dict[str, Any]:
    if not path.is_file():
        raise LocalError(f"{path}: no such file; run `{first}` first")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def _write(path: Path, page: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page)
    return path
