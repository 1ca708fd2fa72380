"""How the proposals of all sources become one list of n distinct candidates.

Each source has a share of the answer. The candidate of rank r of a source with share s stands at
(r + 1/2) / s: so sources are interleaved best-first in proportion to their shares, and a prefix of the
answer has the same mixture as the whole. A source that proposes less than its share leaves its places to
what the others propose beyond theirs; exploration, uniform over the rest of the catalogue, fills what is
still open. So the answer has n distinct items whenever the catalogue has n, and the same inputs and the
same request_id give the same answer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import xxhash
from numpy.typing import NDArray

from services.recall import kernel
from services.recall.sources import NO_IDS, Proposal, Source

Ids = NDArray[np.uint64]
Bits = NDArray[np.uint8]

# How far beyond its share a source proposes, so that it can fill in for another one.
SURPLUS = 2.0


def wanted(n: int, share: float) -> int:
    """How many candidates a source with this share should propose for an answer of n."""
    return min(n, math.ceil(n * share * SURPLUS)) if share > 0 else 0


def merge(
    proposals: Sequence[Proposal], catalogue: Ids, *, n: int, exploration_share: float, request_id: str
) -> tuple[Ids, Bits]:
    """At most n distinct candidates, best first, and their source bits: ([m] uint64, [m] uint8).

    m = n when the catalogue has n items. Exploration draws what no other source proposes, and stands at the
    end: where nothing ranks the answer, a random item is worse than any other.
    """
    ids, bits = interleave(proposals)
    room = n - int(n * exploration_share)
    explored = explore(catalogue, request_id, taken=ids, count=n - min(len(ids), room))
    kept = min(len(ids), n - len(explored))
    tags = np.full(len(explored), Source.EXPLORATION.bit, np.uint8)
    return np.concatenate([ids[:kept], explored]), np.concatenate([bits[:kept], tags])


def interleave(proposals: Sequence[Proposal]) -> tuple[Ids, Bits]:
    """All proposed items, each once, in proportion to the shares, and their source bits.

    An item that several sources propose stands where the keenest of them has it, and carries the bits of all.
    """
    offered = [proposal for proposal in proposals if len(proposal.ids) and proposal.share > 0]
    if not offered:
        return NO_IDS, np.empty(0, np.uint8)
    ids = np.concatenate([proposal.ids for proposal in offered])
    ends = np.cumsum([len(proposal.ids) for proposal in offered])
    shares = np.array([proposal.share for proposal in offered], np.float64)
    tags = np.array([proposal.source.bit for proposal in offered], np.uint8)
    chosen, bits = kernel.interleaved(ids, ends, shares, tags)
    return chosen, bits


def explore(catalogue: Ids, request_id: str, *, taken: Ids, count: int) -> Ids:
    """``count`` items drawn uniformly from the catalogue without those taken; fewer when it has no more.

    The draw is seeded by the request_id: a repeated request explores the same items.
    """
    if count <= 0 or not len(catalogue):
        return NO_IDS
    seed = xxhash.xxh64_intdigest(request_id.encode(), seed=0)
    # A few more than needed are mostly enough; among count + len(taken) at least count are not taken.
    free = NO_IDS
    for draws in (2 * count + 16, count + len(taken)):
        generator = np.random.Generator(np.random.PCG64(seed))
        size = min(len(catalogue), draws)
        drawn = catalogue[generator.choice(len(catalogue), size=size, replace=False)]
        free = kernel.without(drawn, taken, count)
        if len(free) == count:
            break
    return free
