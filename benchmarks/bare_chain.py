"""The least that the loop's chain can be: four grpc.aio servers of plain bytes, nothing around a handler.

``python -m benchmarks.bare_chain ROLE PORT WORLD [TARGET ...]``: recall, features, ranking, or gateway with
the targets of these three. No protobuf, no tables of ids, no deadlines, retries, metrics or logs; features
are one dense matrix in memory, the model never changes. WORLD: the file of plain_model.

    client --user--> gateway --user--> recall: 1,000 items by one product over all
                             --user, items--> features: the user's columns, the items' columns
                             --user, items, columns--> ranking: 100 items, 100 scores

Columns have the widths of the loop's own, ids are int64, everything little-endian.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import torch
import uvloop

from benchmarks.plain_model import PlainModel

METHOD = "/bare.Chain/Call"
CANDIDATES, SERVED = 1_000, 100
ROLES = ("recall", "features", "ranking", "gateway")
_ID = np.dtype("<i8")
_FLOAT = np.dtype("<f4")

Handler = Callable[[bytes, Any], Awaitable[bytes]]


def request(user: int) -> bytes:
    """What a client sends."""
    return np.array([user], _ID).tobytes()


def answer(data: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Items and scores of what it gets."""
    return np.frombuffer(data, _ID, SERVED), np.frombuffer(data, _FLOAT, SERVED, SERVED * _ID.itemsize)


def recall(model: PlainModel) -> Handler:
    """user -> items."""

    async def call(data: bytes, _context: Any) -> bytes:
        return model.recall(int(np.frombuffer(data, _ID)[0]), CANDIDATES).tobytes()

    return call


def features(model: PlainModel) -> Handler:
    """user, items -> the user's columns, the items' columns."""

    async def call(data: bytes, _context: Any) -> bytes:
        ids = np.frombuffer(data, _ID)
        return b"".join((model.user_features[ids[0]].tobytes(), model.item_features[ids[1:]].tobytes()))

    return call


def ranking(model: PlainModel) -> Handler:
    """user, items, columns -> the best items, their scores."""
    users, items = model.user_features.shape[1], model.item_features.shape[1]

    async def call(data: bytes, _context: Any) -> bytes:
        # A bytearray: torch wants memory that it could write to.
        whole = bytearray(data)
        ids = np.frombuffer(whole, _ID, 1 + CANDIDATES)
        at = ids.nbytes
        of_user = np.frombuffer(whole, _FLOAT, users, at)
        of_items = np.frombuffer(whole, _FLOAT, CANDIDATES * items, at + of_user.nbytes)
        best, scores = model.rank(int(ids[0]), ids[1:], of_user, of_items.reshape(-1, items), SERVED)
        return best.tobytes() + scores.tobytes()

    return call


def gateway(targets: list[str]) -> Handler:
    """Asks the others, one after another: each needs what the one before it said."""
    ask_recall, ask_features, ask_ranking = (
        grpc.aio.insecure_channel(target).unary_unary(METHOD) for target in targets
    )

    async def call(data: bytes, _context: Any) -> bytes:
        found = data + await ask_recall(data)
        return await ask_ranking(found + await ask_features(found))

    return call


async def serve(given: argparse.Namespace) -> None:
    """Until it is stopped."""
    torch.set_num_threads(1)
    if given.role == "gateway":
        handler = gateway(given.targets)
    else:
        model = PlainModel.read(given.world)
        handler = {"recall": recall, "features": features, "ranking": ranking}[given.role](model)
    gc.collect()
    gc.freeze()
    service, _, method = METHOD.strip("/").partition("/")
    handlers = {method: grpc.unary_unary_rpc_method_handler(handler)}
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    server.add_insecure_port(f"127.0.0.1:{given.port}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("role", choices=ROLES)
    parser.add_argument("port", type=int)
    parser.add_argument("world", type=Path)
    parser.add_argument("targets", nargs="*", help="of recall, features and ranking, for the gateway")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(parser.parse_args()))
