"""What 1,000 requests a second carry and what a row holds, from the messages and tables themselves.

Each message is built by what builds it in the service, at two sizes; so its bytes are a fixed part, so many a
candidate, so many a served item, so many a shown one. Network = the sum over links of bytes x requests/s;
gRPC's and Kafka's own frames (below 200 bytes a message) are not in it, nor is compression.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from benchmarks.join_log import heartbeat
from benchmarks.trainer_traffic import SHAPE
from rec.events.v1 import events_pb2
from rec.model.v1 import model_pb2
from rec.v1 import feature_pb2, gateway_pb2, ranking_pb2, recall_pb2
from services.collector.records import event_records
from services.contract import columns, model_schema, times
from services.contract.delta_types import BYTES_PER_ROW
from services.contract.feature_sets import FEATURE_SETS, WORLD
from services.contract.join import JoinTask
from services.contract.join_config import JoinConfig
from services.contract.join_events import Source
from services.feature.answer import Reading
from services.feature.near_cache import NearCache
from services.feature.program import Layout
from services.feature.query import Query
from services.gateway import answers as gateway_answers
from services.gateway import response as gateway_response
from services.gateway.validation import Wish
from services.joiner.outgoing import outgoing
from services.ranking import answers
from services.ranking.rank import Ranked, Result
from services.ranking.request_check import Candidates

REQUESTS_PER_S = 1_000
CANDIDATES, SERVED, SHOWN = 1_000, 100, 10
START_US = 1_700_000_000_000_000
REQUEST_ID, USER = "0123456789abcdef0123456789abcdef", 1 << 60
ID_SLOT_BYTES = 16


@dataclass(frozen=True)
class Sizes:
    """Of one request: candidates that recall finds, items served, items shown (one of them clicked)."""

    candidates: int = CANDIDATES
    served: int = SERVED
    shown: int = SHOWN


@dataclass(frozen=True)
class Link:
    """Bytes of a message; ``times``: how often it crosses a network in a request (Kafka's replication and
    each group of readers)."""

    name: str
    bytes: int
    fixed: int
    per_candidate: float
    per_served: float
    per_shown: float
    times: int = 1

    @property
    def mb_per_s(self) -> float:
        """At REQUESTS_PER_S."""
        return self.bytes * self.times * REQUESTS_PER_S / 1e6


# Times a record is carried: into the leader, to two followers, to each group of readers.
_REPLICATED = 3
MESSAGES: dict[str, tuple[int, Callable[[dict[str, int]], int]]] = {
    "client to gateway": (1, lambda m: m["recommend"]),
    "gateway to client": (1, lambda m: m["recommended"]),
    "gateway to recall": (1, lambda m: m["retrieve"]),
    "recall to gateway": (1, lambda m: m["retrieved"]),
    "gateway to feature": (1, lambda m: m["get_features"]),
    "feature to gateway": (1, lambda m: m["features"]),
    "gateway to ranking": (1, lambda m: m["rank"]),
    "ranking to gateway": (1, lambda m: m["ranked"]),
    "feature-snapshots: ranking, replicas, joiner": (_REPLICATED + 1, lambda m: m["snapshot"]),
    "impressions, actions: collector, replicas, joiner, feature_pipeline": (
        _REPLICATED + 2, lambda m: m["events"],
    ),
    "samples: joiner, replicas, trainer, release": (_REPLICATED + 2, lambda m: m["samples"]),
}  # fmt: skip


def links() -> list[Link]:
    """Every link of a request."""
    usual = Sizes()
    at = {
        name: messages(sizes)
        for name, sizes in {
            "usual": usual,
            "candidates": Sizes(candidates=2 * CANDIDATES),
            "served": Sizes(served=2 * SERVED),
            "shown": Sizes(shown=2 * SHOWN),
        }.items()
    }
    found = []
    for name, (carried, of) in MESSAGES.items():
        here = of(at["usual"])
        slopes = [
            (of(at[more]) - here) / count
            for more, count in (("candidates", CANDIDATES), ("served", SERVED), ("shown", SHOWN))
        ]
        fixed = here - slopes[0] * CANDIDATES - slopes[1] * SERVED - slopes[2] * SHOWN
        found.append(Link(name, here, round(fixed), *(abs(round(one, 1)) for one in slopes), carried))
    return found


def messages(sizes: Sizes) -> dict[str, int]:
    """Bytes of every message of a request, by name."""
    rng = np.random.default_rng(1)
    ids = np.sort(rng.integers(1, 2**63, sizes.candidates, dtype=np.uint64))
    at = times.from_us(START_US)
    features = Reading(LAYOUT, Query(USER, ids, START_US), NearCache(LAYOUT, sizes.candidates, 60.0), 0)
    features.nothing()
    given = features.build().data
    encoded = feature_pb2.GetFeaturesResponse.FromString(given)
    rank = ranking_pb2.RankRequest(
        request_id=REQUEST_ID, user_id=USER, occurred_at=at, n=sizes.served, item_ids=ids.tobytes(),
        schema_hash=SHAPE.schema_hash, user_features=encoded.user_features,
        item_features=encoded.item_features, arm="online", arm_assigned=True,
    )  # fmt: skip
    candidates = Candidates(
        SHAPE, USER, ids, columns.decode("user", encoded.user_features, columns.F32),
        columns.decode_matrix("items", encoded.item_features, len(ids), SHAPE.item_width),
        sizes.served, START_US,
    )  # fmt: skip
    version = model_pb2.ModelVersion(lineage=model_pb2.Lineage(generation=9, policy="online"), sequence=9_999)
    chosen = np.arange(sizes.served)
    scores = rng.random(sizes.served, dtype=np.float32)
    main = Ranked("online", version, START_US, START_US, chosen, scores)
    ranked = answers.response(rank, candidates, Result(main), replica="ranking-0", now_us=START_US)
    snapshot = answers.snapshot(rank, candidates, main, START_US)
    tags = np.full(len(ids), 2, np.uint8)
    recommended = gateway_response.build(
        Wish(REQUEST_ID, USER, sizes.served, START_US, sizes.candidates, None, "online", ()),
        gateway_answers.Candidates(ids.tobytes(), ids, tags),
        gateway_answers.Chosen(chosen, scores),
        ranked=ranked,
        degraded=(),
        schema_hash=SHAPE.schema_hash,
        served_us=START_US,
    )
    events = _events(ids[: sizes.shown])
    made = {
        "recommend": gateway_pb2.RecommendRequest(
            user_id=USER, n=sizes.served, request_id=REQUEST_ID, occurred_at=at
        ),
        "recommended": recommended,
        "retrieve": recall_pb2.RetrieveRequest(
            request_id=REQUEST_ID, user_id=USER, n=sizes.candidates, occurred_at=at
        ),
        "retrieved": recall_pb2.RetrieveResponse(
            item_ids=ids.tobytes(), sources=tags.tobytes(), model=version
        ),
        "get_features": feature_pb2.GetFeaturesRequest(
            request_id=REQUEST_ID, user_id=USER, item_ids=ids.tobytes(), occurred_at=at
        ),
        "rank": rank,
        "ranked": ranked,
        "snapshot": snapshot,
    }
    found = {name: message.ByteSize() for name, message in made.items()}
    samples = _samples(snapshot.SerializeToString(), [record.value for record in events])
    return found | {
        "features": len(given),
        "events": sum(len(record.value) for record in events),
        "samples": samples,
    }


LAYOUT = Layout(FEATURE_SETS[WORLD])


def _events(shown: np.ndarray) -> list[Any]:
    impression = events_pb2.Impression(
        event_id=f"{REQUEST_ID}:shown", request_id=REQUEST_ID, user_id=USER,
        occurred_at=times.from_us(START_US + 500_000), item_ids=shown.tolist(),
    )  # fmt: skip
    click = events_pb2.Action(
        event_id=f"{REQUEST_ID}:{shown[0]}:1", request_id=REQUEST_ID, user_id=USER, item_id=int(shown[0]),
        occurred_at=times.from_us(START_US + 3_500_000), kind=events_pb2.ACTION_KIND_CLICK,
    )  # fmt: skip
    return event_records([impression], [click])


def _samples(snapshot: bytes, events: list[bytes]) -> int:
    """Bytes that the join makes of the request's records."""
    task = JoinTask(JoinConfig(window_us=20_000_000, bound_us=2_000_000))
    records = list(zip(Source, (snapshot, *events), strict=True))
    records += [(source, heartbeat(START_US + 10**12)) for source in Source]
    offsets = dict.fromkeys(Source, 0)
    size = 0
    for source, raw in records:
        for output in task.feed(source, offsets[source], raw):
            size += len(outgoing(output, 0, None, START_US).value)
        offsets[source] += 1
    return size


