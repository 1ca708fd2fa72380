"""``python -m services.release COMMAND``: a running release, by hand.

status                        generations, arms, rollbacks, and what each arm served lately
gate N                        judges full model N on what was served lately; exit code 1 when it is rejected
shadow N, compare N --share S, promote N, reject N, back N
                              steps of generation N's life (compare: S of the users get it)
hold N, let-go N              keeps generation N from promotion and guard, until it is let go
rollback N --seconds S        takes what lineage N/online learned in the last S seconds back (or --sequence)
pin ARM N --sequence S, follow ARM N
                              what an arm serves
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Awaitable, Callable, Sequence

import grpc
from google.protobuf import json_format
from google.protobuf.message import Message

from rec.model.v1 import model_pb2
from rec.v1 import release_pb2, release_pb2_grpc
from services.contract import times
from services.release.lives import CANDIDATE_ARM
from services.release.registry import FIRST_POLICY, ONLINE_ARM
from services.runtime.grpc_client import channel
from services.runtime.settings import Connections

Stub = release_pb2_grpc.ReleaseServiceStub
Command = Callable[[Stub, argparse.Namespace], Awaitable[int]]
_TIMEOUT_S = 30.0


async def _status(release: Stub, given: argparse.Namespace) -> int:
    _print(await release.ListReleases(release_pb2.ListReleasesRequest(), timeout=_TIMEOUT_S))
    _print(await release.GetServed(release_pb2.GetServedRequest(), timeout=_TIMEOUT_S))
    return 0


async def _gate(release: Stub, given: argparse.Namespace) -> int:
    request = release_pb2.GateGenerationRequest(generation=given.generation)
    answer = await release.GateGeneration(request, timeout=_TIMEOUT_S)
    sys.stdout.write(f"{answer.state}\n{answer.evidence_json}\n")
    return 0 if answer.state == "gated" else 1


def _stepping(step: release_pb2.GenerationStep) -> Command:
    async def run(release: Stub, given: argparse.Namespace) -> int:
        request = release_pb2.StepGenerationRequest(
            generation=given.generation, step=step, reason=given.reason
        )
        if step == release_pb2.GENERATION_STEP_COMPARE:
            request.shares.update({ONLINE_ARM: 1 - given.share, CANDIDATE_ARM: given.share})
        answer = await release.StepGeneration(request, timeout=_TIMEOUT_S)
        sys.stdout.write(f"{answer.state}\n")
        return 0

    return run


def _holding(held: bool) -> Command:
    async def run(release: Stub, given: argparse.Namespace) -> int:
        request = release_pb2.HoldGenerationRequest(
            generation=given.generation, held=held, reason=given.reason
        )
        answer = await release.HoldGeneration(request, timeout=_TIMEOUT_S)
        sys.stdout.write(f"{answer.state}\n")
        return 0

    return run


async def _rollback(release: Stub, given: argparse.Namespace) -> int:
    """Waits for the outcome."""
    request = release_pb2.RollBackRequest(lineage=_lineage(given), reason=given.reason or "by hand")
    if given.sequence is not None:
        request.to_sequence = given.sequence
    else:
        times.set_us(request.to_time, time.time_ns() // 1000 - int(given.seconds * times.MICROS))
    order = (await release.RollBack(request, timeout=_TIMEOUT_S)).rollback.order
    while True:
        listed = await release.ListReleases(release_pb2.ListReleasesRequest(), timeout=_TIMEOUT_S)
        found = next(one.rollback for one in listed.rollbacks if one.rollback.order == order)
        if found.HasField("done") or found.error:
            _print(found)
            return 1 if found.error else 0
        await asyncio.sleep(0.2)


async def _set(release: Stub, given: argparse.Namespace) -> int:
    request = release_pb2.SetArmRequest(
        arm=given.arm,
        lineage=_lineage(given),
        pinned_sequence=given.sequence,
        state=model_pb2.RELEASE_STATE_SERVING,
    )
    _print(await release.SetArm(request, timeout=_TIMEOUT_S))
    return 0


COMMANDS: dict[str, Command] = {
    "status": _status,
    "gate": _gate,
    "shadow": _stepping(release_pb2.GENERATION_STEP_SHADOW),
    "compare": _stepping(release_pb2.GENERATION_STEP_COMPARE),
    "promote": _stepping(release_pb2.GENERATION_STEP_PROMOTE),
    "reject": _stepping(release_pb2.GENERATION_STEP_REJECT),
    "back": _stepping(release_pb2.GENERATION_STEP_ROLL_BACK),
    "hold": _holding(True),
    "let-go": _holding(False),
    "rollback": _rollback,
    "pin": _set,
    "follow": _set,
}


def command(argv: Sequence[str]) -> int:
    """Runs one command; its exit code. What release refuses is said on stderr, exit code 2."""
    given = _parser().parse_args(argv)
    try:
        return asyncio.run(_run(given))
    except grpc.aio.AioRpcError as error:
        sys.stderr.write(f"{given.command}: {error.code().name}: {error.details()}\n")
        return 2


async def _run(given: argparse.Namespace) -> int:
    connections = Connections()
    async with channel(given.target, connections.grpc_client, connections.tls) as to_release:
        return await COMMANDS[given.command](Stub(to_release), given)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m services.release",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--target", default="127.0.0.1:7058", help="host:port of release")
    commands = parser.add_subparsers(dest="command", required=True)
    for name in COMMANDS:
        one = commands.add_parser(name)
        if name in ("pin", "follow"):
            one.add_argument("arm")
        if name != "status":
            one.add_argument("generation", type=int)
            one.add_argument("--reason", default="", help="kept in the event")
        if name == "compare":
            one.add_argument("--share", type=float, required=True, help="of the users, for the candidate")
        if name == "rollback":
            target = one.add_mutually_exclusive_group(required=True)
            target.add_argument("--seconds", type=float, help="back from now")
            target.add_argument("--sequence", type=int, help="to restore")
        if name in ("pin", "follow"):
            one.add_argument("--sequence", type=int, required=name == "pin", help="to stay at")
    return parser


def _lineage(given: argparse.Namespace) -> model_pb2.Lineage:
    return model_pb2.Lineage(generation=given.generation, policy=FIRST_POLICY)


def _print(message: Message) -> None:
    sys.stdout.write(json_format.MessageToJson(message, preserving_proto_field_name=True) + "\n")
