"""What release knows and what it decides: pure, no clock, no I/O.

The state is the `model-releases` log, one Release per key:

| key | record |
|---|---|
| ``<arm>`` | what the arm serves |
| ``generation/<n>`` | a registered full model: its base at sequence 0, its parent |
| ``generation/<n>/<policy>/base/<slot>`` | one of the newest bases of the lineage (n, policy) |
| ``generation/<n>/life`` | where the generation stands (lives.py) |
| ``generation/<n>/<policy>/rollback/<order>`` | an order to take it back, then its outcome (rollbacks.py) |

What is decided (decision.py) is written by the caller, and only when Kafka has acknowledged it are the
records taken into the registry (``take``): what is in the registry stands in the log.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from rec.model.v1 import model_pb2
from services.contract import times
from services.contract.errors import Conflict, NotFound
from services.contract.topics import GENERATION_PREFIX, delta_partition, generation_key
from services.release import checks
from services.release.decision import Decision, Draft, evidence_of

FIRST_POLICY = "online"
ONLINE_ARM = "online"
FROZEN_ARM = "frozen"
# Of arms together; ranking holds a full state per arm.
MAX_ARMS = 32
# Bases of a lineage that may be pointed to: as many as its trainer keeps (trainer.bases.KEEP_BASES).
KNOWN_BASES = 6

LineageId = tuple[int, str]


@dataclass(frozen=True)
class KnownBase:
    """A full state of a lineage, when it was registered, and the key of its record."""

    registered_us: int
    base: model_pb2.BaseRef
    key: str


class Registry:
    """The state folded from the log, and the rules over it."""

    def __init__(self) -> None:
        self.revision = 0
        self._arms: dict[str, model_pb2.Release] = {}
        self._generations: dict[int, model_pb2.Release] = {}
        # Behind the generation's own, oldest first.
        self._bases: dict[LineageId, deque[KnownBase]] = {}
        self._lives: dict[int, model_pb2.Life] = {}
        # By order.
        self._rollbacks: dict[int, model_pb2.Release] = {}

    def take(self, records: Iterable[model_pb2.Release]) -> None:
        """Folds acknowledged records in, in log order."""
        for record in records:
            self.revision = max(self.revision, record.revision)
            lineage = (record.lineage.generation, record.lineage.policy)
            if record.HasField("rollback"):
                self._rollbacks[record.rollback.order] = record
            elif record.HasField("life"):
                self._lives[record.lineage.generation] = record.life
            elif not record.arm.startswith(GENERATION_PREFIX):
                self._arms[record.arm] = record
            elif record.arm == generation_key(record.lineage.generation):
                self._generations[record.lineage.generation] = record
            else:
                known = self._bases.setdefault(lineage, deque(maxlen=KNOWN_BASES))
                known.append(KnownBase(times.to_us(record.decided_at), record.base, record.arm))

    def forget(self, key: str) -> None:
        """Folds a tombstone of the log in."""
        self._arms.pop(key, None)

    @property
    def arms(self) -> list[model_pb2.Release]:
        """By name."""
        return [self._arms[name] for name in sorted(self._arms)]

    @property
    def generations(self) -> list[model_pb2.Release]:
        """By number."""
        return [self._generations[number] for number in sorted(self._generations)]

    def generation(self, number: int) -> model_pb2.Release:
        """The record of a registered full model; NotFound."""
        found = self._generations.get(number)
        if found is None:
            raise NotFound(f"generation {number}: known are {sorted(self._generations) or 'none'}")
        return found

    @property
    def rollbacks(self) -> list[model_pb2.Release]:
        """By order."""
        return [self._rollbacks[order] for order in sorted(self._rollbacks)]

    def life(self, generation: int) -> model_pb2.Life:
        """What was last decided about a generation; empty when nothing was."""
        return self._lives.get(generation, model_pb2.Life())

    def bases(self, lineage: model_pb2.Lineage) -> list[KnownBase]:
        """The full states of a lineage that may be pointed to, oldest first: where it began, and the newest
        ones. NotFound."""
        key = (lineage.generation, lineage.policy)
        self.require_lineage(key)
        began = times.to_us(self._generations[key[0]].decided_at)
        first = KnownBase(began, self._first_base(key), generation_key(key[0]))
        return [first, *self._bases.get(key, ())]

    def known(self, manifest_digest: bytes) -> model_pb2.Release | None:
        """The generation registered under a manifest digest."""
        for record in self._generations.values():
            if record.base.manifest_digest == manifest_digest:
                return record
        return None

    def next_lineage(self) -> LineageId:
        """The lineage that the next generation will start."""
        return max(self._generations, default=0) + 1, FIRST_POLICY

    def register_generation(
        self, manifest_uri: str, manifest_digest: bytes, parent: int, delta_end: int, now_us: int
    ) -> Decision:
        """Gives a full model its number; of the first one also the two default arms.

        ``delta_end`` is the end offset, now, of the partition that ``next_lineage`` lives in: no delta of a
        lineage that does not exist yet stands below it. Raises InvalidInput, NotFound (the parent).
        """
        checks.refuse(
            [
                *checks.bad_uri(manifest_uri, "manifest_uri"),
                *checks.bad_digest(manifest_digest, "manifest_digest"),
            ]
        )
        if existing := self.known(manifest_digest):
            return Decision(existing)
        if parent and parent not in self._generations:
            raise NotFound(f"parent_generation {parent}: known are {sorted(self._generations) or 'none'}")
        number, policy = self.next_lineage()
        lineage = model_pb2.Lineage(generation=number, policy=policy)
        base = model_pb2.BaseRef(
            manifest_uri=manifest_uri,
            manifest_digest=manifest_digest,
            sequence=0,
            chain_hash=manifest_digest,
            delta_partition=delta_partition(number, policy),
            delta_offset=delta_end,
        )
        draft = Draft(self.revision, now_us)
        answer = draft.add(
            model_pb2.Release(
                arm=generation_key(number), lineage=lineage, base=base, parent_generation=parent
            ),
            "generation_registered",
            parent_generation=parent,
        )
        if number == 1:
            serving = model_pb2.RELEASE_STATE_SERVING
            online = model_pb2.Release(arm=ONLINE_ARM, lineage=lineage, base=base, state=serving)
            draft.add(online, "arm_created", because="first generation")
            frozen = model_pb2.Release(
                arm=FROZEN_ARM, lineage=lineage, base=base, pinned_sequence=0, state=serving
            )
            draft.add(frozen, "arm_created", because="first generation")
        return draft.decided(answer)

    def register_base(self, lineage: model_pb2.Lineage, base: model_pb2.BaseRef, now_us: int) -> Decision:
        """Records a newer full state and moves the arms there that follow the lineage or are pinned above.

        Raises InvalidInput, NotFound (the lineage), Conflict (older than the known base, or another state at
        the same sequence). The same base again is a repeat without effect.
        """
        key = (lineage.generation, lineage.policy)
        self.require_lineage(key)
        checks.refuse(checks.bad_base(base, delta_partition(*key)))
        known = self.bases(lineage)[-1].base
        if (base.sequence, base.manifest_digest) == (known.sequence, known.manifest_digest):
            return Decision(model_pb2.Release(revision=self.revision))
        older = base.epoch < known.epoch or base.delta_offset < known.delta_offset
        if older or base.sequence <= known.sequence:
            raise Conflict(
                f"base at sequence {base.sequence}, epoch {base.epoch}, offset {base.delta_offset} of "
                f"{key[0]}/{key[1]} is not newer than the known one at sequence {known.sequence}, "
                f"epoch {known.epoch}, offset {known.delta_offset}"
            )
        draft = Draft(self.revision, now_us)
        draft.add(
            model_pb2.Release(arm=self._base_key(key), lineage=lineage, base=base),
            "base_registered",
            known_sequence=known.sequence,
        )
        for arm in self.arms:
            pinned_below = arm.HasField("pinned_sequence") and arm.pinned_sequence < base.sequence
            if arm.lineage == lineage and not pinned_below:
                moved = model_pb2.Release()
                moved.CopyFrom(arm)
                moved.base.CopyFrom(base)
                draft.add(moved, "base_registered", from_sequence=arm.base.sequence)
        return draft.decided(draft.records[-1])

    def set_arm(
        self,
        name: str,
        lineage: model_pb2.Lineage,
        pinned: int | None,
        state: model_pb2.ReleaseState,
        now_us: int,
        *,
        delta_end: int = 0,
    ) -> Decision:
        """Points an arm to a lineage (its newest base) or to a sequence of it (the newest base not above).

        An arm that follows another policy of a generation begins that lineage, at the full model:
        ``delta_end`` is then the end offset, now, of the partition that it will live in. Raises InvalidInput,
        NotFound (the lineage), Conflict (`online` must serve; too many arms).
        """
        wanted = self.pointed(name, lineage, pinned, state, delta_end)
        before = self._arms.get(name)
        if before is not None and _same_wish(before, wanted):
            return Decision(before)
        draft = Draft(self.revision, now_us)
        if not self._known((lineage.generation, lineage.policy)):
            key = self._base_key((lineage.generation, lineage.policy))
            draft.add(model_pb2.Release(arm=key, lineage=lineage, base=wanted.base), "lineage_begun")
        draft.add(wanted, "arm_set", before=None if before is None else evidence_of(before))
        return draft.decided(wanted)

    def pointed(
        self,
        name: str,
        lineage: model_pb2.Lineage,
        pinned: int | None,
        state: model_pb2.ReleaseState,
        delta_end: int = 0,
    ) -> model_pb2.Release:
        """The record of ``set_arm``, with its errors."""
        key = (lineage.generation, lineage.policy)
        checks.refuse([*checks.bad_arm(name, state), *checks.bad_policy(key[1])])
        begins = pinned is None and key[0] in self._generations and not self._known(key)
        if not begins:
            self.require_lineage(key)
        if name == ONLINE_ARM and state != model_pb2.RELEASE_STATE_SERVING:
            raise Conflict(f"arm {ONLINE_ARM} answers requests that name no arm: it must stay SERVING")
        if name not in self._arms and len(self._arms) >= MAX_ARMS:
            raise Conflict(f"{len(self._arms)} arms exist; at most {MAX_ARMS} are allowed")
        if begins:
            first = self._first_base(key)
            first.delta_offset = delta_end
            bases = [first]
        else:
            bases = [one.base for one in self.bases(lineage)]
        base = next(one for one in reversed(bases) if pinned is None or one.sequence <= pinned)
        return model_pb2.Release(arm=name, lineage=lineage, base=base, pinned_sequence=pinned, state=state)

    def _known(self, key: LineageId) -> bool:
        return key[0] in self._generations and (key[1] == FIRST_POLICY or key in self._bases)

    def _base_key(self, key: LineageId) -> str:
        """Of the lineage's next base: a slot that is free, else that of the oldest one, which it replaces
        when the log is compacted."""
        known = self._bases.get(key, deque())
        if len(known) == KNOWN_BASES:
            return known[0].key
        return f"{generation_key(key[0])}/{key[1]}/base/{len(known)}"

    def _first_base(self, key: LineageId) -> model_pb2.BaseRef:
        """The full model, where the lineage's own chain begins: of another policy than the first anywhere
        in its partition, since what others wrote there is skipped."""
        base = model_pb2.BaseRef()
        base.CopyFrom(self._generations[key[0]].base)
        if key[1] != FIRST_POLICY:
            base.delta_partition, base.delta_offset = delta_partition(*key), 0
        return base

    def require_lineage(self, key: LineageId) -> None:
        """NotFound unless a generation or an arm has begun it."""
        if not self._known(key):
            lineages = {(number, FIRST_POLICY) for number in self._generations} | set(self._bases)
            known = [f"{number}/{policy}" for number, policy in sorted(lineages)]
            raise NotFound(f"lineage {key[0]}/{key[1][:64]}: known are {', '.join(known) or 'none'}")


def _same_wish(one: model_pb2.Release, other: model_pb2.Release) -> bool:
    return (
        one.lineage == other.lineage
        and one.base == other.base
        and one.state == other.state
        and one.standing_share == other.standing_share
        and one.HasField("pinned_sequence") == other.HasField("pinned_sequence")
        and one.pinned_sequence == other.pinned_sequence
    )
