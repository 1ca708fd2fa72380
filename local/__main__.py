"""``python -m local``: the commands of the launcher."""

from __future__ import annotations

import argparse
import importlib
import os
import shlex
import sys
from pathlib import Path

from local.errors import LocalError
from local.paths import REPOSITORY, RunPaths
from local.ports import Ports
from local.processes import OPTIONAL, PAGE
from services.contract.access import IDENTITIES, OPERATOR

# Commands with a command line of their own.
OWN_ARGUMENTS = {
    "audit": "local.audit",
    "backfill-demo": "local.backfill.command",
    "chaos-join": "local.chaos_join",
    "compare-samples": "local.compare.command",
    "demo-days": "local.days.command",
    "freshness": "local.freshness.command",
    "report": "local.report.command",
    "roll": "local.roll.command",
    "rollback-demo": "local.rollback.command",
}
EXIT_FAILED = 1
EXIT_INTERRUPTED = 130


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(prog="python -m local", description="Runs the whole loop on this machine.")
    commands = top.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="start everything and stay with it until Ctrl-C")
    up.add_argument(
        "--seed", default="simulate", help="simulate (default), none, or replay:<MovieLens folder>"
    )
    up.add_argument("--detach", action="store_true", help="return when it is up; stop it with 'down'")
    up.add_argument(
        "--with",
        dest="extra",
        action="append",
        default=[],
        choices=[name for name in OPTIONAL if name != PAGE],
        help="a process beside the loop",
    )
    up.add_argument("--time-scale", type=float, help="RECLOOP_TIME_SCALE; default 1, for replay seeds 0")
    demo = commands.add_parser("demo", allow_abbrev=False, help="up, the simulated load, down")
    replay = commands.add_parser("replay", allow_abbrev=False, help="up, a data set in event time, down")
    replay.add_argument("--data", type=Path, required=True, help="MovieLens 100K folder, .csv or .parquet")
    replay.add_argument("--barrier-s", type=int, help="event time between barriers, seconds")
    commands.add_parser("down", help="stop everything")
    commands.add_parser("status", help="what runs where; exit status 0 = all well, 1 = not, 3 = not running")
    env = commands.add_parser("env", help="what a shell needs for commands against a stack of SECURE=1")
    env.add_argument("identity", nargs="?", default=OPERATOR, choices=IDENTITIES, help="default operator")
    commands.add_parser("doctor", help="is everything here that the stack needs?")
    commands.add_parser("compile", help="the join as machine code (make setup does it)")
    commands.add_parser("fetch", help="download what pip does not (make setup does it)")
    logs = commands.add_parser("logs", help="the end of the logs")
    logs.add_argument("name", nargs="?", help="a process; default all")
    logs.add_argument("-f", "--follow", action="store_true", help="go on showing what is added")
    logs.add_argument("-n", "--lines", type=int, default=20, help="lines of each log")
    commands.add_parser("audit", help="recompute every figure from the evidence", add_help=False)
    flink = commands.add_parser(
        "flink-join",
        allow_abbrev=False,
        help="the join on a Flink cluster, beside the joiner; more options as --help of the jar lists them",
    )
    flink.add_argument("--rest-port", type=int, default=8081, help="of Flink's web interface and REST")
    flink.add_argument("--task-managers", type=int, default=1, help="processes that join, two tasks each")
    commands.add_parser("flink-jar", help="build the join on Flink from its sources, when they are newer")
    commands.add_parser("chaos-join", help="kills around the joiner under load, counted", add_help=False)
    commands.add_parser("backfill-demo", help="a view joins a running stack, with its past", add_help=False)
    commands.add_parser("demo-days", help="simulated days, four ways to update a model", add_help=False)
    commands.add_parser("compare-samples", help="all schemes of samples on one traffic", add_help=False)
    commands.add_parser("freshness", help="AUC by how often the model is synchronised", add_help=False)
    commands.add_parser("report", help="a page of the last demo, freshness or all decisions", add_help=False)
    commands.add_parser("roll", help="every process of a running stack replaced, under load", add_help=False)
    commands.add_parser("rollback-demo", help="faults under load, mended by the loop", add_help=False)
    for command in (up, demo, replay, commands.choices["doctor"]):
        command.add_argument(
            "--port-offset", type=int, default=0, help="moves every port, for a second stack"
        )
        command.add_argument("--free-ports", action="store_true", help="any free ports instead")
    for name, command in commands.choices.items():
        if name not in OWN_ARGUMENTS:
            command.add_argument(
                "--run-dir", type=Path, default=REPOSITORY / "out" / "run", help="state and logs"
            )
    return top


