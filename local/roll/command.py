"""``python -m local roll [SERVICE ...]``: a rolling restart of a running stack, under a load of its own.

Each service in turn is replaced by a new process (local/roll/replace.py says how), from the services that
write to those that answer users; without names all that the stack has. A simulated load runs meanwhile; its
evidence says what the roll cost, and is audited as ``local audit`` audits a demo. Writes out/roll.json, the
load's evidence to out/roll/. Exits with 1 when a request failed, an event was lost, or a process had to be
killed. What stands behind ``--`` goes to ``loadgen simulate``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from aiokafka.errors import KafkaError

from local import audit, control
from local.child import guard
from local.commands import UNJUDGED
from local.errors import LocalError, NotRunning
from local.evidence import Evidence
from local.paths import REPOSITORY, RunPaths
from local.processes import SPECS
from local.roll.verdict import report
from local.state import StackState, read_state
from local.table import table
from local.up import say

RATE, LEAD_S, BETWEEN_S, AFTER_S = 20.0, 3.0, 0.5, 2.0
# More than any roll takes; it is told when to end.
LOAD_S = 1_800
# For the clicks that are still to come, and until they are samples.
END_S = 180.0
# For what it said before it ended; a grandchild of it may hold the pipe open.
WORDS_S = 2.0


def main(argv: list[str]) -> int:
    """Runs the command."""
    arguments, rest = _arguments(argv)
    paths = RunPaths(arguments.run_dir.resolve())
    state = read_state(paths.state)
    if state is None or state.status != "up" or not state.launcher_runs():
        raise NotRunning(f"no stack is up in {paths.root}: start one with make up")
    names = in_order(arguments.services, control.ask(paths.control, "services"))
    folder = arguments.out / "roll"
    replaced = _under_load(paths, folder, names, arguments.rate, rest)
    evidence = Evidence.read(folder / "evidence")
    figures = json.loads((folder / "demo.json").read_text())
    found = report(replaced, figures, evidence, _audited(paths, state, figures, evidence))
    path = arguments.out / "roll.json"
    path.write_text(json.dumps(found, indent=2) + "\n")
    print(summary(found))
    for problem in found["failed_checks"]:
        print(f"roll: FAILED: {problem}", file=sys.stderr)
    print(f"roll: {path}")
    return 1 if found["failed_checks"] else 0


def in_order(wanted: list[str], running: list[str]) -> list[str]:
    """The services to replace: those asked for, else all that run; writers first, the page last. LocalError
    names one that does not run."""
    if unknown := [name for name in wanted if name not in running]:
        raise LocalError(f"roll: {', '.join(unknown)}: this stack has {', '.join(running)}")
    return [spec.name for spec in SPECS if spec.name in (wanted or running)]


def _under_load(
    paths: RunPaths, folder: Path, names: list[str], rate: float, rest: list[str]
) -> list[dict[str, Any]]:
    own = control.ask(paths.control, "environment", module="loadgen")
    # A former roll's: whether this one's load wrote its figures is told by their being there.
    (folder / "demo.json").unlink(missing_ok=True)
    load = subprocess.Popen(
        [
            *guard(), sys.executable, "-m", "loadgen",
            "simulate", *UNJUDGED, "--scenario-target", "", "--rate", f"{rate:g}",
            "--duration-s", str(LOAD_S), "--out", str(folder), "--run-dir", str(paths.root), *rest,
        ],
        env={**os.environ, **own}, cwd=REPOSITORY, text=True,
        stderr=subprocess.PIPE, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    told = _Told(load)
    try:
        told.until_asking()
        time.sleep(LEAD_S)
        replaced = []
        for name in names:
            replaced.append(control.ask(paths.control, "replace", say, service=name))
            time.sleep(BETWEEN_S)
        time.sleep(AFTER_S)
        told.require_running()
        say("roll: the load ends; what it showed becomes samples")
        load.send_signal(signal.SIGTERM)
        load.wait(END_S)
    except subprocess.TimeoutExpired:
        raise LocalError(f"the load did not end within {END_S:.0f} s") from None
    finally:
        if load.poll() is None:
            load.kill()
            load.wait()
        told.end()
    if not (folder / "demo.json").is_file():
        raise LocalError(f"the load ended with status {load.returncode}:\n{told.tail()}")
    return replaced


class _Told:
    """What a load says on stderr, read as it comes: passed on, and remembered for when it fails."""

    def __init__(self, load: subprocess.Popen[str]) -> None:
        self._load = load
        self._lines: list[str] = []
        self._asking = threading.Event()
        self._reader = threading.Thread(target=self._read, name="load's words", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._load.stderr is not None
        with self._load.stderr as words:
            for line in words:
                self._lines = [*self._lines[-20:], line.rstrip()]
                if line.startswith(("simulate:", "  ")):
                    say(line.rstrip())
                if "requests/s for" in line:
                    self._asking.set()

    def until_asking(self) -> None:
        """Until the first request. LocalError when it ends instead."""
        while not self._asking.wait(0.1):
            self.require_running()

    def require_running(self) -> None:
        """LocalError with its last words."""
        if self._load.poll() is not None:
            raise LocalError(f"the load ended with status {self._load.returncode}:\n{self.tail()}")

    def end(self) -> None:
        """Until its last word, once it has ended."""
        self._reader.join(WORDS_S)

    def tail(self) -> str:
        """Its last lines."""
        return "\n".join(self._lines)


def _audited(
    paths: RunPaths, state: StackState, figures: dict[str, Any], evidence: Evidence
) -> list[audit.Line]:
    lines = [
        *audit.compare(figures, evidence),
        audit.check_chain(evidence.deltas),
        audit.check_explained(evidence),
    ]
    if paths.security.is_dir():
        say("roll: a secured Kafka is not read by the audit: the evidence alone is")
        return lines
    try:
        return lines + asyncio.run(audit.check_topics(state.kafka_bootstrap, evidence))
    except (OSError, KafkaError) as error:
        raise LocalError(f"Kafka at {state.kafka_bootstrap} is not to be read: {error!r}") from error


def summary(found: dict[str, Any]) -> str:
    """The report as text."""
    header = (
        "service", "how", "start s", "drain s", "nobody s", "requests", "failed", "degraded", "slowest ms",
        "shown", "not sampled",
    )  # fmt: skip
    rows = [
        (
            one["service"], one["how"], *(f"{one[name]:.1f}" for name in ("start_s", "drain_s", "gap_s")),
            one["requests"], one["failed"], one["degraded"], one["slowest_ms"], one["items_shown"],
            one["not_sampled"],
        )
        for one in found["services"]
    ]  # fmt: skip
    return "\n".join(
        [
            table(header, rows),
            f"{found['requests']:,} requests, {found['failed_requests']} failed, "
            f"{found['degraded_requests']} degraded {found['degraded_by'] or ''}",
            f"{found['items_shown']:,} items shown, {found['samples']:,} samples, "
            f"rejected {found['rejected'] or 0}, {found['lost_events']} events lost; "
            f"audit: {found['audited']} figures, {len(found['audit_differs'])} differ",
        ]
    )


def _arguments(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(
        prog="python -m local roll", description=__doc__.split("\n\n", 1)[0], allow_abbrev=False
    )
    parser.add_argument("services", nargs="*", metavar="SERVICE", help="default: all that the stack has")
    parser.add_argument("--rate", type=float, default=RATE, help=f"requests per second meanwhile; {RATE:g}")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "out", help="folder of roll.json and roll/")
    parser.add_argument("--run-dir", type=Path, default=REPOSITORY / "out" / "run", help="the stack's")
    at = argv.index("--") if "--" in argv else len(argv)
    arguments = parser.parse_args(argv[:at])
    if not 0 < arguments.rate <= 1_000:
        parser.error(f"--rate {arguments.rate}: above 0, at most 1,000")
    arguments.out = arguments.out.resolve()
    return arguments, argv[at + 1 :]
