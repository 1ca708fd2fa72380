"""What is true of every sample: the features that were scored at t2, and the final label.

The features are cut out of the snapshots as ranking logged them, by code of its own, so that the offline join
is judged as well and not by itself. Which items become samples, and their labels, is what the offline join
(the oracle) says.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from local.compare.rows import NOWHERE, Encoded, RowIndex
from services.contract.columns import F32, U64
from services.contract.errors import InvalidInput
from services.contract.view_registry import FeatureSet


@dataclass(frozen=True)
class Truth:
    """n samples by time of impression. ``samples``: the oracle's (contract.lake_schema); ``served``: the
    features at t2 [n]; ``shown_ms``: when Kafka had the impression [n]."""

    samples: pa.Table
    served: Encoded
    shown_ms: NDArray[np.int64]
    index: RowIndex

    def __len__(self) -> int:
        return len(self.served)

    @property
    def labels(self) -> NDArray[np.float32]:
        """Final labels [n]."""
        return self.samples["label"].to_numpy()

    @property
    def item_ids(self) -> NDArray[np.uint64]:
        """Items [n]."""
        return self.samples["item_id"].to_numpy()

    def find(self, samples: pa.Table) -> NDArray[np.int64]:
        """The true row of each sample, NOWHERE for one that should not be."""
        return self.index.find(samples["request_id"], samples["item_id"].to_numpy())

    def table(self) -> pa.Table:
        """The oracle's samples with the features as they were served."""
        found = self.samples
        for name, values in (("user_features", self.served.users), ("item_features", self.served.items)):
            column = pa.array([row.tobytes() for row in values], pa.binary())
            found = found.set_column(found.schema.get_field_index(name), name, column)
        return found


def truth(oracle: pa.Table, snapshots: pa.Table, impressions: pa.Table, feature_set: FeatureSet) -> Truth:
    """From the oracle's samples and the lake's tables. InvalidInput when a sample was never scored."""
    keys = ("impressed_us", "request_id", "position", "item_id")
    samples = oracle.sort_by([(name, "ascending") for name in keys]).combine_chunks()
    item_ids = samples["item_id"].to_numpy()
    index = RowIndex(samples["request_id"], item_ids)
    if len(np.unique(index.find(samples["request_id"], item_ids))) < len(samples):
        raise InvalidInput.one("oracle", "an item twice in one request", "each once")
    shown = _events(impressions)
    at = pc.index_in(samples["request_id"], shown["request_id"].combine_chunks())
    return Truth(
        samples,
        served_features(snapshots, samples["request_id"], item_ids, feature_set),
        shown["appended_ms"].take(at).to_numpy(),
        index,
    )


def served_features(
    snapshots: pa.Table,
    request_ids: pa.ChunkedArray,
    item_ids: NDArray[np.uint64],
    feature_set: FeatureSet,
) -> Encoded:
    """The features that the first snapshot of each request holds of an item [n]."""
    snapshots = _events(snapshots)
    ids = [np.frombuffer(one, U64) for one in snapshots["item_ids"].to_pylist()]
    counts = np.array([len(one) for one in ids], np.int64)
    of = np.repeat(np.arange(len(ids)), counts)
    rows = RowIndex(snapshots["request_id"].take(pa.array(of)), np.concatenate([np.zeros(0, U64), *ids]))
    at = rows.find(request_ids, item_ids)
    if (at == NOWHERE).any():
        raise InvalidInput.one(
            "oracle", f"{(at == NOWHERE).sum()} samples", "samples of snapshots in the lake"
        )
    users = _floats(snapshots, "user_features", feature_set.user_width)
    items = _floats(snapshots, "item_features", feature_set.item_width)
    return Encoded(feature_set, users[of[at]], items[at])


def _floats(snapshots: pa.Table, name: str, width: int) -> NDArray[np.float32]:
    """All rows of all snapshots below each other, [rows, width]."""
    return np.frombuffer(b"".join(snapshots[name].to_pylist()), F32).reshape(-1, width)


def _events(table: pa.Table) -> pa.Table:
    """Events in the order of the log, the first of each request."""
    events = table.filter(pc.equal(table["record"], "event"))
    events = events.sort_by([("partition", "ascending"), ("offset", "ascending")]).combine_chunks()
    first = pc.index_in(pc.unique(events["request_id"]), events["request_id"].combine_chunks())
    return events.take(first)
