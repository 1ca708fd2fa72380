"""Speed of features: ``python -m benchmarks.bench_features --peers PYTHON`` (docs/benchmarks.md).

One GetFeatures of a user and 1,000 items on a real Redis, in ratios to a bare grpc.aio echo of as many bytes
and to Feast on the same Redis; the as-of join in ratios to a plain one and to Feast's. PYTHON: an interpreter
that has Feast and Polars (`make bench-setup`). Writes out/bench-features.json; exit code 1 when a target is
missed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import redis

from benchmarks import features_asof
from local.child import Child
from local.health import SERVING, status_of
from local.ports import HOST, free_ports
from local.processes import RUNTIME
from local.redis_server import RedisServer
from rec.v1.feature_pb2 import GetFeaturesRequest, GetFeaturesResponse
from services.contract import features, redis_keys, times
from services.contract.feature_sets import FEATURE_SETS, WORLD
from services.contract.view_events import LISTED
from services.contract.view_init import initial_states
from services.contract.view_log import EventLog

FEATURES = FEATURE_SETS[WORLD]
METHOD = "/rec.v1.FeatureService/GetFeatures"
CANDIDATES = 1_000
# What an impression writes between two requests: ten items shown, one of them clicked.
WRITTEN = 10
WARM_UP = 100
# Long: a busy machine shall not turn answers into defaults.
DEADLINE_S = 5.0
# Event time from one request to the next: hops end during a round.
STEP_US = 50_000
TARGETS = {"echo_cpu_ratio": 1.5, "feast_ratio": 50, "feast_array_ratio": 20, "asof_vs_plain_ratio": 2}


class Traffic:
    """States of a day in Redis, requests over them, and writes between the requests."""

    def __init__(self, log: EventLog, url: str) -> None:
        self._rng = np.random.default_rng(2)
        self._redis = redis.Redis.from_url(url)
        self._at_us = int(log.occurred_us.max()) + 1
        listed = _listings(log)
        self.states: dict[tuple[str, bytes], bytes] = {}
        for view in FEATURES.views:
            if view.kind == "instant":
                continue
            source = listed if "listed" in view.sources else log
            made = initial_states(view, source, {origin: 1 << 62 for origin in source.origins})
            self.states |= {(view.name, entity): state for entity, state in made.items()}
        self._views = {view.name: view for view in FEATURES.views}
        named = [(redis_keys.view_key(self._views[n], e), v) for (n, e), v in self.states.items()]
        for start in range(0, len(named), 10_000):
            self._redis.mset(dict(named[start : start + 10_000]))
        self._users = np.unique(log.fields["user_id"])
        self.items = np.unique(log.fields["item_id"])
        # The more an item was shown, the more often it is a candidate and is shown again.
        self._weights = np.bincount(np.searchsorted(self.items, log.fields["item_id"])) + 1.0
        self._weights /= self._weights.sum()
        lists = [self._rng.choice(self.items, CANDIDATES, False, self._weights) for _ in range(64)]
        self._lists = [one.astype("<u8") for one in lists]

    def request(self) -> GetFeaturesRequest:
        """A user's, and one of 64 candidate lists."""
        self._at_us += STEP_US
        candidates = self._lists[int(self._rng.integers(0, len(self._lists)))]
        made = GetFeaturesRequest(user_id=int(self._rng.choice(self._users)), item_ids=candidates.tobytes())
        made.occurred_at.CopyFrom(times.from_us(self._at_us))
        return made

    def write(self) -> None:
        """Ten items and a click, as the fold would."""
        shown = self._rng.choice(self.items, WRITTEN, True, self._weights)
        names = [("item_activity", item) for item in shown] + [("item_popularity", shown[0])]
        keys = [(name, int(item).to_bytes(8, "little")) for name, item in names]
        self._redis.mset(
            {
                redis_keys.view_key(self._views[n], e): self.states[n, e]
                for n, e in keys
                if (n, e) in self.states
            }
        )

    def wrong(self, request: GetFeaturesRequest, answer: GetFeaturesResponse) -> bool:
        """Whether an answer is not the reference encoding."""
        ids, at_us = np.frombuffer(request.item_ids, "<u8"), times.to_us(request.occurred_at)
        wanted = features.encode(FEATURES, self.states, request.user_id, ids, at_us)
        same = answer.user_features == wanted.user.tobytes()
        return not same or answer.item_features != wanted.items.tobytes() or bool(answer.degraded)


def _listings(log: EventLog) -> EventLog:
    items = np.unique(log.fields["item_id"])
    count = len(items)
    at_us = np.full(count, int(log.occurred_us.min()), np.int64)
    return EventLog(
        np.full(count, LISTED.code, np.uint8), at_us, items, at_us,
        np.zeros(count, np.int32), np.arange(count),
        {"item_id": items, "category": np.arange(count) % 20, "created_at": at_us},
    )  # fmt: skip


