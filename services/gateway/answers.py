"""What the dependencies answer, checked before anything is built on it. Pure.

A dependency that answers garbage is treated as one that does not answer: each reader here raises InvalidInput
with the field that is wrong, and the caller degrades.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from rec.v1.feature_pb2 import GetFeaturesResponse
from rec.v1.provenance_pb2 import RecallSource
from rec.v1.ranking_pb2 import RankResponse
from rec.v1.recall_pb2 import RetrieveResponse
from services.contract import columns
from services.contract.errors import InvalidInput
from services.contract.view_registry import FeatureSet

POPULAR_BIT = 1 << RecallSource.RECALL_SOURCE_POPULAR
_REQUEST_BIT = 1 << RecallSource.RECALL_SOURCE_REQUEST
_FALLBACK_BIT = 1 << RecallSource.RECALL_SOURCE_FALLBACK

# The sources of each of the 256 tags.
SOURCES_OF: tuple[tuple[RecallSource, ...], ...] = tuple(
    tuple(source for source in RecallSource.values() if source and tag >> source & 1) for tag in range(256)
)


@dataclass(frozen=True)
class Candidates:
    """What is to be ranked, best guess first.

    packed: c x uint64 LE, as it came, to be passed on untouched. ids: [c] uint64, distinct. tags: [c] uint8,
    bit (1 << RecallSource) of each source.
    """

    packed: bytes
    ids: NDArray[np.uint64]
    tags: NDArray[np.uint8]

    @cached_property
    def order(self) -> NDArray[np.int64]:
        """[c] places of the ids in ascending order: one sort finds repeats, and later what is chosen."""
        return np.argsort(self.ids)

    @classmethod
    def of(cls, ids: NDArray[np.uint64], source_bit: int) -> Candidates:
        """Candidates that all come from one source."""
        return cls(columns.encode(ids, columns.U64), ids, np.full(len(ids), source_bit, np.uint8))

    @classmethod
    def given(cls, ids: NDArray[np.uint64]) -> Candidates:
        """The client's own."""
        return cls.of(ids, _REQUEST_BIT)

    @classmethod
    def fallback(cls, ids: NDArray[np.uint64]) -> Candidates:
        """From the gateway's pool."""
        return cls.of(ids, _FALLBACK_BIT)


@dataclass(frozen=True)
class Features:
    """Packed columns, to be passed on untouched. degraded: defaults stand in for a missing answer."""

    schema_hash: int
    user: bytes
    items: bytes
    degraded: bool


@dataclass(frozen=True)
class Chosen:
    """The items to serve: their places among the candidates, best first, and scores (0 when unscored)."""

    places: NDArray[np.int64]
    scores: NDArray[np.float32]


def read_candidates(response: RetrieveResponse, asked: int) -> Candidates:
    """Recall's candidates: at most as many as asked for, distinct, each with its tag."""
    ids = columns.decode("item_ids", response.item_ids, columns.U64)
    tags = columns.decode("sources", response.sources, columns.U8, rows=len(ids))
    if len(ids) > asked:
        raise InvalidInput.one("item_ids", f"{len(ids)} candidates", f"at most the {asked} asked for")
    candidates = Candidates(response.item_ids, ids, tags)
    ascending = ids[candidates.order]
    if (ascending[1:] == ascending[:-1]).any():
        raise InvalidInput.one("item_ids", "repeated ids", "distinct ids")
    return candidates


def read_features(response: GetFeaturesResponse, feature_set: FeatureSet, items: int) -> Features:
    """The feature server's columns: of this set or one that has grown from it (which only ranking can tell),
    the right sizes, finite."""
    if response.schema_hash == feature_set.schema_hash:
        user_width, item_width = feature_set.user_width, feature_set.item_width
    else:
        user_width, item_width = len(response.user_features) // 4, len(response.item_features) // (4 * items)
        if user_width < feature_set.user_width or item_width < feature_set.item_width:
            wanted = f"{feature_set.schema_hash:016x} or a set with more columns"
            raise InvalidInput.one("schema_hash", f"{response.schema_hash:016x}", wanted)
    user = columns.decode("user_features", response.user_features, columns.F32, rows=user_width)
    matrix = columns.decode_matrix("item_features", response.item_features, items, item_width)
    for field, values in (("user_features", user), ("item_features", matrix)):
        if not np.isfinite(values).all():
            raise InvalidInput.one(field, "NaN or infinite", "finite values")
    return Features(
        response.schema_hash, response.user_features, response.item_features, bool(response.degraded)
    )


def read_ranked(response: RankResponse, candidates: Candidates, n: int) -> Chosen:
    """Ranking's choice: min(n, candidates) distinct candidates with finite scores."""
    rows = min(n, len(candidates.ids))
    ids = columns.decode("item_ids", response.item_ids, columns.U64, rows=rows)
    scores = columns.decode("scores", response.scores, columns.F32, rows=rows)
    if not np.isfinite(scores).all():
        raise InvalidInput.one("scores", "NaN or infinite", "finite values")
    order = candidates.order
    slots = np.minimum(np.searchsorted(candidates.ids, ids, sorter=order), len(order) - 1)
    places = order[slots]
    if not np.array_equal(candidates.ids[places], ids):
        raise InvalidInput.one("item_ids", "ids that are no candidates", "candidates of the request")
    if len(set(places.tolist())) < rows:
        raise InvalidInput.one("item_ids", "repeated ids", "distinct ids")
    return Chosen(places, scores)


def unscored(candidates: Candidates, n: int) -> Chosen:
    """The first n candidates as they stand."""
    rows = min(n, len(candidates.ids))
    return Chosen(np.arange(rows), np.zeros(rows, np.float32))
