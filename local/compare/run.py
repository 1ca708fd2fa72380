"""One run under load with every scheme beside the loop, and what is left of it in a folder.

    stack + joiners + lake -> load -> a barrier behind it -> every worker has committed past the barrier
    -> CPU and state of the workers are taken, their topics are read -> stack down -> batch join

Left in ``folder``: ``<scheme>.parquet`` (samples as columns of contract.lake_schema), ``offline/`` (the batch
join, reconcile.json), ``run.json`` (``Run``). The lake stays in the run's own folder.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq

from local.chaos_check import LogRecord
from local.chaos_kafka import read
from local.child import guard
from local.commands import run_loadgen
from local.compare import workers
from local.errors import StartFailed
from local.paths import REPOSITORY
from local.samples_topic import samples_table
from local.stack import Stack
from local.stack_config import StackConfig
from local.up import Interrupted, interruptible, print_stack, report_death, say
from services.contract import lake_rows, topics
from services.contract.lake_files import files
from services.contract.lake_store import LakeStore
from services.contract.topics import Topic

# Scheme -> its process; offline has none that joins while the load runs.
JOINERS = {"stream": "joiner", "label_first": "joiner_label_first", "lookup": "joiner_lookup"}
SUFFIX = {"stream": "", "label_first": "-label-first", "lookup": "-lookup"}
LAKE = "lake"
EXTRA = (*(name for name in JOINERS.values() if name != "joiner"), LAKE)
SLIM = topics.FEATURE_SNAPSHOTS_SLIM
INPUTS = (topics.FEATURE_SNAPSHOTS, SLIM, topics.IMPRESSIONS, topics.ACTIONS)
# 1: a claim of its own did not hold (it says which), but its traffic is there.
LOAD_STATUSES = (0, 1)
# The joiner's default, and the load generator's.
WINDOW_MS = 20_000
INPUT_TABLES = ("snapshots", "impressions", "actions")
VIEWS = "views"


@dataclass(frozen=True)
class SchemeRun:
    """What one scheme cost. ``cpu_s``, ``written_bytes`` by part; ``reasons``: shown items that became a row
    with a reason, by reason."""

    cpu_s: Mapping[str, float]
    written_bytes: Mapping[str, int]
    state_bytes: int
    reasons: Mapping[str, int]


@dataclass(frozen=True)
class Run:
    """A finished run. ``batch_ended_ms``: wall time at which the offline samples were there; ``load_status``:
    exit status of the load generator; ``reconciliation``: of services.lake reconcile."""

    source: str
    # Of the stack that ran.
    feature_set: str
    lake_uri: str
    # Event time in which an action labels an impression.
    window_us: int
    load_s: float
    load_status: int
    batch_ended_ms: int
    shared_bytes: Mapping[str, int]
    reconciliation: Mapping[str, Any]
    deaths: Sequence[str]
    schemes: Mapping[str, SchemeRun] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """As run.json."""
        (folder / "run.json").write_text(json.dumps(asdict(self), indent=2) + "\n")

    @classmethod
    def load(cls, folder: Path) -> Run:
        """From run.json."""
        raw = json.loads((folder / "run.json").read_text())
        schemes = {name: SchemeRun(**one) for name, one in raw.pop("schemes").items()}
        return cls(**raw, schemes=schemes)


@dataclass(frozen=True)
class Job:
    """A finished process: CPU seconds and peak memory by the kernel's account."""

    cpu_s: float
    peak_bytes: int