class Server:
    """A server process, and a channel to it."""

    def __init__(self, name: str, folder: Path, command: list[str], port: int, env: dict[str, str]) -> None:
        self.child = Child.start(name, command, folder / f"{name}.log", env={**os.environ, **RUNTIME, **env})
        self._channel = grpc.insecure_channel(f"{HOST}:{port}")
        self.call: Callable[..., bytes] = self._channel.unary_unary(METHOD)

    def cpu_s(self) -> float:
        """Of the process so far."""
        used = psutil.Process(self.child.pid).cpu_times()
        return float(used.user + used.system)

    def close(self) -> None:
        """Ends it."""
        self._channel.close()
        self.child.stop(5.0)


def features_server(name: str, folder: Path, url: str, near_items: int) -> Server:
    """A feature server of its own, serving."""
    port, admin, metrics = free_ports(3)
    settings = {
        "GRPC__PORT": port, "GRPC__ADMIN_PORT": admin, "GRPC__METRICS_PORT": metrics, "REDIS__URL": url,
        "NEAR_ITEMS": near_items, "FOLLOW_VIEWS": "false",
    }  # fmt: skip
    env = {f"RECLOOP_{key}": str(value) for key, value in settings.items()}
    server = Server(name, folder, [sys.executable, "-m", "services.feature"], port, env)
    deadline = time.monotonic() + 120
    while status_of(f"{HOST}:{admin}") != SERVING:
        server.child.require_running()
        if time.monotonic() > deadline:
            raise SystemExit(f"{name} does not serve:\n{server.child.tail()}")
        time.sleep(0.1)
    return server


def one_round(server: Server, traffic: Traffic, requests: int, writes: bool) -> tuple[float, list[float]]:
    """(CPU seconds of the server a request, wall seconds of each request)."""
    asked = [traffic.request().SerializeToString() for _ in range(requests)]
    walls, before = [], server.cpu_s()
    for one in asked:
        if writes:
            traffic.write()
        started = time.perf_counter()
        server.call(one, timeout=DEADLINE_S)
        walls.append(time.perf_counter() - started)
    return (server.cpu_s() - before) / requests, walls


class Feast:
    """A process with Feast, told one word after the other."""

    def __init__(self, python: str, folder: Path, address: str) -> None:
        script = Path(__file__).with_name("features_feast.py")
        log = (folder / "feast.log").open("wb")
        self._child = subprocess.Popen(
            [python, str(script), str(folder), address], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=log, text=True, env={**os.environ, "FEAST_USAGE": "False", "PYTHONPATH": ""},
        )  # fmt: skip
        self.version = self._line()[0]

    def _line(self) -> list[str]:
        assert self._child.stdout is not None
        line = self._child.stdout.readline().split()
        if not line:
            raise SystemExit("Feast failed; see feast.log, or run with --keep")
        return line

    def ask(self, word: str) -> list[float]:
        """Its numbers."""
        assert self._child.stdin is not None
        self._child.stdin.write(word + "\n")
        self._child.stdin.flush()
        return [float(one) for one in self._line()]

    def close(self) -> None:
        """Ends the process."""
        assert self._child.stdin is not None
        self._child.stdin.close()
        self._child.wait(30)


def write_for_feast(log: EventLog, labels: features_asof.Labels, items: int, folder: Path) -> None:
    """Ids become signed: Feast knows no others."""
    rng = np.random.default_rng(3)
    values = rng.random((items, 16), np.float32)
    stamp = pa.array(np.full(items, features_asof.START_US), pa.timestamp("us", "UTC"))
    ids = np.arange(items)
    columns: dict[str, Any] = {"item_id": ids, "user_id": ids, "event_timestamp": stamp}
    columns |= {f"f{index}": values[:, index] for index in range(16)}
    pq.write_table(pa.table({**columns, "all": list(values)}), folder / "items.parquet")
    at = pa.array(log.occurred_us, pa.timestamp("us", "UTC"))
    keys = {name: log.fields[name].view(np.int64) for name in ("user_id", "item_id")}
    pq.write_table(
        pa.table({**keys, "position": log.fields["position"], "event_timestamp": at}), folder / "log.parquet"
    )
    asked = {name: column.view(np.int64) for name, column in labels.fields.items()}
    at = pa.array(labels.at_us, pa.timestamp("us", "UTC"))
    pq.write_table(pa.table({**asked, "event_timestamp": at}), folder / "labels.parquet")


