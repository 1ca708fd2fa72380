"""The keeper of bases against a release service that is not always there."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import numpy as np
import pytest

from rec.v1 import release_pb2, release_pb2_grpc
from services.contract import model_state, model_store
from services.contract.model_state import Frozen, ModelState
from tests.trainer_kit import new_state, random_change
from trainer import bases
from trainer.bases import BaseKeeper


class _Release(release_pb2_grpc.ReleaseServiceServicer):
    """Fails the first ``failures`` registrations."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.registered: list[release_pb2.RegisterBaseRequest] = []
        self.done = asyncio.Event()

    async def RegisterBase(
        self, request: release_pb2.RegisterBaseRequest, context: grpc.aio.ServicerContext
    ) -> release_pb2.RegisterBaseResponse:
        if self.failures:
            self.failures -= 1
            await context.abort(grpc.StatusCode.UNAVAILABLE, "not now")
        self.registered.append(request)
        self.done.set()
        return release_pb2.RegisterBaseResponse()


def _trained() -> ModelState:
    state = new_state()
    state.sequence, state.epoch = 3, 1
    state.tables["item"].apply(random_change(np.random.default_rng(0), "item", list(range(1, 50))))
    return state


def test_a_base_is_written_once_and_registered_until_it_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bases, "_FIRST_PAUSE_S", 0.02)
    written: list[int] = []
    save = model_store.save_base
    monkeypatch.setattr(model_store, "save_base", lambda *a, **k: written.append(1) or save(*a, **k))
    state = _trained()
    wanted = model_state.digest(state)

    async def scenario() -> release_pb2.RegisterBaseRequest:
        release = _Release(failures=2)
        server = grpc.aio.server()
        release_pb2_grpc.add_ReleaseServiceServicer_to_server(release, server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            keeper = BaseKeeper(str(tmp_path), channel, partition=0, retry_max_s=0.1)
            running = asyncio.create_task(keeper.run())
            replaced = Frozen(state)
            keeper.offer(replaced, 16)
            keeper.offer(Frozen(state), 17)
            assert not replaced.tables
            state.tables["item"].apply(random_change(np.random.default_rng(1), "item", [1, 2, 3]))
            await asyncio.wait_for(release.done.wait(), 20)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        await server.stop(None)
        return release.registered[0]

    registered = asyncio.run(scenario())
    assert written == [1]
    assert registered.base.sequence == 3 and registered.base.delta_offset == 17
    loaded, _ = model_store.load_base(registered.base.manifest_uri)
    assert model_state.digest(loaded) == wanted != model_state.digest(state)
    assert not state.tables["item"]._frozen, "the state was not let go"
