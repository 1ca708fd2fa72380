"""``python -m loadgen scenario on|off NAME``, ``list``: what happens in the world of a running ``simulate``.

Elsewhere than on the machine of the load: --target, or inside its container, as in
``docker compose exec load python -m loadgen scenario on black-friday``.
"""

from __future__ import annotations

import argparse
import os
import sys

import grpc

from loadgen.settings import SCENARIO_TARGET
from rec.v1 import scenario_pb2, scenario_pb2_grpc
from services.contract.times import to_us
from services.runtime.grpc_client import blocking_channel
from services.runtime.settings import Connections

_TIMEOUT_S = 10.0


def main(argv: list[str]) -> int:
    """Exit code 0, or 2 with one line when the switch is not there or does not know the name."""
    given = _arguments(argv)
    with blocking_channel(given.target, Connections().tls) as channel:
        stub = scenario_pb2_grpc.ScenarioServiceStub(channel)
        try:
            if given.verb == "list":
                listed = stub.ListScenarios(scenario_pb2.ListScenariosRequest(), timeout=_TIMEOUT_S)
                lines = [_line(one) for one in listed.scenarios]
            else:
                request = scenario_pb2.SwitchScenarioRequest(name=given.name, on=given.verb == "on")
                answer = stub.SwitchScenario(request, timeout=_TIMEOUT_S)
                lines = [_line(answer.scenario) + ("" if answer.changed else " (as before)")]
        except grpc.RpcError as error:
            said = error.details() or ""
            if error.code() is grpc.StatusCode.UNAVAILABLE:
                said = f"no simulate runs at {given.target}"
            print(f"scenario: {error.code().name}: {said}", file=sys.stderr)
            return 2
    print("\n".join(lines))
    return 0


def _line(one: scenario_pb2.ScenarioStatus) -> str:
    since = f"on since {one.since.ToDatetime().isoformat(timespec='seconds')}Z" if to_us(one.since) else "off"
    return f"{one.name:<14}{since:<32}{one.description}"


def _arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m loadgen scenario",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    target = os.environ.get("RECLOOP_SCENARIO_TARGET", SCENARIO_TARGET)
    parser.add_argument("--target", default=target, help="host:port of the load's switches")
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb in ("on", "off"):
        verbs.add_parser(verb).add_argument("name")
    verbs.add_parser("list")
    return parser.parse_args(argv)
