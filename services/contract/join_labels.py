"""What its actions make of an item's label, and which negatives are kept."""

from __future__ import annotations

from services.contract.ids import hash_key, sample_id
from services.contract.join_config import LabelRule, Reducer


class Label:
    """``value`` in (0, 1]; ``acted_us``: event time of the last action that changed it."""

    __slots__ = ("acted_us", "priority", "value")

    def __init__(self, value: float, priority: int, acted_us: int) -> None:
        self.value = value
        self.priority = priority
        self.acted_us = acted_us


def labelled(reducer: Reducer, before: Label | None, rule: LabelRule, acted_us: int) -> Label:
    """The label after one more action, of the kind that ``rule`` is for.

    The order of the actions matters to ``any`` (the first decides) and to ``acted_us``."""
    if before is None:
        return Label(rule.label, rule.priority, acted_us)
    if rule.priority < before.priority:
        return before
    if rule.priority > before.priority:
        value = rule.label
    elif reducer == "max":
        value = max(before.value, rule.label)
    elif reducer == "sum":
        value = min(before.value + rule.label, 1.0)
    else:
        value = before.value
    return Label(value, rule.priority, before.acted_us if value == before.value else acted_us)


def keeps_negative(request_id: str, item_id: int, keep_below: int) -> bool:
    """The same for every run and every host (``JoinConfig.keep_below``)."""
    return hash_key(sample_id(request_id, item_id)) < keep_below
