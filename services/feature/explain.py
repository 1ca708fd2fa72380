"""Where the values of one user and one item come from. Pure; by the reference encoding, not the fast one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rec.v1.feature_pb2 import (
    ExplainedFeature,
    ExplainedTiles,
    ExplainFeaturesRequest,
    ExplainFeaturesResponse,
)
from services.contract import features, times
from services.contract.errors import InvalidInput
from services.contract.feature_view import FeatureView
from services.contract.view_aggregates import Instant, LastK
from services.contract.view_plan import Slot, plan_of
from services.contract.view_registry import FeatureSet, ViewColumn
from services.contract.view_state import ViewState
from services.feature.catalogue import duration

MAX_FEATURES = 256
NOTE = "states in Redis hold numbers, no event ids: LakeService.ExplainHistoricalFeature names the events"
Wanted = list[tuple[FeatureView, bytes]]


@dataclass(frozen=True)
class Asked:
    """One user, one item, a moment of event time, and columns."""

    user_id: int
    item_id: int
    at_us: int
    columns: Sequence[ViewColumn]

    @property
    def items(self) -> Any:
        """[1] uint64."""
        return np.array([self.item_id], np.uint64)

    def item_keys(self, feature_set: FeatureSet) -> Wanted:
        """What must be known before the category is."""
        view = feature_set.catalogue
        return [(view, entity) for entity in features.entities(view, {"item_id": self.items})]

    def other_keys(self, feature_set: FeatureSet, states: features.States) -> Wanted:
        """All other states."""
        first = self.item_keys(feature_set)
        known = [states.get((view.name, entity)) for view, entity in first]
        category = features.categories(feature_set, known, self.at_us)
        return [
            one
            for one in features.needed(feature_set, self.user_id, self.items, category)
            if one not in first
        ]


def parse(request: ExplainFeaturesRequest, feature_set: FeatureSet, now_us: int) -> Asked:
    """InvalidInput; NotFound when a column is none of the set."""
    if len(request.features) > MAX_FEATURES:
        raise InvalidInput.one("features", f"{len(request.features)} names", f"at most {MAX_FEATURES} names")
    at_us = times.to_us(request.occurred_at) if request.HasField("occurred_at") else now_us
    if at_us <= 0:
        raise InvalidInput.one("occurred_at", str(at_us), "after 1970-01-01")
    all_columns = (*feature_set.request_columns, *feature_set.candidate_columns)
    columns = [feature_set.column(name) for name in request.features] or all_columns
    return Asked(request.user_id, request.item_id, at_us, columns)


def explained(
    feature_set: FeatureSet, asked: Asked, states: Mapping[tuple[str, bytes], bytes]
) -> ExplainFeaturesResponse:
    """``states``: those of the request that are there."""
    found = features.encode(feature_set, states, asked.user_id, asked.items, asked.at_us)
    values = dict(zip(feature_set.request_columns, found.user.tolist(), strict=True))
    values |= dict(zip(feature_set.candidate_columns, found.items[0].tolist(), strict=True))
    category = found.items[:, feature_set.category_column].astype(np.int64)
    fields = {"user_id": np.array([asked.user_id], np.uint64), "item_id": asked.items, "category": category}
    answer = ExplainFeaturesResponse(schema_hash=feature_set.schema_hash, event_ids_note=NOTE)
    for column in asked.columns:
        entity = features.entities(column.view, fields)[0]
        missing = bool(found.missing[column.view.name][0])
        one = answer.features.add(
            name=column.name,
            view=column.view.name,
            value=values[column],
            is_default=missing,
            entity=entity,
            window=duration(column.feature.window_us),
        )
        value = states.get((column.view.name, entity))
        if missing or value is None:
            continue
        _explain(one, ViewState.unpack(plan_of(column.view), value), column, asked.at_us)
    return answer


def _explain(one: ExplainedFeature, state: ViewState, column: ViewColumn, at_us: int) -> None:
    view, aggregate = column.view, column.feature.aggregate
    hops = view.hops(column.feature)
    one.age.CopyFrom(duration(at_us - state.newest_us))
    if isinstance(aggregate, Instant):
        return
    uses = state.plan.uses[column.index]
    if isinstance(aggregate, LastK):
        since_us = (at_us // view.hop_us - hops) * view.hop_us if hops else None
        kept = [entry[0] for entry in state.recent(uses[0]) if entry[0] < at_us]
        inside = [us for us in kept if since_us is None or us >= since_us][: aggregate.k]
        one.recent.extend(times.from_us(us) for us in inside)
        # As view_values: without an event there is no value, except for those that count.
        one.is_default = not inside and aggregate.read in ("seconds", "value", "value_age")
        return
    for slot in uses:
        one.tiles.append(_tiles(state, slot, hops, at_us))


def _tiles(state: ViewState, index: int, hops: int, at_us: int) -> ExplainedTiles:
    slot, hop_us = state.plan.slots[index], state.plan.view.hop_us
    newest_hop, now_hop = state.newest_us // hop_us, at_us // hop_us
    head = state.newest_us < at_us
    oldest = now_hop - hops if hops else newest_hop - slot.tiles + 1
    end = now_hop + 1 if head else now_hop
    if not hops:
        end = min(end, newest_hop + 1)
    made = ExplainedTiles(aggregate=_named(slot))
    # "from" is a word of Python's.
    getattr(made, "from").CopyFrom(times.from_us(oldest * hop_us))
    made.to.CopyFrom(times.from_us(at_us if head else now_hop * hop_us))
    for hop in range(oldest, end):
        at = newest_hop - hop
        made.tiles.append(_number(slot, state.tile(index, at)))
    if not hops:
        made.before = _number(slot, state.base(index))
    return made


def _named(slot: Slot) -> str:
    what = {"add": "sum", "registers": "registers set by"}.get(slot.monoid, slot.monoid)
    return f"{what} {slot.value} of {slot.events.kind}" if slot.value else f"count of {slot.events.kind}"


def _number(slot: Slot, value: Any) -> int:
    return sum(1 for rank in value if rank) if slot.monoid == "registers" else int(value)
