"""The rules of release over its log's state."""

from __future__ import annotations

import json

import pytest

from rec.model.v1 import model_pb2
from services.contract.errors import Conflict, InvalidInput, NotFound
from services.contract.topics import delta_partition
from services.release.decision import Decision
from services.release.registry import Registry
from services.release.rollbacks import report_rollback, roll_back

ONLINE = model_pb2.Lineage(generation=1, policy="online")


def digest(byte: int) -> bytes:
    return bytes([byte]) * 32


def register(registry: Registry, byte: int = 1, parent: int = 0) -> Decision:
    return registry.register_generation(f"store/g{byte}", digest(byte), parent, 40 + byte, now_us=1_000)


def taken(registry: Registry, decision: Decision) -> Decision:
    registry.take(decision.records)
    return decision


def with_first() -> Registry:
    registry = Registry()
    taken(registry, register(registry))
    return registry


def base_at(sequence: int, **changes: object) -> model_pb2.BaseRef:
    base = model_pb2.BaseRef(
        manifest_uri=f"store/base-{sequence}",
        manifest_digest=digest(100 + sequence % 100),
        sequence=sequence,
        chain_hash=digest(9),
        epoch=1,
        delta_partition=delta_partition(1, "online"),
        delta_offset=1_000 + sequence,
    )
    for name, value in changes.items():
        setattr(base, name, value)
    return base


def arm(registry: Registry, name: str) -> model_pb2.Release:
    return next(release for release in registry.arms if release.arm == name)


def test_first_generation_is_number_one_and_creates_the_two_default_arms() -> None:
    registry = with_first()
    assert [(r.arm, r.lineage.generation) for r in registry.generations] == [("generation/1", 1)]
    online, frozen = arm(registry, "online"), arm(registry, "frozen")
    assert not online.HasField("pinned_sequence")
    assert frozen.HasField("pinned_sequence") and frozen.pinned_sequence == 0
    assert online.base == frozen.base


def test_base_of_a_generation_starts_the_chain_at_its_manifest_and_the_end_of_the_partition() -> None:
    base = Registry().register_generation("u", digest(1), 0, 77, 5).answer.base
    assert (base.sequence, base.epoch, base.chain_hash, base.delta_offset) == (0, 0, digest(1), 77)
    assert base.delta_partition == delta_partition(1, "online")


def test_registering_the_same_manifest_again_answers_the_same_number_without_a_record() -> None:
    registry = with_first()
    again = register(registry)
    assert again.answer.lineage.generation == 1
    assert not again.records and not again.events


def test_later_generations_count_on_and_move_no_arm() -> None:
    registry = with_first()
    decision = taken(registry, register(registry, byte=2, parent=1))
    assert decision.answer.lineage.generation == 2
    assert decision.answer.parent_generation == 1
    assert [record.arm for record in decision.records] == ["generation/2"]
    assert arm(registry, "online").lineage.generation == 1


def test_unknown_parent_is_not_found() -> None:
    with pytest.raises(NotFound, match="parent_generation 7"):
        register(Registry(), parent=7)


def test_every_bad_field_of_a_registration_is_named_at_once() -> None:
    with pytest.raises(InvalidInput) as raised:
        Registry().register_generation("", b"short", 0, 0, 0)
    assert {v.field for v in raised.value.violations} == {"manifest_uri", "manifest_digest"}


def test_newer_base_moves_the_arms_that_follow_and_not_the_frozen_one() -> None:
    registry = with_first()
    taken(registry, registry.register_base(ONLINE, base_at(50), now_us=2))
    assert arm(registry, "online").base.sequence == 50
    assert arm(registry, "frozen").base.sequence == 0


def test_arm_pinned_at_or_above_a_base_gets_the_base_but_stays_pinned() -> None:
    registry = with_first()
    taken(registry, registry.set_arm("canary", ONLINE, 60, model_pb2.RELEASE_STATE_SHADOW, 1))
    taken(registry, registry.register_base(ONLINE, base_at(60), now_us=2))
    assert (arm(registry, "canary").base.sequence, arm(registry, "canary").pinned_sequence) == (60, 60)


@pytest.mark.parametrize(
    "base",
    [
        base_at(40),
        base_at(50, manifest_digest=digest(3)),
        base_at(60, epoch=0),
        base_at(60, delta_offset=10),
    ],
    ids=["older sequence", "other state at the same sequence", "older epoch", "older offset"],
)
def test_base_that_is_not_newer_is_a_conflict(base: model_pb2.BaseRef) -> None:
    registry = with_first()
    taken(registry, registry.register_base(ONLINE, base_at(50), now_us=2))
    with pytest.raises(Conflict, match="not newer"):
        registry.register_base(ONLINE, base, now_us=3)


def test_same_base_again_is_a_repeat_without_effect() -> None:
    registry = with_first()
    taken(registry, registry.register_base(ONLINE, base_at(50), now_us=2))
    again = registry.register_base(ONLINE, base_at(50), now_us=3)
    assert not again.records and again.answer.revision == registry.revision


