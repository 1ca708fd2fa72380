"""Small logs for the join: records by hand, random logs, interleavings, canonical outputs."""

from __future__ import annotations

import contextlib
import struct
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from google.protobuf.message import DecodeError
from hypothesis import strategies as st

from rec.events.v1 import events_pb2 as ev
from services.contract import times
from services.contract.join import JoinTask
from services.contract.join_config import JoinConfig
from services.contract.join_events import SOURCES, Source
from services.contract.join_label_first import LabelFirstTask
from services.contract.join_output import BarrierPassed, Output, Rejected, Sample
from services.contract.join_position import decode_position, encode_position

S, IMP, A = SOURCES
Log = list[bytes]
Logs = dict[Source, Log]
FEATURES_PER_ROW = 2
USER_FEATURES = 2


def snapshot(
    request: str, at: int, items: Sequence[int] = (1, 2, 3), event_id: str | None = None, user: int = 9
) -> bytes:
    """A snapshot whose bytes name request, time and item, so that a mixed-up row shows."""
    message = ev.FeatureSnapshot(
        event_id=event_id or f"{request}:scored",
        request_id=request,
        occurred_at=times.from_us(at),
        user_id=user,
        scored_at=times.from_us(at + 7),
        schema_hash=77,
        arm="online",
        item_ids=struct.pack(f"<{len(items)}Q", *items),
        scores=struct.pack(f"<{len(items)}f", *(item / 100 for item in items)),
        user_features=struct.pack("<2f", at, user),
        item_features=b"".join(struct.pack("<2f", item, at) for item in items),
    )
    message.model.lineage.generation = 1
    message.model.lineage.policy = "online"
    message.model.sequence = 5
    return ev.EventRecord(snapshot=message).SerializeToString()


def impression(
    request: str,
    at: int,
    items: Sequence[int] = (1, 2, 3),
    event_id: str | None = None,
    *,
    unscored: bool = False,
    positions: Sequence[int] = (),
) -> bytes:
    """An impression of ``items``."""
    message = ev.Impression(
        event_id=event_id or f"{request}:shown",
        request_id=request,
        occurred_at=times.from_us(at),
        user_id=9,
        item_ids=items,
        positions=positions,
        unscored=unscored,
    )
    return ev.EventRecord(impression=message).SerializeToString()


def action(
    request: str, at: int, item: int = 1, event_id: str | None = None, kind: int = ev.ACTION_KIND_CLICK
) -> bytes:
    """An action, by default the click on item 1."""
    message = ev.Action(
        event_id=event_id or f"{request}:{item}:{kind}",
        request_id=request,
        occurred_at=times.from_us(at),
        user_id=9,
        item_id=item,
        kind=kind,
    )
    return ev.EventRecord(action=message).SerializeToString()


def heartbeat(at: int) -> bytes:
    """A heartbeat."""
    return ev.EventRecord(
        heartbeat=ev.Heartbeat(writer="t", occurred_at=times.from_us(at))
    ).SerializeToString()


def barrier(name: str, at: int) -> bytes:
    """A barrier."""
    return ev.EventRecord(
        barrier=ev.Barrier(barrier_id=name, occurred_at=times.from_us(at))
    ).SerializeToString()


def floats(data: bytes) -> tuple[float, ...]:
    """A float32 column."""
    return struct.unpack(f"<{len(data) // 4}f", data)


def canonical(output: Output) -> tuple:
    """What an output says, as a hashable value."""
    if isinstance(output, BarrierPassed):
        return ("barrier", output.barrier_id)
    if isinstance(output, Rejected):
        return (
            "rejected",
            str(output.reason),
            int(output.source),
            output.offset,
            output.items,
            output.item_ids,
        )
    m = output.message
    n = len(m.item_ids) // 8
    assert n == output.rows
    assert not m.HasField("joined_at")
    rows = zip(
        struct.unpack(f"<{n}Q", m.item_ids),
        floats(m.labels),
        struct.unpack(f"<{n}I", m.positions),
        floats(m.scores),
        [m.item_features[k * 8 : k * 8 + 8] for k in range(n)],
        struct.unpack(f"<{n}I", m.label_versions),
        [m.sample_rate] * n,
        strict=True,
    )
    acted = times.to_us(m.acted_at) if m.HasField("acted_at") else None
    return (
        "sample",
        m.request_id,
        times.to_us(m.occurred_at),
        times.to_us(m.impressed_at),
        acted,
        tuple(rows),
    )