def serving(
    given: argparse.Namespace, traffic: Traffic, url: str, folder: Path, feast: Feast | None
) -> dict[str, Any]:
    """The figures of GetFeatures."""
    live, cold = (features_server(n, folder, url, size) for n, size in (("live", 100_000), ("cold", 0)))
    first = traffic.request()
    recorded = live.call(first.SerializeToString(), timeout=DEADLINE_S)
    (folder / "answer").write_bytes(recorded)
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "benchmarks.features_echo", str(port), str(folder / "answer")]
    echo = Server("echo", folder, command, port, {})
    grpc.channel_ready_future(echo._channel).result(30)
    sides = {"echo": (echo, False), "live": (live, True), "warm": (live, False), "cold": (cold, False)}
    for server, writes in sides.values():
        one_round(server, traffic, WARM_UP, writes)
    cpu: dict[str, list[float]] = {name: [] for name in sides}
    walls: dict[str, list[float]] = {name: [] for name in (*sides, "feast", "feast_array")}
    for _ in range(given.rounds):
        for name, (server, writes) in sides.items():
            used, took = one_round(server, traffic, given.requests, writes)
            cpu[name].append(used)
            walls[name] += took
        for name, word in (("feast", "get"), ("feast_array", "array")):
            walls[name] += [feast.ask(word)[0] for _ in range(given.feast_requests)] if feast else []
    wrong = 0
    for server in (live, cold):
        for _ in range(10):
            asked = traffic.request()
            wrong += traffic.wrong(
                asked,
                GetFeaturesResponse.FromString(server.call(asked.SerializeToString(), timeout=DEADLINE_S)),
            )
    for server in (echo, live, cold):
        server.close()
    ratios = {
        name: [one / base for one, base in zip(cpu[name], cpu["echo"], strict=True)]
        for name in ("live", "warm", "cold")
    }
    return {
        "request_bytes": first.ByteSize(),
        "answer_bytes": len(recorded),
        "wrong_answers": wrong,
        "cpu_ms": {name: _spread([one * 1000 for one in column]) for name, column in cpu.items()},
        "cpu_ratio": {name: _spread(column) for name, column in ratios.items()},
        "latency_ms": {name: _latency(column) for name, column in walls.items() if column},
    }


def _spread(values: list[float]) -> dict[str, float]:
    return {
        "median": round(statistics.median(values), 3),
        "min": round(min(values), 3),
        "max": round(max(values), 3),
    }


def _latency(seconds: list[float]) -> dict[str, float]:
    p50, p99 = np.percentile(np.array(seconds) * 1000, (50, 99))
    return {"p50": round(float(p50), 3), "p99": round(float(p99), 3)}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peers", help="an interpreter that has feast and polars; without it only the echo")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--requests", type=int, default=300, help="of each server a round")
    parser.add_argument("--feast-requests", type=int, default=10, help="of each variant a round")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--labels", type=int, default=50_000)
    given = parser.parse_args()
    log, labels = features_asof.log_and_labels(given.rows, given.labels, seed=1)
    with tempfile.TemporaryDirectory(prefix="bench-features-") as name:
        result = _measured(given, log, labels, Path(name))
    target = Path("out/bench-features.json")
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(result, indent=1))
    print(json.dumps(result, indent=1))
    return 1 if result["missed"] else 0


def _measured(
    given: argparse.Namespace, log: EventLog, labels: features_asof.Labels, folder: Path
) -> dict[str, Any]:
    server = RedisServer(folder / "redis")
    server.start()
    try:
        traffic = Traffic(log.take(np.arange(min(given.rows, 300_000))), server.url)
        feast = None
        if given.peers:
            write_for_feast(log, labels, 20_000, folder)
            feast = Feast(given.peers, folder, f"{HOST}:{server.port}")
        served = serving(given, traffic, server.url, folder, feast)
        asof, history = None, None
        if feast is not None:
            history = feast.ask("history")
            feast.close()
            asof = features_asof.measure(given.peers, log, labels, folder, given.rounds)
    finally:
        server.stop()
    latency = served["latency_ms"]
    result: dict[str, Any] = {
        "headline": "live: what was kept of written items is read and computed again",
        "echo_cpu_ratio": served["cpu_ratio"]["live"]["median"],
        "latency_ms": latency["live"],
    }
    if feast is not None and asof is not None and history is not None:
        result |= {
            "feast_ratio": round(latency["feast"]["p50"] / latency["live"]["p50"], 1),
            "feast_array_ratio": round(latency["feast_array"]["p50"] / latency["live"]["p50"], 1),
            "asof_vs_plain_ratio": asof["ratio"],
            "asof_vs_feast_ratio": round(history[0] * 1000 / asof["asof_ms"]["wall"], 1),
        }
        served["feast"] = {"version": feast.version}
        result["asof"] = asof
        result["feast_history"] = {
            "seconds": round(history[0], 2),
            "labels_dropped": given.labels - int(history[1]),
            "peak_mb": int(history[2]),
        }
    result |= {
        "serving": served,
        "rounds": given.rounds,
        "machine": {
            "cores": os.cpu_count(),
            "processor": platform.machine(),
            "python": platform.python_version(),
        },
    }
    result["missed"] = _missed(result)
    return result


def _missed(result: dict[str, Any]) -> list[str]:
    missed = []
    for name, limit in TARGETS.items():
        if name in result:
            least = name.startswith("feast")
            if (result[name] < limit) if least else (result[name] > limit):
                missed.append(f"{name} {result[name]}, wanted at {'least' if least else 'most'} {limit}")
    if result["serving"]["wrong_answers"]:
        missed.append("answers differ from the reference encoding")
    asof = result.get("asof")
    if asof and (asof["wrong"] or asof["dropped"]):
        missed.append("labels are wrong or dropped")
    return missed


if __name__ == "__main__":
    sys.exit(main())
