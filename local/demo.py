"""What demo-days, rollback-demo and backfill-demo have in common: a stack of a smaller simulated world, steps
that are taken before it while simulated users come, and figures that are judged.

What a demo does, and what must hold of it, is its own (local/days, rollback, backfill).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from local.child import Child
from local.commands import UNJUDGED, prepare, refuse_secure, refuse_theirs, stack_config
from local.errors import StartFailed
from local.paths import REPOSITORY, RunPaths
from local.ports import Ports
from local.processes import PAGE
from local.report.command import command_line
from local.stack import Stack
from local.stack_config import StackConfig
from local.up import Interrupted, interruptible, print_stack, report_death, require_down, say

# A fifth of the usual catalogue, a tenth of its users: they come back within a minute or two.
SIM = {"ITEMS": "20000", "USERS": "2000", "SESSIONS": "4", "SESSION_S": "120", "DAY0_RATE": "40"}
# Short: what the lake does not hold yet is waited for. Nothing audits beside the run.
LAKE = {"RECLOOP_FLUSH_AGE_MS": "2000", "RECLOOP_AUDIT_INTERVAL_MS": "0"}
# Behind the load's own end: its drain and its report.
LOAD_GRACE_S = 180.0
# 1: a claim of its own did not hold; what it has to reach is not what is judged here.
LOAD_STATUSES = (0, 1)


def parser(
    command: str, description: str | None, result: str, quick: str = "a fraction of it"
) -> argparse.ArgumentParser:
    """Of ``python -m local <command>``: how much of it, where its files go and where its stack listens."""
    made = argparse.ArgumentParser(
        prog=f"python -m local {command}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--quick", action="store_true", help=f"{quick}: that it works")
    made.add_argument("--out", type=_absolute, default=str(REPOSITORY / "out"), help=f"folder of {result}")
    made.add_argument(
        "--run-dir", type=_absolute, default=str(REPOSITORY / "out" / "run"), help="state and logs"
    )
    made.add_argument("--port-offset", type=int, default=0, help="moves every port, for a second stack")
    made.add_argument("--free-ports", action="store_true", help="any free ports instead")
    return made


def _absolute(path: str) -> Path:
    return Path(path).resolve()


def own_stack(
    arguments: argparse.Namespace,
    theirs: Sequence[str],
    why: str,
    own: Mapping[str, Mapping[str, str]],
    *,
    extra: Sequence[str] = (),
) -> StackConfig:
    """The stack of the smaller world, whose day 0 is made here; ``own``: settings of single processes.
    LocalError when ``theirs``, servers of the user's, are set, or a stack of this folder runs."""
    refuse_theirs(theirs, why)
    paths = RunPaths(arguments.run_dir)
    require_down(paths)
    world = {f"RECLOOP_SIM__{name}": value for name, value in SIM.items()}
    prepare("simulate", {**os.environ, **world})
    ports = Ports.free() if arguments.free_ports else Ports.shifted(arguments.port_offset)
    config = stack_config(paths, ports, "simulate", None, os.environ, extra=[*extra, PAGE])
    refuse_secure(config)
    return replace(config, env={**config.env, **world}, process_env={**config.process_env, **own})


@dataclass
class Stage:
    """A stack that is up, and the processes beside it; their logs are in ``folder``."""

    stack: Stack
    folder: Path
    children: list[Child] = field(default_factory=list)

    def start(self, name: str, module: str, *arguments: str) -> Child:
        """A module against the stack, as a process that does not outlive it."""
        command = [sys.executable, "-m", module, *arguments]
        log = self.folder / f"{name}.log"
        child = Child.start(name, command, log, env=self.stack.environment(), cwd=REPOSITORY)
        self.children.append(child)
        return child

    def start_load(self, rate: float, duration_s: float, *arguments: str) -> Child:
        """Simulated users; what they leave is in ``load/``."""
        return self.start(
            "load", "loadgen", "simulate", "--rate", str(rate), "--duration-s", str(duration_s), *UNJUDGED,
            *arguments, "--out", str(self.folder / "load"),
        )  # fmt: skip


@contextmanager
def staged(folder: Path, config: StackConfig) -> Iterator[Stage]:
    """Empties the folder and starts the stack; behind the block, whatever ends it, nothing runs any more.
    LocalError when a part fails, Interrupted when the user stops it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    stage = Stage(Stack(config, say, report_death), folder)
    with interruptible() as ignore_interrupts:
        try:
            stage.stack.start()
            print_stack(stage.stack)
            yield stage
        except Interrupted as asked:
            say(f"{asked}: stopping")
            raise
        finally:
            ignore_interrupts()
            for child in stage.children:
                child.stop(5)
            stage.stack.stop()


def require_load(load: Child, until: str) -> None:
    """Raises StartFailed when no requests come any more, which were needed until something."""
    if load.exit_code in LOAD_STATUSES:
        raise StartFailed(f"the load was over before {until}")
    load.require_running()


def await_load(load: Child, patience_s: float) -> int:
    """Waits for the load's end; its exit status. StartFailed when it does not end, or has no figures."""
    if not load.wait(patience_s) or load.exit_code not in LOAD_STATUSES:
        what = "did not end" if load.exit_code is None else f"ended with status {load.exit_code}"
        raise StartFailed(f"the load {what}; {load.log} ends with:\n{load.tail()}")
    return load.exit_code


def publish(command: str, found: dict[str, Any], summary: str, path: Path) -> int:
    """Writes the figures and says them, with what was to be seen and was not; 1 when a check failed."""
    found["command"] = command_line(command)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=2) + "\n")
    print(summary)
    for remark in found.get("remarks", ()):
        print(f"{command}: {remark}", file=sys.stderr)
    for problem in found["failed_checks"]:
        print(f"{command}: FAILED: {problem}", file=sys.stderr)
    return 1 if found["failed_checks"] else 0
