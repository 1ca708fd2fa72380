"""Orders to take a lineage back, and what came of them, as decisions. Pure.

release orders, the lineage's trainer carries out and tells: done, or why not. One order of a lineage is open
at a time.
"""

from __future__ import annotations

from rec.model.v1 import model_pb2
from services.contract import times
from services.contract.errors import Conflict, NotFound
from services.contract.topics import generation_key
from services.release import checks
from services.release.decision import Decision, Draft
from services.release.registry import Registry


def roll_back(
    registry: Registry, lineage: model_pb2.Lineage, wish: model_pb2.Rollback, now_us: int, **evidence: object
) -> Decision:
    """Orders a lineage's trainer to take it back to ``wish``'s target. The same wish while its order is
    open is a repeat.

    Raises InvalidInput (no target, or one in the future), NotFound (the lineage), Conflict (another order
    of the lineage is open).
    """
    checks.refuse(checks.bad_target(wish, now_us))
    key = (lineage.generation, lineage.policy)
    registry.require_lineage(key)
    for record in registry.rollbacks:
        known = record.rollback
        if record.lineage != lineage or has_outcome(known):
            continue
        if (known.to_sequence, known.to_time) == (wish.to_sequence, wish.to_time):
            return Decision(record)
        raise Conflict(f"order {known.order} of {key[0]}/{key[1]} has no outcome yet")
    order = model_pb2.Rollback()
    order.CopyFrom(wish)
    order.order = registry.revision + 1
    times.set_us(order.ordered_at, now_us)
    record = model_pb2.Release(
        arm=f"{generation_key(key[0])}/{key[1]}/rollback/{order.order}", lineage=lineage, rollback=order
    )
    draft = Draft(registry.revision, now_us)
    return draft.decided(draft.add(record, "rollback_ordered", **_rollback_evidence(order), **evidence))


def report_rollback(
    registry: Registry, lineage: model_pb2.Lineage, outcome: model_pb2.Rollback, now_us: int
) -> Decision:
    """Takes the outcome of an order from the trainer of its ``lineage``; told again it is a repeat. NotFound,
    InvalidInput (another lineage's order), Conflict (another outcome)."""
    orders = {one.rollback.order: one for one in registry.rollbacks}
    record = orders.get(outcome.order)
    if record is None:
        raise NotFound(f"order {outcome.order}: known are {sorted(orders) or 'none'}")
    checks.refuse([*checks.bad_teller(lineage, record.lineage), *checks.bad_outcome(outcome)])
    if has_outcome(record.rollback):
        known = record.rollback
        if (known.done, known.sequence, known.error) == (outcome.done, outcome.sequence, outcome.error):
            return Decision(record)
        raise Conflict(f"order {outcome.order} has another outcome already")
    told = model_pb2.Release(arm=record.arm, lineage=record.lineage, rollback=record.rollback)
    told.rollback.MergeFrom(outcome)
    draft = Draft(registry.revision, now_us)
    name = "rollback_failed" if outcome.error else "rolled_back"
    return draft.decided(draft.add(told, name, **_rollback_evidence(told.rollback)))


def has_outcome(order: model_pb2.Rollback) -> bool:
    """Whether its trainer has told what came of it."""
    return order.HasField("done") or bool(order.error)


def _rollback_evidence(order: model_pb2.Rollback) -> dict[str, object]:
    to_time = times.to_us(order.to_time) if order.HasField("to_time") else None
    found: dict[str, object] = {
        "order": order.order,
        "to_sequence": order.to_sequence if to_time is None else None,
        "to_time_us": to_time,
        "reason": order.reason,
    }
    if order.error:
        return found | {"error": order.error}
    if not order.HasField("done"):
        return found
    return found | {
        "restored_sequence": order.done.restored_sequence,
        "sequence": order.sequence,
        "epoch": order.epoch,
        "rows": order.rows,
        "published_s": (times.to_us(order.published_at) - times.to_us(order.ordered_at)) / times.MICROS,
        "quarantined": [[one.partition, one.start, one.end] for one in order.done.quarantined],
    }
