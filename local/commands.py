"""The commands that bring a stack up, do something with it, and take it down again."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from local.child import guard
from local.errors import LocalError
from local.paths import REPOSITORY, RunPaths
from local.ports import Ports
from local.processes import LOOP, PAGE, SPECS
from local.report import command as report
from local.security_demo import SecurityDemo
from local.stack import Stack
from local.stack_config import StackConfig
from local.up import Interrupted, interruptible, print_stack, report_death, require_down, say
from services.contract.feature_sets import MOVIELENS, WORLD

EXIT_INTERRUPTED = 130
REPLAY = "replay:"
# A barrier waits for every writer on its way, and for those who read what leads to it: none of them gathers.
# The others (release, the lake) do as ever; the machine is the barrier's.
REPLAY_WRITERS = {"RECLOOP_KAFKA__LINGER_MS": "0"}
REPLAY_READER = {"RECLOOP_KAFKA__FETCH_MIN_BYTES": "1"}
# A finished log has no junk ids to keep out, and few events per id: each is admitted when it is first seen,
# and stays (on MovieLens 100K forgetting after 30 days costs 0.0016 of AUC).
REPLAY_TRAINER = {
    **REPLAY_READER,
    "RECLOOP_GATHER_MS": "0",
    # Records and barriers end a poll. Several lineages that look up every 20 ms would only take the CPU.
    "RECLOOP_POLL_MS": "100",
    "RECLOOP_BARRIER_GATHER_MS": "1000",
    "RECLOOP_ADMISSION__MIN_COUNT_USER": "1",
    "RECLOOP_ADMISSION__MIN_COUNT_ITEM": "1",
    "RECLOOP_ADMISSION__MIN_COUNT_CATEGORY": "1",
    "RECLOOP_ADMISSION__TTL_S": str(10 * 365 * 86_400),
}
# Barriers close the windows; inside an interval the requests are concurrent, so their order says nothing
# about lateness. Event time, longer than a few requests in flight can be apart.
REPLAY_JOIN = {**REPLAY_READER, "RECLOOP_BOUND_MS": str(7 * 86_400_000)}
REPLAY_PIPELINE = {**REPLAY_READER, "RECLOOP_SPLIT_PAUSE_MS": "0", "RECLOOP_FOLD_PAUSE_MS": "0"}
REPLAY_PROCESSES = {
    "trainer": REPLAY_TRAINER,
    "feature_pipeline": REPLAY_PIPELINE,
    **{spec.name: REPLAY_JOIN for spec in SPECS if spec.module == ("services.joiner",)},
}

# Of a simulated load whose own claims are not what a command measures.
UNJUDGED = (
    *("--shadow-arm", "", "--min-answered-per-s", "0", "--min-delta-rows", "0"),
    *("--max-freshness-p50-s", "3600", "--require-uplift", "false"),
)


def refuse_theirs(names: Sequence[str], why: str) -> None:
    """Raises LocalError when the environment names a server of the user's."""
    for name in names:
        if os.environ.get(name):
            raise LocalError(f"{name} is set: {why}")


def secured(environ: Mapping[str, str]) -> bool:
    """Whether SECURE asks for TLS, logins and rules. Raises LocalError when it says neither yes nor no, or
    when servers of the user's are to be used."""
    wanted = environ.get("SECURE", "")
    if wanted not in ("", "0", "1"):
        raise LocalError(f"SECURE={wanted}: 1, or 0 or nothing")
    if wanted != "1":
        return False
    for name in ("KAFKA_BOOTSTRAP_SERVERS", "REDIS_URL"):
        if environ.get(name):
            raise LocalError(
                f"{name} is set: with SECURE=1 the stack makes users and rules of its own servers"
            )
    return True


def refuse_secure(config: StackConfig) -> None:
    """Raises LocalError for a command that looks into its stack itself, without certificates and logins."""
    if config.secure:
        raise LocalError("SECURE=1 is for up and demo")


def seed_arguments(seed: str) -> list[str] | None:
    """Arguments of ``loadgen seed`` for --seed; None = no seed. Raises LocalError naming the choices."""
    if seed == "none":
        return None
    if seed == "simulate":
        return ["--world", "simulate"]
    if seed.startswith(REPLAY) and len(seed) > len(REPLAY):
        return ["--world", "replay", "--data", str(Path(seed.removeprefix(REPLAY)).resolve())]
    raise LocalError(f"--seed {seed}: expected simulate, none or replay:<path>")


def feature_set_of(seed: str, environ: Mapping[str, str]) -> str:
    """The feature set of a stack, unless the user names one: a replayed log lasts for months, what happens in
    the simulated world for minutes."""
    return environ.get("RECLOOP_FEATURE_SET") or (MOVIELENS if seed.startswith(REPLAY) else WORLD)


