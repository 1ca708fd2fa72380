"""``python -m loadgen sync-pass``: one pass of a real log in which each synchronisation interval is an arm.

The question of Monolith (Liu et al., RecSys 2022, table 2): how much is lost when the served parameters are
synchronised less often? One trainer trains a lineage per interval, on the same samples at the same moments;
each publishes only when event time leaves its interval (trainer.pace), ranking has a slot for each, and every
event is scored by all of them, on features that are the same for all. What differs is only how old the
parameters are. ``never`` follows one of them over the first part of the log, and is frozen then.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from loadgen import datasets, log_command
from loadgen.evidence import EvidenceRecorder
from loadgen.freshness import quantiles
from loadgen.log_blocks import blocks
from loadgen.metrics import auc, log_loss
from loadgen.replay import ARM, Replay, Targets
from loadgen.rows import DeltaRow
from rec.model.v1 import model_pb2
from rec.v1 import ranking_pb2, ranking_pb2_grpc, release_pb2, release_pb2_grpc
from services.contract.errors import InvalidInput
from services.contract.times import MICROS, leaves
from services.runtime import exposition, grpc_client
from services.runtime.settings import TlsSettings

NEVER = "never"
# Options that name an address, host:port each.
TARGETS = (
    *("gateway", "feature", "ranking", "collector", "release"),
    *("ranking-metrics", "trainer-metrics"),
)
GENERATION = 1
ARM_TIMEOUT_S = 120.0
_METRICS_TIMEOUT_S = 10.0
# ranking's apply and the trainer's sealing: what synchronising costs, by arm and by lineage.
APPLY, SEAL = "recloop_ranking_apply_seconds_sum", "recloop_trainer_seal_seconds_sum"


@dataclass(frozen=True)
class Paced:
    """An arm and how often it is synchronised, in seconds of event time; its policy has its name."""

    name: str
    interval_s: int


def figures(
    labels: NDArray[np.float64], scores: NDArray[np.float32], warm: int
) -> dict[str, float | int | None]:
    """``auc`` and ``log_loss`` behind the first ``warm`` events, ``auc_all`` over all that the arm scored."""
    scored = np.isfinite(scores)
    late = scored & (np.arange(len(labels)) >= warm)
    return {
        "auc": auc(labels[late], scores[late]),
        "auc_all": auc(labels[scored], scores[scored]) if scored.all() else None,
        "log_loss": log_loss(labels[late], scores[late]),
        "events": int(late.sum()),
    }


class Arms:
    """The arms of the pass, as release and ranking know them."""

    def __init__(self, release: str, ranking: str, tls: TlsSettings) -> None:
        self._channels = [grpc_client.channel(target, tls=tls) for target in (release, ranking)]
        self._release = release_pb2_grpc.ReleaseServiceStub(self._channels[0])
        self._ranking = ranking_pb2_grpc.RankingServiceStub(self._channels[1])

    async def close(self) -> None:
        """Closes the channels."""
        for channel in self._channels:
            await channel.close()

    async def follow(self, arm: str, policy: str) -> None:
        """Points an arm to a policy's lineage, and waits until ranking serves it."""
        await self._set(arm, policy, None)

    async def freeze(self, arm: str, source: Paced) -> int:
        """An arm that stays where ``source`` is now; its sequence."""
        sequence = (await self._status())[source.name].model.sequence
        await self._set(arm, source.name, sequence)
        return int(sequence)

    async def _set(self, arm: str, policy: str, pinned: int | None) -> None:
        wish = release_pb2.SetArmRequest(
            arm=arm,
            lineage=model_pb2.Lineage(generation=GENERATION, policy=policy),
            state=model_pb2.RELEASE_STATE_SERVING,
            pinned_sequence=pinned,
        )
        await self._release.SetArm(wish, timeout=ARM_TIMEOUT_S, wait_for_ready=True)
        deadline = time.monotonic() + ARM_TIMEOUT_S
        while not _settled((await self._status()).get(arm), pinned):
            if time.monotonic() > deadline:
                raise TimeoutError(f"ranking does not serve arm {arm} after {ARM_TIMEOUT_S:.0f} s")
            await asyncio.sleep(0.1)

    async def _status(self) -> dict[str, Any]:
        answer = await self._ranking.GetModelStatus(
            ranking_pb2.GetModelStatusRequest(), timeout=ARM_TIMEOUT_S
        )
        return {status.arm: status for status in answer.arms}


def _settled(status: Any, pinned: int | None) -> bool:
    if status is None:
        return False
    if pinned is None:
        return bool(status.slot_state == "live")
    return bool(status.slot_state == "pinned" and status.model.sequence == pinned)


def metric(target: str, name: str) -> dict[str, float]:
    """A metric's values by its first label, from a process's metrics port."""
    found = exposition.fetched(target, _METRICS_TIMEOUT_S).of(name)
    return {next(iter(labels.values()), ""): value for labels, value in found}