def table_bytes(rows: int) -> int:
    """Of one embedding table with so many rows: values, optimizer, counts, times, and the table of ids, whose
    slots are a power of two, at most half of them taken."""
    row = 4 * (model_schema.ROW_WIDTH + model_schema.OPTIMIZER_WIDTH) + 4 + 8
    return rows * row + ID_SLOT_BYTES * (1 << max(1, (2 * rows - 1)).bit_length())


def vector_bytes(items: int) -> int:
    """Of recall's items: vector, bias, id, the table of ids, the list that each is in."""
    slots = ID_SLOT_BYTES * (1 << max(1, (2 * items - 1)).bit_length())
    return items * (4 * (model_schema.RECALL_FACTORS + 1) + 8 + 3 * 4) + slots


def sizing(found: list[Link]) -> dict[str, Any]:
    """For the result file."""
    return {
        "requests_per_s": REQUESTS_PER_S,
        "sizes": asdict(Sizes()),
        "links": [asdict(one) | {"mb_per_s": round(one.mb_per_s, 1)} for one in found],
        "mb_per_s": round(sum(one.mb_per_s for one in found), 1),
        "delta_bytes_per_row": BYTES_PER_ROW,
        "bytes_per_row": {f"{rows:,}": round(table_bytes(rows) / rows, 1) for rows in (10**5, 10**6, 10**7)},
        "bytes_per_item_in_recall": round(vector_bytes(10**6) / 10**6, 1),
    }


