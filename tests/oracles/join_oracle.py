"""The join again, slow and plain: looks at three whole logs at once, no state, no watermark heap.

Answers what a join that has consumed exactly these logs has said, as a multiset of canonical tuples.
"""

from __future__ import annotations

import struct
from collections import Counter
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import xxhash
from oracles.join_logs import IMP, A, Logs, S

from services.contract.join_config import JoinConfig
from services.contract.join_events import Malformed, Source, decode
from services.contract.times import to_us

BEGINNING = -(10**18)


@dataclass
class Judged:
    """A record with what its own log says about it."""

    offset: int
    event: Any
    at: int
    floor: int
    status: str = "accepted"


@dataclass
class Judgement:
    """One log."""

    records: list[Judged] = field(default_factory=list)
    barriers: list[str] = field(default_factory=list)
    said: Counter = field(default_factory=Counter)
    clock: int = BEGINNING
    floor: int = BEGINNING


def reject(said: Counter, reason: str, where: tuple[Source, int], items: int = 0, ids: bytes = b"") -> None:
    said["rejected", reason, int(where[0]), where[1], items, ids] += 1


def judge(config: JoinConfig, source: Source, log: list[bytes]) -> Judgement:
    """Lateness, repeats, seconds: by this log alone."""
    memory = max(config.window_us, config.show_us) + 2 * config.bound_us
    j = Judgement()
    for offset, raw in enumerate(log):
        try:
            name, _, event = decode(source, raw, config.max_items)
        except Malformed as error:
            reject(j.said, "malformed", (source, offset), error.items)
            continue
        at = to_us(event.occurred_at)
        threshold = max(j.clock - config.bound_us, j.floor)
        if name == "barrier":
            j.barriers.append(event.barrier_id)
            j.floor = max(j.floor, at)
        elif name != "heartbeat":
            items = len(event.item_ids) if source is IMP else 0
            record = Judged(offset, event, at, j.floor)
            known = [r for r in j.records if r.status in {"accepted", "second"}]
            same_request = [r for r in known if r.event.request_id == event.request_id]
            repeats = [
                r
                for r in (known if source is A else same_request)
                if (r.event.event_id, r.at) == (event.event_id, at) and threshold <= at + memory
            ]
            firsts = [r for r in same_request if r.status == "accepted" and threshold <= r.at + memory]
            if repeats:
                record.status = "repeat"
            elif at < threshold:
                record.status = "late"
                reject(j.said, "late", (source, offset), items)
            elif source is not A and firsts:
                record.status = "second"
                second = "second_impression" if source is IMP else "second_snapshot"
                reject(j.said, second, (source, offset), items)
            j.records.append(record)
        j.clock = max(j.clock, at)
    j.records = [r for r in j.records if r.status == "accepted"]
    return j


def joined(config: JoinConfig, logs: Logs) -> Counter:
    """Everything said, as canonical tuples (join_logs.canonical) with their counts."""
    inputs = {source: judge(config, source, logs[source]) for source in (S, IMP, A)}
    said: Counter = Counter()
    for j in inputs.values():
        said += j.said
    complete = min(max(j.clock - config.bound_us, j.floor) for j in inputs.values())
    floor = min(j.floor for j in inputs.values())
    for name in set.intersection(*(set(j.barriers) for j in inputs.values())):
        said["barrier", name] += 1
    windows = {r.kind: config.window_us if r.window_us is None else r.window_us for r in config.labels}
    explained: set[int] = set()
    for shown in inputs[IMP].records:
        closed = complete > shown.at + config.window_us or shown.at < floor
        snaps = [
            s
            for s in inputs[S].records
            if s.event.request_id == shown.event.request_id
            and shown.at - config.show_us <= s.at <= shown.at + config.bound_us
            and shown.at >= s.floor
        ]
        assert len(snaps) <= 1
        about = [
            a
            for a in inputs[A].records
            if a.event.kind in windows
            and a.event.request_id == shown.event.request_id
            and a.at >= max(shown.at - config.bound_us, shown.floor)
            and a.at <= shown.at + max(config.window_us, config.show_us) + config.bound_us
        ]
        assert not explained & {a.offset for a in about}
        explained |= {a.offset for a in about}
        early = closed or complete > shown.at + config.early_negative_us
        one = Shown(shown, snaps[0] if snaps else None, closed, early)
        say_items(config, said, one, say_actions(said, one, about, windows))
    for a in inputs[A].records:
        if a.event.kind not in windows:
            reject(said, "no_label_rule", (A, a.offset))
        elif a.offset not in explained and (complete > a.at + config.bound_us or a.at < floor):
            reject(said, "no_impression", (A, a.offset))
    return said


