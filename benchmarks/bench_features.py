"""Speed of features: ``python -m benchmarks.bench_features --peers PYTHON`` (docs/benchmarks.md).

One GetFeatures of a user and 1,000 items on a real Redis, in ratios to a bare grpc.aio echo of as many bytes
and to Feast on the same Redis; the as-of join in ratios to a plain one and to Feast's. PYTHON: an interpreter
that has Feast and Polars (`make bench-setup`). Writes out/bench-features.json; exit code 1 when a target is
missed.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import features_asof, features_figures, features_peer
from benchmarks.features_servers import DEADLINE_S, Server, echo_server, features_server, one_round
from benchmarks.features_traffic import FEATURES, Traffic
from benchmarks.peer import Peer
from benchmarks.result import machine, write
from local.ports import HOST
from local.redis_server import RedisServer
from rec.v1.feature_pb2 import GetFeaturesRequest, GetFeaturesResponse
from services.contract.view_log import EventLog
from services.feature.answer import Reading
from services.feature.near_cache import NearCache
from services.feature.program import Layout
from services.feature.query import parse
from services.runtime import resp
from services.runtime.redis_reader import RedisReader
from services.runtime.settings import RedisSettings

# Answers of each feature server that are compared with the reference encoding.
CHECKED = 10


async def mget_of(request: GetFeaturesRequest, url: str) -> bytes:
    """What a server asks of Redis for this request when the items are near."""
    layout, query = Layout(FEATURES), parse(request, 1)
    near, reader = NearCache(layout, len(query.item_ids), 1.0), RedisReader(RedisSettings(url=url), 1)
    reading = Reading(layout, query, near, 0)
    await reader.ask(resp.mget(reading.first()), reading.take_first)
    await reader.close()
    return resp.mget(Reading(layout, query, near, 0).first())


def servers(traffic: Traffic, url: str, folder: Path) -> dict[str, tuple[Server, bool]]:
    """By side, the server, and whether something is written before each request."""
    live, cold = (features_server(n, folder, url, size) for n, size in (("live", 100_000), ("cold", 0)))
    request = traffic.request()
    answer = live.call(request.SerializeToString(), timeout=DEADLINE_S)
    (folder / "mget").write_bytes(asyncio.run(mget_of(request, url)))
    echo = echo_server("echo", folder, answer)
    return {
        "echo": (echo, False),
        "echo_live": (echo, True),
        "echo_message": (echo_server("echo_message", folder, answer, ["--message"]), False),
        "echo_mget": (echo_server("echo_mget", folder, answer, ["--mget", str(folder / "mget"), url]), False),
        "live": (live, True),
        "warm": (live, False),
        "cold": (cold, False),
    }


def serving(
    given: argparse.Namespace, traffic: Traffic, url: str, folder: Path, feast: Peer | None
) -> dict[str, Any]:
    """The figures of GetFeatures: all sides by turns."""
    sides = servers(traffic, url, folder)
    cpu: dict[str, list[float]] = {name: [] for name in sides}
    walls: dict[str, list[float]] = {name: [] for name in (*sides, *features_figures.PEERS)}
    for _ in range(given.rounds):
        for name, (server, writes) in sides.items():
            used, took = one_round(server, traffic, given.requests, writes)
            cpu[name].append(used)
            walls[name] += took
        for name, word in zip(features_figures.PEERS, ("get", "array"), strict=True):
            walls[name] += [feast.ask(word)[0] for _ in range(given.feast_requests)] if feast else []
    result = {
        **features_figures.serving(cpu, walls),
        "request_bytes": traffic.request().ByteSize(),
        "answer_bytes": (folder / "answer").stat().st_size,
        "wrong_answers": sum(wrong_answers(sides[name][0], traffic) for name in ("live", "cold")),
    }
    for server in {id(server): server for server, _ in sides.values()}.values():
        server.close()
    return result


def wrong_answers(server: Server, traffic: Traffic) -> int:
    """Of some new requests, how many are not answered with the reference encoding."""
    wrong = 0
    for _ in range(CHECKED):
        asked = traffic.request()
        answer = server.call(asked.SerializeToString(), timeout=DEADLINE_S)
        wrong += traffic.wrong(asked, GetFeaturesResponse.FromString(answer))
    return wrong


def measured(
    given: argparse.Namespace, log: EventLog, labels: features_asof.Labels, folder: Path
) -> dict[str, Any]:
    """All figures."""
    server = RedisServer(folder / "redis")
    server.start()
    try:
        traffic = Traffic(log.take(np.arange(min(given.rows, 300_000))), server.url)
        feast = None
        if given.peers:
            features_peer.write_for_feast(log, labels, 20_000, folder)
            feast = features_peer.feast(given.peers, folder, f"{HOST}:{server.port}")
        served = serving(given, traffic, server.url, folder, feast)
        result = {**features_figures.headline(served), "serving": served}
        if feast is not None:
            served["feast"] = {"version": feast.version}
            result |= history(given, feast, log, labels, folder)
    finally:
        server.stop()
    result |= {"rounds": given.rounds, "machine": machine()}
    result["missed"] = features_figures.missed(result)
    return result


def history(
    given: argparse.Namespace, feast: Peer, log: EventLog, labels: features_asof.Labels, folder: Path
) -> dict[str, Any]:
    """The as-of join, beside Feast's and a plain one."""
    seconds, rows, peak_mb = feast.ask("history")
    feast.close()
    asof = features_asof.measure(given.peers, log, labels, folder, given.rounds)
    return {
        "asof_vs_plain_ratio": asof["ratio"],
        "asof_vs_feast_ratio": round(seconds * 1000 / asof["asof_ms"]["wall"], 1),
        "asof": asof,
        "feast_history": {
            "seconds": round(seconds, 2),
            "labels_dropped": given.labels - int(rows),
            "peak_mb": int(peak_mb),
        },
    }


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
        result = measured(given, log, labels, Path(name))
    write("bench-features", result)
    print(features_figures.table(result))
    return 1 if result["missed"] else 0


if __name__ == "__main__":
    sys.exit(main())
