"""The processes of one batch run: what each of them computes, and how they stay one trainer.

Data-parallel: each rank reads the same day, holds the whole model and takes the same steps over the same rows
in the same order. Of a step's rows it computes the gradients of its share alone; they are summed over the
ranks (dense tensors, and of the sparse tables the rows that the step touches, in the order of their ids,
which every rank knows without asking), and each rank learns from the sum. One collective a step. So

- N ranks take the steps that one process takes, up to the rounding of sums;
- every decision (a step that is skipped, the best pass, the end) is made from numbers that all ranks got from
  the same sum: they agree without asking, and ``agree`` checks it where it is cheap, once a pass;
- the sum of a given number of ranks has one order: the same run on as many ranks gives the same bits.

Rows are not sharded by id: a replica of ranking holds the whole model, so a trainer can; sharded, each step
would fetch rows before it and send gradients behind it, to save memory that is there. Only the first rank
writes, registers and tells.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import distributed

from services.contract.errors import Conflict, Unavailable

_Made = TypeVar("_Made")


@dataclass(frozen=True)
class Share:
    """Part ``rank`` of ``size``."""

    rank: int = 0
    size: int = 1

    def of(self, count: int) -> slice:
        """This part of ``count`` things; parts differ by one at most, and may be empty."""
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)


class Ranks:
    """What the processes of a run say to each other. Unavailable when one of them is gone."""

    def __init__(self, share: Share = Share()) -> None:
        self.share = share

    @property
    def first(self) -> bool:
        """Whether this is the one that writes."""
        return self.share.rank == 0

    def sum(self, arrays: Sequence[NDArray[np.float32]]) -> None:
        """Puts the sum over all ranks into each array; one collective."""
        if self.share.size == 1:
            return
        flat = torch.from_numpy(np.concatenate([array.ravel() for array in arrays]))
        self._together(lambda: distributed.all_reduce(flat))
        start, values = 0, flat.numpy()
        for array in arrays:
            array[...] = values[start : start + array.size].reshape(array.shape)
            start += array.size

    def agree(self, facts_of: Callable[[], Mapping[str, Any]]) -> None:
        """Conflict names the first fact (JSON) that is not the same on all ranks. Alone nothing is asked."""
        if self.share.size == 1:
            return
        facts = facts_of()
        for name, values in zip(facts, zip(*self._gathered([*facts.values()]), strict=True), strict=True):
            if any(value != values[0] for value in values):
                said = ", ".join(f"rank {rank}: {_short(value)}" for rank, value in enumerate(values))
                raise Conflict(f"the ranks differ in {name}: {said}")

    def from_first(self, make: Callable[[], _Made]) -> _Made:
        """What the first rank made, on all of them."""
        if self.share.size == 1:
            return make()
        box = [make() if self.first else None]
        self._together(lambda: distributed.broadcast_object_list(box, src=0))
        return box[0]  # type: ignore[return-value]

    def threads(self, machine: int) -> int:
        """Threads of this rank, of those that the ranks of its machine may have together; at least one."""
        hosts = self._gathered(socket.gethostname())
        return max(1, machine // hosts.count(hosts[self.share.rank]))

    def _gathered(self, value: _Made) -> list[_Made]:
        if self.share.size == 1:
            return [value]
        found: list[Any] = [None] * self.share.size
        self._together(lambda: distributed.all_gather_object(found, value))
        return found

    def _together(self, work: Callable[[], object]) -> None:
        try:
            work()
        except RuntimeError as error:
            raise Unavailable(f"rank {self.share.rank} has lost another rank: {error}") from error


ALONE = Ranks()


@contextmanager
def joined(timeout_s: float) -> Iterator[Ranks]:
    """The ranks that torchrun has started; ALONE without it. ``timeout_s``: how long a collective waits for
    a rank that is slower, or stuck."""
    if not distributed.is_torchelastic_launched():
        yield ALONE
        return
    distributed.init_process_group("gloo", timeout=timedelta(seconds=timeout_s))
    try:
        yield Ranks(Share(distributed.get_rank(), distributed.get_world_size()))
    finally:
        distributed.destroy_process_group()


def _short(value: Any) -> str:
    text = json.dumps(value, sort_keys=True)
    return text if len(text) <= 100 else f"{text[:100]}..."
