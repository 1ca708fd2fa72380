"""The peers of the benchmarks as they run: the bare chain over real gRPC, the clients that measure."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from feature_kit import FEATURES
from trainer_kit import new_state, random_change

from benchmarks import bare_chain
from benchmarks.closed_loop import closed_loop, http_caller
from benchmarks.loop_sides import BareChain
from benchmarks.loop_world import arrays_of
from benchmarks.open_loop import open_loop
from benchmarks.plain_model import PlainModel

USERS, ITEMS = np.arange(1, 6, dtype=np.uint64), np.arange(1, 3001, dtype=np.uint64)


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    rng = np.random.default_rng(4)
    state = new_state()
    for name, ids in (("user", USERS), ("item", ITEMS), ("category", np.arange(6))):
        state.tables[name].apply(random_change(rng, name, ids.tolist()))
    of_items = rng.normal(0, 1, (len(ITEMS), FEATURES.item_width)).astype(np.float32)
    of_items[:, FEATURES.category_column] = rng.integers(0, 6, len(ITEMS))
    of_users = rng.normal(0, 1, (len(USERS), FEATURES.user_width)).astype(np.float32)
    path = tmp_path_factory.mktemp("world") / "world.npz"
    np.savez(path, user_features=of_users, item_features=of_items, **arrays_of(state, USERS, ITEMS))
    return path


@pytest.fixture(scope="module")
def chain(world: Path) -> Iterator[BareChain]:
    started = BareChain(world, np.arange(len(USERS)), world.parent)
    yield started
    started.close()


async def test_the_bare_chain_answers_the_best_of_its_candidates(world: Path, chain: BareChain) -> None:
    model = PlainModel.read(world)
    async with chain.side.connect() as call:
        for user in range(len(USERS)):
            data = await call(bare_chain.request(user))
            items, scores = bare_chain.answer(data)
            found = model.recall(user, bare_chain.CANDIDATES)
            given = model.user_features[user], model.item_features[found]
            wanted, of_wanted = model.rank(user, found, *given, bare_chain.SERVED)
            assert items.tolist() == wanted.tolist()
            np.testing.assert_allclose(scores, of_wanted, rtol=1e-5)
            assert chain.side.wrong(data) == ""


async def test_a_closed_loop_counts_what_was_answered_and_what_it_cost(chain: BareChain) -> None:
    side = chain.side
    phase = await closed_loop(
        side.connect, side.request, side.pids, concurrency=2, seconds=0.5, warm_up_s=0.1
    )
    assert len(phase.latencies_ms) > 5
    assert phase.requests_per_s == pytest.approx(len(phase.latencies_ms) / phase.wall_s)
    assert set(phase.cpu_s) == {*bare_chain.ROLES, "client"}
    assert all(used > 0 for used in phase.cpu_s.values())
    assert [side.wrong(data) for data in phase.looked_at] == [""] * len(phase.looked_at)
    assert side.wrong(phase.looked_at[0][:800] + bytes(400)) != ""


async def test_an_open_loop_counts_from_the_moment_that_was_meant(chain: BareChain) -> None:
    sent = await open_loop(chain.side.connect, chain.side.request, rate=40, seconds=0.5)
    assert sorted(one.at_s for one in sent) == [number / 40 for number in range(20)]
    assert all(one.took_ms > 0 and one.answer and not one.error for one in sent)


async def test_an_open_loop_keeps_what_failed(chain: BareChain) -> None:
    sent = await open_loop(chain.side.connect, lambda: b"no user", rate=40, seconds=0.1)
    assert len(sent) == 4 and all(one.answer is None and one.error for one in sent)


async def test_the_http_client_reads_answers_of_one_connection_and_refuses_errors() -> None:
    asked = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            body = await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].split()[0]))
            asked.append(body)
            status = b"200 OK" if body != b"bad" else b"500 Internal Server Error"
            writer.write(
                b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body) + 1, body + b"!")
            )
            if body == b"bad":
                break
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        connect = http_caller("127.0.0.1", server.sockets[0].getsockname()[1], "/recommend")
        async with connect() as call:
            assert [await call(b"one"), await call(b"two")] == [b"one!", b"two!"]
            with pytest.raises(ConnectionError, match="500"):
                await call(b"bad")
    assert asked == [b"one", b"two", b"bad"]