@dataclass
class Shown:
    """An impression with its snapshot."""

    shown: Judged
    snap: Judged | None
    closed: bool
    # Its early negative is due.
    early: bool

    @property
    def ids(self) -> list[int]:
        """What was shown."""
        return list(self.shown.event.item_ids)

    @property
    def served(self) -> dict[int, int]:
        """Item -> row of the snapshot."""
        if self.snap is None:
            return {}
        ids = self.snap.event.item_ids
        return {item: k for k, item in enumerate(struct.unpack(f"<{len(ids) // 8}Q", ids))}

    def sample(self, rows: list[tuple[int, float]], acted: int | None, version: int, rate: float) -> tuple:
        """The canonical tuple of one sample record, of (item, label)."""
        assert self.snap is not None
        places = list(self.shown.event.positions) or list(range(len(self.ids)))
        e = self.snap.event
        cut = tuple(
            (
                item,
                float32(label),
                places[self.ids.index(item)],
                struct.unpack_from("<f", e.scores, 4 * self.served[item])[0],
                e.item_features[8 * self.served[item] : 8 * self.served[item] + 8],
                version,
                float32(rate),
            )
            for item, label in rows
        )
        return ("sample", e.request_id, self.snap.at, self.shown.at, acted, cut)


def float32(value: float) -> float:
    """As it travels."""
    return struct.unpack("<f", struct.pack("<f", value))[0]


def say_actions(
    said: Counter, one: Shown, about: list[Judged], windows: dict[int, int]
) -> dict[int, list[Judged]]:
    """Rejects the actions about one impression that count for nothing; item -> those that count, in order."""
    counting: dict[int, list[Judged]] = {}
    for a in about:
        item = a.event.item_id
        reason = ""
        if a.at > one.shown.at + windows[a.event.kind] or one.shown.at < a.floor:
            reason = "after_window"
        elif item not in one.ids:
            reason = "not_impressed"
        elif one.shown.event.unscored:
            reason = "unscored"
        elif one.snap is None:
            reason = "snapshot_lost" if one.closed else "wait"
        elif item not in one.served:
            reason = "not_in_snapshot"
        else:
            counting.setdefault(item, []).append(a)
        if reason not in {"", "wait"}:
            reject(said, reason, (A, a.offset))
    return counting


def label_of(config: JoinConfig, actions: list[Judged]) -> float:
    """The label that some actions on an item give, by the definition."""
    rules = {r.kind: r for r in config.labels}
    top = max(rules[a.event.kind].priority for a in actions)
    labels = [rules[a.event.kind].label for a in actions if rules[a.event.kind].priority == top]
    if config.reducer == "max":
        return max(labels)
    return labels[0] if config.reducer == "any" else min(1.0, sum(labels))


def changes(config: JoinConfig, said: Counter, actions: list[Judged]) -> list[tuple[float, int]]:
    """(label, time) after each action that changed the label; the others are rejected."""
    found: list[tuple[float, int]] = []
    for k, a in enumerate(actions):
        label = label_of(config, actions[: k + 1])
        if k and label == label_of(config, actions[:k]):
            reject(said, "already_labelled", (A, a.offset))
        else:
            found.append((label, a.at))
    return found


def kept(config: JoinConfig, request: str, item: int) -> bool:
    """The negative survives the sampling."""
    digest = xxhash.xxh64(f"{request}:{item}".encode(), seed=0).digest()
    return Fraction(int.from_bytes(digest, "big"), 2**64) < Fraction(config.negative_rate)


def say_items(config: JoinConfig, said: Counter, one: Shown, counting: dict[int, list[Judged]]) -> None:
    """What becomes of each shown item."""
    where = (IMP, one.shown.offset)
    if one.shown.event.unscored:
        reject(said, "unscored", where, len(one.ids))
        return
    if one.snap is None:
        if one.closed:
            reject(said, "snapshot_lost", where, len(one.ids))
        return
    absent = [item for item in one.ids if item not in one.served]
    if absent:
        reject(said, "not_in_snapshot", where, len(absent), struct.pack(f"<{len(absent)}Q", *absent))
    say = say_correcting if config.emission == "correcting" else say_final
    negative = [
        item
        for item in one.ids
        if item in one.served and say(config, said, one, item, counting.get(item, []))
    ]
    dropped = [item for item in negative if not kept(config, one.shown.event.request_id, item)]
    rest = [item for item in negative if item not in dropped]
    if rest:
        said[one.sample([(item, 0.0) for item in rest], None, 0, config.negative_rate)] += 1
    if config.emission == "correcting":
        dropped = [item for item in dropped if item not in counting]
    if dropped and one.closed:
        reject(said, "sampled_out", where, len(dropped), struct.pack(f"<{len(dropped)}Q", *dropped))


def say_final(config: JoinConfig, said: Counter, one: Shown, item: int, actions: list[Judged]) -> bool:
    """Says an item's positive; True when it is a negative by now."""
    at_once = config.reducer == "any" and len({r.priority for r in config.labels}) == 1
    if actions and (at_once or one.closed):
        label, at = changes(config, said, actions)[-1]
        said[one.sample([(item, label)], at, 0, 1.0)] += 1
    return one.closed and not actions


def say_correcting(config: JoinConfig, said: Counter, one: Shown, item: int, actions: list[Judged]) -> bool:
    """Says an item's positives; True when its early negative is due (what the sampling keeps of it)."""
    due = one.shown.at + config.early_negative_us
    first = [a for a in actions if a.at <= due]
    later = [a for a in actions if a.at > due] if one.early else []
    negative = one.early and not first
    version = int(negative and kept(config, one.shown.event.request_id, item))
    for label, at in changes(config, said, first + later):
        said[one.sample([(item, label)], at, version, 1.0)] += 1
        version += 1
    return negative