def rows_of(outputs: Iterable[Output]) -> Counter[tuple[str, int, int]]:
    """(request, item, label_version) -> how many samples it got."""
    found: Counter[tuple[str, int, int]] = Counter()
    for output in outputs:
        if isinstance(output, Sample):
            m, n = output.message, output.rows
            ids, versions = struct.unpack(f"<{n}Q", m.item_ids), struct.unpack(f"<{n}I", m.label_versions)
            for item, version in zip(ids, versions, strict=True):
                found[m.request_id, item, version] += 1
    return found


def feed_all(task: JoinTask, logs: Logs, order: Sequence[Source]) -> list[Output]:
    """Feeds whole logs in an order of sources (a source more often than it has records: skipped)."""
    out: list[Output] = []
    at = dict.fromkeys(SOURCES, 0)
    for source in (*order, *(s for s in SOURCES for _ in logs[s])):
        if at[source] < len(logs[source]):
            out += task.feed(source, at[source], logs[source][at[source]])
            at[source] += 1
    return out


def labels_first(task: LabelFirstTask, logs: Logs, order: Sequence[Source]) -> Iterator[list[Output]]:
    """Feeds as a host does: impressions and actions in some order, each snapshot once its labels are in, and
    what is then left at the end."""
    at = dict.fromkeys(SOURCES, 0)

    def feed(source: Source) -> list[Output]:
        at[source] += 1
        return task.feed(source, at[source] - 1, logs[source][at[source] - 1])

    def due(raw: bytes) -> bool:
        record = ev.EventRecord()
        with contextlib.suppress(DecodeError):
            record.ParseFromString(raw)
        return not record.HasField("snapshot") or task.labels_in(times.to_us(record.snapshot.occurred_at))

    for source in (*order, *(s for s in (IMP, A) for _ in logs[s])):
        if source is not S and at[source] < len(logs[source]):
            yield feed(source)
        while at[S] < len(logs[S]) and due(logs[S][at[S]]):
            yield feed(S)
    while at[S] < len(logs[S]):
        yield feed(S)


def crash_and_restore(task: JoinTask, config: JoinConfig, logs: Logs, order: Sequence[Source]) -> JoinTask:
    """A new task from what ``task`` would commit now, replayed in another interleaving."""
    kept = {s: (p.offset, encode_position(p)) for s, p in task.positions().items()}
    restore = type(task).restore
    new = restore(config, {s: decode_position(offset, text) for s, (offset, text) in kept.items()})
    at = dict(new.replay_from)
    for source in (*order, *(s for s in SOURCES for _ in logs[s])):
        if at[source] < new.replay_until[source]:
            assert new.feed(source, at[source], logs[source][at[source]]) == []
            at[source] += 1
    new.end_replay()
    return new


def one_sample() -> ev.TrainingSample:
    """The negatives of a request with a snapshot and an impression."""
    logs = {S: [snapshot("r", 100), heartbeat(10**6)], IMP: [impression("r", 104), heartbeat(10**6)]}
    task = JoinTask(JoinConfig(window_us=10, bound_us=3))
    (sample,) = feed_all(task, {**logs, A: [heartbeat(10**6)]}, [])
    assert isinstance(sample, Sample)
    return sample.message


# -- random logs -----------------------------------------------------------------------------------------

REQUESTS = ("a", "b", "c")
ITEMS = st.lists(st.integers(1, 4), min_size=1, max_size=3, unique=True)
NAMES = st.sampled_from([None, None, None, "x", "y"])
KINDS = st.sampled_from([ev.ACTION_KIND_CLICK] * 6 + [ev.ACTION_KIND_LIKE, ev.ACTION_KIND_HIDE])
MIXED_KINDS = st.sampled_from([ev.ACTION_KIND_CLICK, ev.ACTION_KIND_LIKE, ev.ACTION_KIND_PURCHASE])
# Time of an event relative to its request: mostly as it should be, on the rules' edges now and then.
SOON = st.integers(0, 4)
EDGES = st.integers(-6, 26)
# Of an action after its impression, in windows of 6 to 14.
ACTED = (5, 2, 1, 0, -1, -2, 3, 4, 6, 7, 8, 9, 10, 11, 12, 14, 15)
BARRIERS = (("one", 20), ("two", 35), ("three", 35), ("four", 60))