def stack_config(
    paths: RunPaths,
    ports: Ports,
    seed: str,
    time_scale: float | None,
    environ: Mapping[str, str],
    *,
    extra: Sequence[str] = (),
) -> StackConfig:
    """The stack that the command line and the user's environment ask for; ``extra``: processes beside the
    loop.
    """
    arguments = seed_arguments(seed)
    replay = seed.startswith(REPLAY)
    own = dict(REPLAY_PROCESSES) if replay else {}
    if "joiner_label_first" in extra:
        own["ranking"] = {"RECLOOP_SLIM_SNAPSHOTS": "true"}
    scale = time_scale if time_scale is not None else 0.0 if replay else 1.0
    return StackConfig(
        root=paths.root,
        ports=ports,
        seed=arguments,
        services=(*LOOP, *dict.fromkeys(extra)),
        env={
            "RECLOOP_TIME_SCALE": str(scale),
            "RECLOOP_FEATURE_SET": feature_set_of(seed, environ),
            **(REPLAY_WRITERS if replay else {}),
        },
        process_env=own,
        kafka_bootstrap=environ.get("KAFKA_BOOTSTRAP_SERVERS") or None,
        redis_url=environ.get("REDIS_URL") or None,
        model_store_uri=environ.get("RECLOOP_MODEL_STORE_URI") or None,
        lake_uri=environ.get("RECLOOP_LAKE_URI") or None,
        secure=secured(environ),
    )


def prepare(seed: str, environ: Mapping[str, str] = os.environ) -> None:
    """Makes what a seed needs before anything runs: the day-0 log, quick when cached. Raises LocalError."""
    if seed == "simulate" and (code := run_loadgen(["day0"], environ)) != 0:
        raise LocalError(f"loadgen day0 ended with status {code}; see its output above")


def run_demo(paths: RunPaths, ports: Ports, rest: Sequence[str]) -> int:
    """Stack, simulated load, stack down; the exit status of ``loadgen simulate``."""
    prepare("simulate")
    config = stack_config(paths, ports, "simulate", None, os.environ, extra=[PAGE])
    began = time.time()
    out = _out_of(rest)
    result = out / "demo.json"
    demos: list[SecurityDemo] = []

    def beside(stack: Stack) -> AbstractContextManager[object]:
        if config.secure:
            demos.append(SecurityDemo(stack))
        return demos[0] if demos else nullcontext()

    code = with_stack(config, ["simulate", *rest], beside=beside)
    # Also of a run that failed; not of one that ended before it had figures.
    if result.is_file() and result.stat().st_mtime >= began:
        code = max([code, *(demo.conclude(result, say) for demo in demos)])
        say(f"report: {report.demo(out, paths)}")
    return code


def _out_of(rest: Sequence[str]) -> Path:
    """Where ``loadgen simulate``, given these arguments, puts its figures."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("RECLOOP_OUT") or "out"))
    return REPOSITORY / parser.parse_known_args(list(rest))[0].out


def run_replay(paths: RunPaths, ports: Ports, data: Path, barrier_s: int | None, rest: Sequence[str]) -> int:
    """Stack, a data set in event time, stack down; the exit status of ``loadgen replay``."""
    config = replay_config(paths, ports, data)
    barrier = [] if barrier_s is None else ["--barrier-s", str(barrier_s)]
    return with_stack(config, [*replay_command(config, data), *barrier, *rest])


def replay_config(paths: RunPaths, ports: Ports, data: Path, *, extra: Sequence[str] = ()) -> StackConfig:
    """The stack of a replay. Raises LocalError when there is no such data."""
    if not data.exists():
        raise LocalError(f"--data {data}: no such file or folder")
    config = stack_config(paths, ports, f"{REPLAY}{data}", None, os.environ, extra=extra)
    refuse_secure(config)
    return config


def replay_command(config: StackConfig, data: Path) -> list[str]:
    """Arguments of ``loadgen replay`` against a stack."""
    where = config.addresses()
    targets = [
        part
        for name in ("gateway", "feature", "ranking", "collector")
        for part in (f"--{name}", where.target(name))
    ]
    return ["replay", "--data", str(data), *targets, "--kafka", where.kafka_bootstrap]


def with_stack(
    config: StackConfig,
    load: Sequence[str],
    behind: Callable[[Stack], None] = lambda _stack: None,
    beside: Callable[[Stack], AbstractContextManager[object]] = lambda _stack: nullcontext(),
) -> int:
    """Always takes the stack down; a process that died meanwhile makes a success a failure. ``beside`` is
    entered while the load runs; ``behind``: while the stack is still up, after a load that succeeded."""
    require_down(RunPaths(config.root))
    stack = Stack(config, say, report_death)
    code = EXIT_INTERRUPTED
    with interruptible() as ignore_interrupts:
        try:
            stack.start()
            print_stack(stack)
            with beside(stack):
                code = run_loadgen(load, stack.environment("loadgen"))
            if code == 0:
                behind(stack)
        except Interrupted as asked:
            say(f"{asked}: stopping")
        finally:
            ignore_interrupts()
            stack.stop()
    if stack.deaths:
        say(f"died during the run: {', '.join(stack.deaths)}; logs in {stack.paths.logs}")
        return code or 1
    return code


def run_loadgen(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Runs a command of the load generator in the user's terminal; it dies with this process."""
    command = [*guard(), sys.executable, "-m", "loadgen", *arguments]
    process = subprocess.Popen(command, env=dict(environment), cwd=REPOSITORY)
    try:
        return process.wait()
    except BaseException:
        # A load that is only told to end drains first, into a stack that goes down.
        process.kill()
        process.wait()
        raise