def run(folder: Path, config: StackConfig, source: str, load: Sequence[str]) -> Run:
    """Runs it all; raises LocalError when a part does not come up, Interrupted when the user stops it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    stack = Stack(config, say, report_death)
    with interruptible() as ignore_interrupts:
        try:
            stack.start()
            print_stack(stack)
            _settle(stack)
            started = _cpu_seconds(stack)
            began = time.monotonic()
            status = run_loadgen([*load, "--out", str(folder)], stack.environment())
            load_s = time.monotonic() - began
            if status not in LOAD_STATUSES:
                raise StartFailed(f"the load ended with status {status}; see its output above")
            say("a barrier behind the traffic; every worker reads up to it")
            _pass_barrier(stack)
            used = {name: cpu - started[name] for name, cpu in _cpu_seconds(stack).items()}
            held = {
                scheme: workers.max_held_bytes(name, _target(stack, name)) for scheme, name in JOINERS.items()
            }
            said = {scheme: _read_outputs(folder, stack, scheme) for scheme in JOINERS}
            inputs = _topic_bytes(stack)
        except Interrupted as asked:
            say(f"{asked}: stopping")
            raise
        finally:
            ignore_interrupts()
            stack.stop()
    snapshot_log = {
        "stream": {topics.FEATURE_SNAPSHOTS.name: inputs[topics.FEATURE_SNAPSHOTS.name]},
        "label_first": {SLIM.name: inputs[SLIM.name], VIEWS: _folder_bytes(config, VIEWS)},
        "lookup": {},
    }
    schemes = {
        scheme: SchemeRun(
            {name: used[name]},
            {**snapshot_log[scheme], **said[scheme].bytes},
            held[scheme],
            said[scheme].reasons,
        )
        for scheme, name in JOINERS.items()
    }
    environment = {**stack.environment(), **config.process_env.get("joiner", {})}
    schemes["offline"], ended_ms = _offline(folder, config, environment, used[LAKE], snapshot_log["stream"])
    finished = Run(
        source=source,
        feature_set=config.env["RECLOOP_FEATURE_SET"],
        lake_uri=config.addresses().lake_uri,
        window_us=WINDOW_MS * 1000,
        load_s=round(load_s, 1),
        load_status=status,
        batch_ended_ms=ended_ms,
        shared_bytes={name: inputs[name] for name in (topics.IMPRESSIONS.name, topics.ACTIONS.name)},
        reconciliation=json.loads((folder / "offline" / "reconcile.json").read_text()),
        deaths=stack.deaths,
        schemes=schemes,
    )
    finished.write(folder)
    return finished


# -- while the stack is up ---------------------------------------------------------------------------------


def _settle(stack: Stack) -> None:
    """Waits until the features of what was seeded are there: until then items are served with defaults."""
    say("the feature pipeline reads the catalogue")
    # What its first stage makes of the catalogue, its second has to read.
    for _ in range(2):
        workers.wait_committed("feature_pipeline", _target(stack, "feature_pipeline"))


def _pass_barrier(stack: Stack) -> None:
    """Closes every window, then waits until all that stands before the barrier is committed."""
    bootstrap = stack.addresses.kafka_bootstrap
    events = read(bootstrap, [topics.IMPRESSIONS, topics.ACTIONS], committed=True)
    workers.emit_barrier(stack.addresses, "compare-samples", workers.newest_us(events) + 1)
    for name in JOINERS.values():
        workers.wait_committed(name, _target(stack, name))
    # Behind the joiners: it also reads what they have said.
    workers.wait_committed(LAKE, _target(stack, LAKE))


@dataclass(frozen=True)
class _Said:
    bytes: Mapping[str, int]
    reasons: Mapping[str, int]


def _read_outputs(folder: Path, stack: Stack, scheme: str) -> _Said:
    """Writes a scheme's samples as a table; what its topics hold besides."""
    samples, late = (topics.suffixed(one, SUFFIX[scheme]) for one in (topics.SAMPLES, topics.LATE_EVENTS))
    records = read(stack.addresses.kafka_bootstrap, [samples, late], committed=True)
    table = samples_table(records, samples.name)
    pq.write_table(table, folder / f"{scheme}.parquet", compression="zstd")
    return _Said(
        _bytes_by_topic(records, [samples, late]), _reasons(r for r in records if r.topic == late.name)
    )


def _reasons(late: Iterable[LogRecord]) -> dict[str, int]:
    found: Counter[str] = Counter()
    for record in late:
        headers = dict(record.headers)
        if headers.get(topics.HEADER_ORIGIN_TOPIC, b"").decode() == topics.IMPRESSIONS.name:
            found[headers[topics.HEADER_REASON].decode()] += int(headers.get("items", b"0"))
    return dict(found)


