"""Scenarios of a running load, switched over real gRPC and by the command."""

import asyncio
import socket
import time

import grpc
import numpy as np
import pytest

from loadgen import scenario_command
from loadgen.scenario_service import ScenarioServicer, record, serving
from loadgen.scenarios import SCENARIOS
from loadgen.world import World
from loadgen.world_clock import WorldClock
from loadgen.world_config import WorldConfig
from rec.v1 import scenario_pb2, scenario_pb2_grpc
from services.contract.errors import Unavailable
from services.contract.times import MICROS, to_us

SMALL = WorldConfig(items=20_000, users=2_000)
CLOCK = WorldClock(1_000_000_000 * MICROS)


def free_target() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


class House:
    """A world whose time a test moves by hand."""

    def __init__(self) -> None:
        self.world = World(SMALL)
        self.now_s = 10.0
        self.servicer = ScenarioServicer(self.world, CLOCK, lambda: CLOCK.event_us(self.now_s))

    def p(self) -> float:
        return float(self.world.true_p(np.array([0]), np.array([777]), np.array([self.now_s]))[0])


async def test_a_switch_changes_the_world_before_it_is_answered_and_is_on_the_record():
    house, target = House(), free_target()
    async with serving(house.servicer, target), grpc.aio.insecure_channel(target) as channel:
        stub = scenario_pb2_grpc.ScenarioServiceStub(channel)
        before = house.p()
        began = time.monotonic()
        answer = await stub.SwitchScenario(scenario_pb2.SwitchScenarioRequest(name="celebrity", on=True))
        assert answer.changed and answer.scenario.on and time.monotonic() - began < 1
        assert to_us(answer.scenario.since) == CLOCK.event_us(10.0)
        assert house.p() > 3 * before
        again = await stub.SwitchScenario(scenario_pb2.SwitchScenarioRequest(name="celebrity", on=True))
        assert not again.changed
        house.now_s = 25.0
        listed = await stub.ListScenarios(scenario_pb2.ListScenariosRequest())
        assert {one.name for one in listed.scenarios if one.on} == {"celebrity"}
        assert [one.name for one in listed.scenarios] == list(SCENARIOS)
        await stub.SwitchScenario(scenario_pb2.SwitchScenarioRequest(name="celebrity"))
        await stub.SwitchScenario(scenario_pb2.SwitchScenarioRequest(name="bots", on=True))
    first, second = record(house.world, CLOCK, 40.0)
    assert (first.name, first.from_s, first.until_s) == ("celebrity", 10.0, 25.0)
    assert (second.name, second.from_s, second.until_s) == ("bots", 25.0, 40.0)
    assert second.from_us == CLOCK.event_us(25.0)


async def test_an_unknown_name_is_refused_with_the_known_ones():
    house, target = House(), free_target()
    async with serving(house.servicer, target), grpc.aio.insecure_channel(target) as channel:
        stub = scenario_pb2_grpc.ScenarioServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.SwitchScenario(scenario_pb2.SwitchScenarioRequest(name="christmas", on=True))
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "one of black-friday" in refused.value.details()
    assert house.world.timeline.spans == []


async def test_a_port_that_is_taken_is_named():
    house, target = House(), free_target()
    async with serving(house.servicer, target):
        with pytest.raises(Unavailable, match=target):
            async with serving(house.servicer, target):
                pass


async def test_the_command_switches_lists_and_says_what_is_wrong(capsys):
    house, target = House(), free_target()

    async def command(*arguments: str) -> tuple[int, str]:
        code = await asyncio.to_thread(scenario_command.main, ["--target", target, *arguments])
        said = capsys.readouterr()
        return code, said.out + said.err

    async with serving(house.servicer, target):
        code, said = await command("on", "user-wave")
        assert code == 0 and "\nuser-wave " in f"\n{said}" and "on since 2001-09-09T01:46:50Z" in said
        code, said = await command("list")
        assert code == 0 and all(name in said for name in SCENARIOS) and said.count("on since") == 1
        code, said = await command("off", "user-wave")
        assert code == 0 and " off " in said and house.world.timeline.on_at(house.now_s) == []
        code, said = await command("on", "christmas")
        assert code == 2 and "INVALID_ARGUMENT" in said and "black-friday" in said
    code, said = await command("list")
    assert code == 2 and f"no simulate runs at {target}" in said