@pytest.mark.parametrize("lineage", [(2, "online"), (1, "daily"), (0, "")])
def test_base_of_an_unknown_lineage_is_not_found(lineage: tuple[int, str]) -> None:
    wanted = model_pb2.Lineage(generation=lineage[0], policy=lineage[1])
    with pytest.raises(NotFound, match="known are 1/online"):
        with_first().register_base(wanted, base_at(5), now_us=1)


def test_bad_base_fields_are_named_at_once() -> None:
    bad = base_at(
        5, manifest_digest=b"x", chain_hash=b"", delta_partition=99, manifest_uri="", delta_offset=-1
    )
    with pytest.raises(InvalidInput) as raised:
        with_first().register_base(ONLINE, bad, now_us=1)
    assert len(raised.value.violations) == 5


def test_arm_set_back_to_a_lineage_gets_the_newest_base_that_its_pin_allows() -> None:
    registry = with_first()
    taken(registry, registry.register_base(ONLINE, base_at(50), now_us=2))
    serving = model_pb2.RELEASE_STATE_SERVING
    assert registry.set_arm("a", ONLINE, None, serving, 3).answer.base.sequence == 50
    assert registry.set_arm("a", ONLINE, 50, serving, 3).answer.base.sequence == 50
    assert registry.set_arm("a", ONLINE, 49, serving, 3).answer.base.sequence == 0


@pytest.mark.parametrize("name", ["", "generation/1", "Online", "a" * 33, "a b"])
def test_bad_arm_names_are_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match="arm="):
        with_first().set_arm(name, ONLINE, None, model_pb2.RELEASE_STATE_SERVING, 1)


def test_default_arm_may_not_stop_serving() -> None:
    with pytest.raises(Conflict, match="must stay SERVING"):
        with_first().set_arm("online", ONLINE, None, model_pb2.RELEASE_STATE_RETIRED, 1)


def test_revisions_grow_with_every_record_and_survive_a_replay_of_the_compacted_log() -> None:
    registry = with_first()
    log = {release.arm: release for release in register(Registry()).records}
    for decision in (
        registry.register_base(ONLINE, base_at(50), 2),
        register(registry, byte=2),
    ):
        taken(registry, decision)
        log |= {release.arm: release for release in decision.records}
    replayed = Registry()
    replayed.take(sorted(log.values(), key=lambda release: release.revision))
    assert replayed.revision == registry.revision
    assert replayed.arms == registry.arms and replayed.generations == registry.generations
    with pytest.raises(Conflict):
        replayed.register_base(ONLINE, base_at(49), 9)


def test_every_record_has_an_event_with_evidence() -> None:
    decision = register(Registry())
    assert [event.revision for event in decision.events] == [1, 2, 3]
    assert [event.decision for event in decision.events] == [
        "generation_registered",
        "arm_created",
        "arm_created",
    ]
    evidence = json.loads(decision.events[0].evidence_json)
    assert evidence["manifest_digest"] == digest(1).hex()


HOURLY = model_pb2.Lineage(generation=1, policy="hourly")
SERVING = model_pb2.RELEASE_STATE_SERVING


def test_an_arm_that_follows_another_policy_begins_its_lineage_at_the_full_model() -> None:
    registry = with_first()
    decision = taken(registry, registry.set_arm("hourly", HOURLY, None, SERVING, 5, delta_end=77))
    assert [event.decision for event in decision.events] == ["lineage_begun", "arm_set"]
    assert [record.arm for record in decision.records] == ["generation/1/hourly/base/0", "hourly"]
    base, full = arm(registry, "hourly").base, registry.generations[0].base
    assert (base.manifest_uri, base.chain_hash) == (full.manifest_uri, full.chain_hash)
    where = delta_partition(1, "hourly")
    assert (base.sequence, base.delta_partition, base.delta_offset) == (0, where, 77)
    # Known from now on: a second arm begins nothing, and its offset decides nothing.
    again = taken(registry, registry.set_arm("other", HOURLY, None, SERVING, 6, delta_end=99))
    assert [event.decision for event in again.events] == ["arm_set"]
    assert arm(registry, "other").base == base
    newer = base_at(5, delta_partition=where)
    taken(registry, registry.register_base(HOURLY, newer, 7))
    assert arm(registry, "hourly").base == arm(registry, "other").base == newer
    # What was there before the newest base is read from where the lineage began, as long as that is known.
    pinned = registry.set_arm("pin", HOURLY, 3, SERVING, 8, delta_end=99).answer.base
    assert (pinned.sequence, pinned.delta_partition, pinned.delta_offset) == (0, where, 77)
    for sequence in range(6, 12):
        taken(registry, registry.register_base(HOURLY, base_at(sequence, delta_partition=where), 7))
    pinned = registry.set_arm("pin", HOURLY, 3, SERVING, 8, delta_end=99).answer.base
    assert (pinned.sequence, pinned.delta_partition, pinned.delta_offset) == (0, where, 0)
    assert arm(registry, "online").base == full