def dispatch(argv: list[str]) -> int:
    """Runs one command; its exit status."""
    if argv and argv[0] in OWN_ARGUMENTS:
        return int(importlib.import_module(OWN_ARGUMENTS[argv[0]]).main(argv[1:]))
    top = parser()
    arguments, rest = top.parse_known_args(argv)
    if rest and arguments.command not in PASS_ON:
        top.error(f"unrecognized arguments: {' '.join(rest)}")
    return HANDLERS[arguments.command](arguments, RunPaths(arguments.run_dir.resolve()), rest)


def _up(arguments: argparse.Namespace, paths: RunPaths, _rest: list[str]) -> int:
    from local.commands import prepare, stack_config
    from local.up import up, up_detached

    seed, scale = arguments.seed, arguments.time_scale
    if not arguments.detach:
        extra = [*arguments.extra, PAGE]
        config = stack_config(paths, _ports(arguments), seed, scale, os.environ, extra=extra)
        prepare(seed)
        return up(config)
    again = ["up", "--seed", seed, "--port-offset", str(arguments.port_offset), "--run-dir", str(paths.root)]
    again += [part for name in arguments.extra for part in ("--with", name)]
    if arguments.free_ports:
        again.append("--free-ports")
    if scale is not None:
        again += ["--time-scale", str(scale)]
    return up_detached(paths, again)


def _ports(arguments: argparse.Namespace) -> Ports:
    return Ports.free() if arguments.free_ports else Ports.shifted(arguments.port_offset)


def _demo(arguments: argparse.Namespace, paths: RunPaths, rest: list[str]) -> int:
    from local.commands import run_demo

    return run_demo(paths, _ports(arguments), rest)


def _replay(arguments: argparse.Namespace, paths: RunPaths, rest: list[str]) -> int:
    from local.commands import run_replay

    return run_replay(paths, _ports(arguments), arguments.data.resolve(), arguments.barrier_s, rest)


def _doctor(arguments: argparse.Namespace, _paths: RunPaths, _rest: list[str]) -> int:
    from local.doctor import doctor

    return doctor(_ports(arguments))


def _fetch(_arguments: argparse.Namespace, _paths: RunPaths, _rest: list[str]) -> int:
    from local.fetch import fetch

    return fetch()


def _compile(_arguments: argparse.Namespace, _paths: RunPaths, _rest: list[str]) -> int:
    from local.compiled import build

    return build(lambda line: print(f"setup: {line}", flush=True))


def _logs(arguments: argparse.Namespace, paths: RunPaths, _rest: list[str]) -> int:
    from local.logs import logs

    return logs(paths, arguments.name, arguments.lines, arguments.follow)


def _env(arguments: argparse.Namespace, paths: RunPaths, _rest: list[str]) -> int:
    from local.security import Security
    from local.state import read_state

    state = read_state(paths.state)
    if state is None or not state.runs() or not paths.security.is_dir():
        raise LocalError(f"no secured stack runs in {paths.root}: SECURE=1 make up")
    security = Security(paths.security, state.redis_url.startswith("rediss"))
    found = security.environment(arguments.identity, state.kafka_bootstrap, state.redis_url)
    print("\n".join(f"export {name}={shlex.quote(value)}" for name, value in found.items()))
    return 0


def _flink_join(arguments: argparse.Namespace, paths: RunPaths, rest: list[str]) -> int:
    from local.flink_join import flink_join

    return flink_join(paths, arguments.rest_port, arguments.task_managers, rest)


def _flink_jar(_arguments: argparse.Namespace, _paths: RunPaths, _rest: list[str]) -> int:
    from local.flink_join import build

    return build()


def _status(_arguments: argparse.Namespace, paths: RunPaths, _rest: list[str]) -> int:
    from local.status import status

    return status(paths)


def _down(_arguments: argparse.Namespace, paths: RunPaths, _rest: list[str]) -> int:
    from local.down import down
    from local.state import read_state

    # Before the Kafka that it reads.
    flink = read_state(paths.flink.state)
    stopped = down(paths.flink) if flink is not None and flink.runs() else 0
    return down(paths) or stopped


HANDLERS = {
    "up": _up,
    "demo": _demo,
    "replay": _replay,
    "doctor": _doctor,
    "env": _env,
    "fetch": _fetch,
    "compile": _compile,
    "flink-join": _flink_join,
    "flink-jar": _flink_jar,
    "logs": _logs,
    "status": _status,
    "down": _down,
}
# What these do not know goes to the load generator, or to the job.
PASS_ON = ("demo", "replay", "flink-join")


def main() -> int:
    """Errors of the machine are one line, not a traceback."""
    try:
        return dispatch(sys.argv[1:])
    except LocalError as error:
        print(f"local: {error}", file=sys.stderr)
        return EXIT_FAILED
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