def table(found: dict[str, Any]) -> str:
    """Markdown."""
    sizes = found["sizes"]
    lines = [
        f"**What {found['requests_per_s']:,} requests/s carry** ({sizes['candidates']:,} candidates, "
        f"{sizes['served']} served, {sizes['shown']} shown, one of them clicked)",
        "",
        "| link | bytes a request | fixed | a candidate | a served item | a shown item | times | MB/s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for one in found["links"]:
        parts = [f"{one[name]:g}" for name in ("per_candidate", "per_served", "per_shown")]
        lines.append(
            f"| {one['name']} | {one['bytes']:,} | {one['fixed']:,} | {' | '.join(parts)} | {one['times']} | "
            f"{one['mb_per_s']:.1f} |"
        )
    lines.append(f"| all | | | | | | | {found['mb_per_s']:.1f} |")
    rows = ", ".join(f"{of:g} with {rows} rows" for rows, of in found["bytes_per_row"].items())
    lines += [
        "",
        f"A delta carries {found['delta_bytes_per_row']} bytes a touched row: to the broker, its two "
        "followers, each replica of ranking, and recall. Bytes of a row of a table, with the table of ids: "
        f"{rows}; of an item in recall: {found['bytes_per_item_in_recall']:g}.",
    ]
    return "\n".join(lines)