def _topic_bytes(stack: Stack) -> dict[str, int]:
    """One topic after the other: the snapshots are large."""
    found: dict[str, int] = {}
    for topic in INPUTS:
        found |= _bytes_by_topic(read(stack.addresses.kafka_bootstrap, [topic], committed=True), [topic])
    return found


def _bytes_by_topic(records: Iterable[LogRecord], wanted: Sequence[Topic]) -> dict[str, int]:
    """Keys, values and headers; not what Kafka adds to each batch."""
    found = {topic.name: 0 for topic in wanted}
    for record in records:
        headers = sum(len(name) + len(value) for name, value in record.headers)
        found[record.topic] += record.key_bytes + len(record.value) + headers
    return found


def _target(stack: Stack, name: str) -> str:
    return stack.addresses.target(name)


def _cpu_seconds(stack: Stack) -> dict[str, float]:
    """User and system time so far of the processes that build samples."""
    found = {}
    for name in (*JOINERS.values(), LAKE):
        times = psutil.Process(stack.pid(name)).cpu_times()
        found[name] = times.user + times.system
    return found


# -- behind it ---------------------------------------------------------------------------------------------


def _offline(
    folder: Path,
    config: StackConfig,
    environment: Mapping[str, str],
    writer_cpu_s: float,
    snapshot_log: Mapping[str, int],
) -> tuple[SchemeRun, int]:
    """The batch join over the lake as its own process, and the reconciliation. (cost, wall time in ms at
    which the samples were there)."""
    out = folder / "offline"
    idle = _job(["join", "--help"], environment, quiet=True)
    say("offline: the batch join over the lake")
    batch = _job(["join", "--out", str(out)], environment)
    ended_ms = time.time_ns() // 1_000_000
    reasons = pq.read_table(out / "reasons.parquet", columns=["reason", "source", "items"]).to_pylist()
    explained: Counter[str] = Counter()
    for row in reasons:
        if row["source"] == int(lake_rows.SOURCE_OF["impressions"]):
            explained[row["reason"]] += row["items"]
    say("reconciliation of the stream's samples with it")
    _job(["reconcile", "--out", str(out)], environment, accept=(0, 1))
    store = LakeStore(config.addresses().lake_uri)
    lake = {f"lake {name}": sum(one.bytes for _, one in files(store, name)) for name in INPUT_TABLES}
    written = {**snapshot_log, **lake, "samples.parquet": (out / "samples.parquet").stat().st_size}
    cost = SchemeRun(
        {LAKE: writer_cpu_s, "batch": batch.cpu_s},
        written,
        # Above what the same process takes before it reads anything.
        max(0, batch.peak_bytes - idle.peak_bytes),
        dict(explained),
    )
    return cost, ended_ms


def _job(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    *,
    quiet: bool = False,
    accept: Sequence[int] = (0,),
) -> Job:
    """Runs a command of services.lake to its end. Raises StartFailed on another status than accepted."""
    command = [sys.executable, "-m", "services.lake", *arguments]
    output = subprocess.DEVNULL if quiet else None
    process = subprocess.Popen([*guard(), *command], env=dict(environment), cwd=REPOSITORY, stdout=output)
    try:
        _, status, usage = os.wait4(process.pid, 0)
    except BaseException:
        process.kill()
        process.wait()
        raise
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in accept:
        raise StartFailed(f"services.lake {' '.join(arguments)} ended with status {process.returncode}")
    return Job(usage.ru_utime + usage.ru_stime, usage.ru_maxrss * _maxrss_unit())


def _maxrss_unit() -> int:
    """Bytes of one unit of ru_maxrss."""
    return 1 if sys.platform == "darwin" else 1024


def _folder_bytes(config: StackConfig, name: str) -> int:
    """Of all files below a folder of the lake."""
    store = LakeStore(config.addresses().lake_uri)
    return sum(store.size(one) or 0 for one in store.names(name))