async def run(events: datasets.Events, arguments: argparse.Namespace) -> dict[str, Any]:
    """Runs the pass and returns its figures."""
    paced: Sequence[Paced] = arguments.arm
    targets = Targets(arguments.gateway, arguments.feature, arguments.ranking, arguments.collector)
    connections = log_command.connections(arguments.kafka)
    kafka, tls = connections.kafka, connections.tls
    recorder = EvidenceRecorder(arguments.out / "evidence", kafka, targets.ranking, tls)
    arms = Arms(arguments.release, arguments.ranking, tls)
    names = [one.name for one in paced]
    replay = Replay(
        events, targets, recorder, arguments.concurrency, arguments.run, shadow_arms=names, tls=tls
    )
    try:
        for one in paced:
            await arms.follow(one.name, one.name)
        await recorder.start()
        seconds, frozen_at = await _through(events, arguments, replay, arms)
        await recorder.drain(timeout_s=60)
        summary = await recorder.finish()
    finally:
        await replay.close()
        await arms.close()
    warm = _warm(events, arguments)
    return {
        "dataset": events.name,
        "events": len(events),
        "samples": summary.samples,
        "duplicates": summary.duplicates,
        "barrier_s": arguments.barrier_s,
        "barriers": len(replay.counts.barrier_waits_ms),
        "barrier_wait_ms": quantiles(replay.counts.barrier_waits_ms),
        "seconds": seconds,
        "events_per_s": len(events) / seconds,
        "retries": replay.counts.retries,
        "frozen_at_sequence": frozen_at,
        "arms": _rows(events, arguments, replay.scores, warm),
    }


def _warm(events: datasets.Events, arguments: argparse.Namespace) -> int:
    return int(len(events) * arguments.warm_share)


async def _through(
    events: datasets.Events, arguments: argparse.Namespace, replay: Replay, arms: Arms
) -> tuple[float, int | None]:
    """(seconds taken, the sequence at which ``never`` was frozen)."""
    paced: Sequence[Paced] = arguments.arm
    source = next((one for one in paced if one.name == arguments.never), None)
    warm, frozen_at = _warm(events, arguments), None
    before_us = int(events.timestamps_us[0]) if len(events) else 0
    started = printed = time.monotonic()
    for number, (indices, end_us) in enumerate(blocks(events, arguments.barrier_s)):
        if source is not None and frozen_at is None and indices.start >= warm:
            frozen_at = await arms.freeze(NEVER, source)
            replay.shadow_arms.append(NEVER)
        due = [one.name for one in paced if leaves(before_us, end_us, one.interval_s * MICROS)]
        await replay.block(indices, end_us, number, due)
        before_us = end_us
        if time.monotonic() - printed >= 10:
            printed = time.monotonic()
            rate = indices.stop / (printed - started)
            print(f"  {indices.stop:>7}/{len(events)} events  {rate:6.0f}/s", file=sys.stderr, flush=True)
    return time.monotonic() - started, frozen_at


def _rows(
    events: datasets.Events,
    arguments: argparse.Namespace,
    scores: Mapping[str, NDArray[np.float32]],
    warm: int,
) -> list[dict[str, Any]]:
    sent = _bytes_by_policy(arguments.out / "evidence" / f"{DeltaRow.FILE}.parquet")
    applied, sealed = metric(arguments.ranking_metrics, APPLY), metric(arguments.trainer_metrics, SEAL)
    intervals: dict[str, int | None] = {ARM: arguments.barrier_s}
    intervals |= {one.name: one.interval_s for one in arguments.arm}
    intervals |= {NEVER: None} if NEVER in scores else {}
    # Frozen, it costs nothing any more; until then it is the arm that it was taken from.
    return [
        {
            "arm": name,
            "interval_s": interval_s,
            **figures(events.labels, scores[name], warm),
            "delta_bytes": sent.get(name, 0),
            "cpu_s": applied.get(name, 0.0) + sealed.get(f"{GENERATION}/{name}", 0.0),
        }
        for name, interval_s in intervals.items()
    ]


def _bytes_by_policy(path: Path) -> dict[str, int]:
    table = pq.read_table(path, columns=["policy", "bytes"]).group_by("policy").aggregate([("bytes", "sum")])
    return dict(zip(table["policy"].to_pylist(), table["bytes_sum"].to_pylist(), strict=True))


def _arm(text: str) -> Paced:
    name, _, seconds = text.partition("=")
    if not name or not seconds.isdigit() or int(seconds) < 1:
        raise argparse.ArgumentTypeError(f"{text}: expected NAME=SECONDS")
    return Paced(name, int(seconds))


def parse(argv: list[str]) -> argparse.Namespace:
    """Command line of ``python -m loadgen sync-pass``."""
    parser = log_command.parser("sync-pass", __doc__)
    parser.add_argument(
        "--arm", type=_arm, action="append", default=[], help="NAME=SECONDS: an arm and its interval"
    )
    parser.add_argument("--never", default="", help="the arm from which never is frozen; empty = none")
    parser.add_argument(
        "--warm-share", type=float, default=0.2, help="of the events: before AUC counts, and never is frozen"
    )
    parser.add_argument("--result", type=Path, required=True, help="file of the figures, JSON")
    for name in TARGETS:
        parser.add_argument(f"--{name}", required=True, help="host:port")
    parser.add_argument("--kafka", required=True, help="bootstrap servers")
    arguments = log_command.parsed(parser, argv)
    if arguments.never and arguments.never not in [one.name for one in arguments.arm]:
        parser.error(f"--never {arguments.never}: none of the arms")
    for one in arguments.arm:
        if one.interval_s % arguments.barrier_s:
            parser.error(
                f"--arm {one.name}={one.interval_s}: no multiple of the barrier's {arguments.barrier_s}"
            )
    return arguments


def main(argv: list[str]) -> int:
    """Runs the command; 2 on bad input. Whether the figures are good is the launcher's to say."""
    arguments = parse(argv)
    try:
        events = log_command.events_of(arguments, "sync-pass")
    except InvalidInput as error:
        print(f"sync-pass: {error}", file=sys.stderr)
        return 2
    arguments.result.write_text(json.dumps(asyncio.run(run(events, arguments)), indent=2) + "\n")
    return 0