@st.composite
def stories(draw: st.DrawFn) -> Logs:
    """Three logs: requests with their impressions and actions, repeated, late, lost, behind barriers."""
    placed: dict[Source, list[tuple[int, bytes]]] = {s: [] for s in SOURCES}

    def place(source: Source, at: int, raw: bytes) -> None:
        """At a place of its own time plus disorder (mostly within the bound), sometimes twice."""
        for _ in range(draw(st.sampled_from([1, 1, 1, 1, 2, 3]))):
            placed[source].append((at + draw(st.sampled_from([0, 0, 0, 1, 2, 3, 4, 9])), raw))

    for _ in range(draw(st.integers(0, 5))):
        request, start = draw(st.sampled_from(REQUESTS)), draw(st.integers(0, 60))
        if draw(st.integers(0, 5)):
            place(S, start, snapshot(request, start, draw(ITEMS), draw(NAMES)))
        shown = start + draw(st.one_of(SOON, SOON, EDGES))
        if draw(st.integers(0, 5)):
            unscored = draw(st.integers(0, 7)) == 0
            place(IMP, shown, impression(request, shown, draw(ITEMS), draw(NAMES), unscored=unscored))
        for _ in range(draw(st.integers(0, 3))):
            acted = shown + draw(st.one_of(SOON, st.integers(0, 12), EDGES))
            place(A, acted, action(request, acted, draw(st.integers(1, 4)), draw(NAMES), draw(KINDS)))
    for name, at in draw(st.lists(st.sampled_from(BARRIERS), max_size=2)):
        for source in draw(st.sampled_from([SOURCES, SOURCES, (S, A)])):
            place(source, at, barrier(name, at))
    for source in SOURCES:
        for at in draw(st.lists(st.integers(0, 75), max_size=2)):
            placed[source].append((at, heartbeat(at)))
        if draw(st.integers(0, 4)):
            placed[source].append((200, heartbeat(draw(st.sampled_from([40, 70, 120])))))
    return {s: [raw for _, raw in sorted(placed[s], key=lambda pair: pair[0])] for s in SOURCES}


@st.composite
def busy_stories(draw: st.DrawFn) -> Logs:
    """Requests that match, with many actions of several kinds on few items: for label policies."""
    placed: dict[Source, list[tuple[int, bytes]]] = {s: [] for s in SOURCES}
    for request in REQUESTS[: draw(st.integers(1, 2))]:
        shown = draw(st.integers(5, 20))
        scored = shown - draw(st.sampled_from([-1, 0, 1, 2, 3]))
        placed[S].append((scored, snapshot(request, scored)))
        placed[IMP].append((shown, impression(request, shown)))
        for k in range(draw(st.sampled_from([6, 4, 2, 8]))):
            acted = shown + draw(st.sampled_from(ACTED))
            raw = action(request, acted, draw(st.integers(1, 2)), f"{request}{k}", draw(MIXED_KINDS))
            placed[A].append((acted + draw(st.sampled_from([0, 0, 1, 2, 3])), raw))
    for source in SOURCES:
        for at in draw(st.lists(st.integers(5, 45), max_size=2)):
            placed[source].append((at + 2, heartbeat(at)))
    if draw(st.integers(0, 3)) == 0:
        at = draw(st.integers(5, 30))
        for source in SOURCES:
            placed[source].append((at, barrier("busy", at)))
    end = draw(st.sampled_from([None, 30, 100]))
    for source in SOURCES if end else ():
        placed[source].append((end, heartbeat(end)))
    return {s: [raw for _, raw in sorted(placed[s], key=lambda pair: pair[0])] for s in SOURCES}


LOGS = stories()
BUSY_LOGS = busy_stories()
ORDERS = st.lists(st.sampled_from(SOURCES), max_size=40)
