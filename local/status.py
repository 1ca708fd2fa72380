"""``status``: what runs where and how it is."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor

import psutil

from local.health import SERVING, UNREACHABLE, status_of
from local.paths import RunPaths
from local.state import ProcessState, StackState, read_state
from local.table import table

HEADER = ("process", "health", "pid", "host", "port", "admin", "metrics", "RSS MB")
GONE = "gone"
OPEN = "open"
RUNS = "runs"
EXIT_ALL_WELL, EXIT_UNWELL, EXIT_NOT_RUNNING = 0, 1, 3


def describe(state: StackState) -> tuple[str, bool]:
    """The table of a stack, and whether every part is well."""
    with ThreadPoolExecutor(max(1, len(state.processes))) as pool:
        healths = list(pool.map(_health, state.processes.values()))
    rows = []
    for (name, one), health in zip(state.processes.items(), healths, strict=True):
        ports = [port or "" for port in (one.grpc, one.admin, one.metrics)]
        rows.append((name, health, one.pid, one.host, *ports, _rss_mb(one)))
    return table(HEADER, rows), all(health in (SERVING, OPEN, RUNS) for health in healths)


def status(paths: RunPaths) -> int:
    """Prints the table. 0 = all well, 1 = something is not, 3 = no stack runs."""
    state = read_state(paths.state)
    flink = read_state(paths.flink.state)
    if flink is not None and flink.runs():
        print(f"{describe(flink)[0]}\njoin on Flink: {flink.status}; logs {paths.flink.logs}\n")
    if state is None or not state.runs():
        print("not running. Start it with: make up")
        return EXIT_NOT_RUNNING
    text, well = describe(state)
    print(text)
    print(f"stack: {state.status}; Kafka {state.kafka_bootstrap}; Redis {state.redis_url}; logs {paths.logs}")
    return EXIT_ALL_WELL if well and state.status == "up" else EXIT_UNWELL


def _health(one: ProcessState) -> str:
    if one.identity().process() is None:
        return GONE
    if not one.grpc:
        return RUNS
    if one.admin:
        return status_of(f"{one.host}:{one.admin}")
    try:
        with socket.create_connection((one.host, one.grpc), timeout=1):
            return OPEN
    except OSError:
        return UNREACHABLE


def _rss_mb(one: ProcessState) -> int | str:
    process = one.identity().process()
    try:
        return round(process.memory_info().rss / 1e6) if process else ""
    except psutil.Error:
        return ""