def test_a_lineage_that_does_not_exist_cannot_be_pinned_and_a_bad_policy_is_named() -> None:
    registry = with_first()
    with pytest.raises(NotFound, match="1/hourly: known are 1/online"):
        registry.set_arm("pin", HOURLY, 3, SERVING, 5)
    for policy in ("", "Hourly", "a/b", "x" * 33):
        with pytest.raises(InvalidInput, match=r"lineage\.policy"):
            registry.set_arm("x", model_pb2.Lineage(generation=1, policy=policy), None, SERVING, 5)


def wish(to_sequence: int = 5, reason: str = "poison") -> model_pb2.Rollback:
    return model_pb2.Rollback(to_sequence=to_sequence, reason=reason)


def outcome(registry: Registry, **changes: object) -> model_pb2.Rollback:
    told = model_pb2.Rollback()
    told.CopyFrom(registry.rollbacks[-1].rollback)
    told.ClearField("done")
    if "error" not in changes:
        told.done.order, told.done.restored_sequence = told.order, 5
        told.done.quarantined.add(partition=1, start=10, end=20)
        told.sequence, told.epoch, told.rows = 9, 2, 33
        told.published_at.FromMicroseconds(1_500_000)
    for name, value in changes.items():
        setattr(told, name, value)
    return told


def test_a_rollback_is_ordered_once_and_its_outcome_kept_with_its_evidence() -> None:
    registry = with_first()
    ordered = taken(registry, roll_back(registry, ONLINE, wish(), now_us=1_000_000))
    assert ordered.answer.rollback.order == ordered.answer.revision
    assert ordered.answer.arm == f"generation/1/online/rollback/{ordered.answer.revision}"
    assert roll_back(registry, ONLINE, wish(), now_us=2_000_000).records == ()
    with pytest.raises(Conflict, match="no outcome yet"):
        roll_back(registry, ONLINE, wish(to_sequence=4), now_us=2_000_000)
    done = taken(registry, report_rollback(registry, ONLINE, outcome(registry), now_us=3_000_000))
    evidence = json.loads(done.events[0].evidence_json)
    assert done.events[0].decision == "rolled_back"
    assert evidence["published_s"] == 0.5
    assert evidence["quarantined"] == [[1, 10, 20]]
    assert report_rollback(registry, ONLINE, outcome(registry), now_us=3_000_000).records == ()
    with pytest.raises(Conflict, match="another outcome"):
        report_rollback(registry, ONLINE, outcome(registry, sequence=10), now_us=3_000_000)
    taken(registry, roll_back(registry, ONLINE, wish(), now_us=4_000_000))
    assert [record.rollback.HasField("done") for record in registry.rollbacks] == [True, False]
    # What the arms serve is not touched: the difference comes as a delta.
    assert arm(registry, "online").base.sequence == 0


def test_a_rollback_that_cannot_be_carried_out_says_why() -> None:
    registry = with_first()
    taken(registry, roll_back(registry, ONLINE, wish(), now_us=1_000_000))
    failed = taken(
        registry, report_rollback(registry, ONLINE, outcome(registry, error="no base"), now_us=2_000_000)
    )
    assert (failed.events[0].decision, failed.answer.rollback.error) == ("rollback_failed", "no base")
    assert roll_back(registry, ONLINE, wish(), now_us=3_000_000).records


@pytest.mark.parametrize(
    ("bad", "field"),
    [
        (model_pb2.Rollback(reason="why"), "target"),
        (model_pb2.Rollback(to_sequence=1), "reason"),
        (model_pb2.Rollback(to_sequence=1, reason="x" * 501), "reason"),
        (model_pb2.Rollback(to_time={"seconds": 50}, reason="why"), "to_time"),
    ],
)
def test_a_rollback_to_nowhere_is_refused_by_field(bad: model_pb2.Rollback, field: str) -> None:
    with pytest.raises(InvalidInput, match=field):
        roll_back(with_first(), ONLINE, bad, now_us=40_000_000)


def test_orders_and_outcomes_of_nothing_are_refused() -> None:
    registry = with_first()
    with pytest.raises(NotFound):
        roll_back(registry, model_pb2.Lineage(generation=3, policy="online"), wish(), now_us=1)
    with pytest.raises(NotFound):
        report_rollback(registry, ONLINE, model_pb2.Rollback(order=99, error="x"), now_us=1)
    taken(registry, roll_back(registry, ONLINE, wish(), now_us=1_000_000))
    with pytest.raises(InvalidInput, match="lineage=1/hourly: 1/online, whose order it is"):
        report_rollback(registry, HOURLY, outcome(registry, error="x"), now_us=1)
    with pytest.raises(InvalidInput, match="lineage"):
        report_rollback(registry, model_pb2.Lineage(), outcome(registry, error="x"), now_us=1)
    with pytest.raises(InvalidInput, match="either done or error"):
        report_rollback(
            registry, ONLINE, model_pb2.Rollback(order=registry.rollbacks[0].rollback.order), now_us=1
        )
