"""Text of a feature view and back: JSON with sorted keys, so that equal definitions are equal bytes."""

from __future__ import annotations

import json
from dataclasses import fields, is_dataclass
from typing import Any, get_args

from services.contract.errors import InvalidInput
from services.contract.view_aggregates import Aggregate, Feature
from services.contract.view_events import Condition, Select

NOTES = ("owner", "description")
MAX_TEXT = 256 * 1024
_TYPES = {one.__name__: one for one in (*get_args(Aggregate), Feature, Condition, Select)}


def canonical(view: Any, with_notes: bool = True) -> str:
    """One line of ASCII JSON; numbers by their shortest exact form. Without notes: what decides values."""
    return json.dumps(_plain(view, with_notes), sort_keys=True, separators=(",", ":"))


def _plain(value: Any, with_notes: bool) -> Any:
    if is_dataclass(value):
        named = {
            field.name: _plain(getattr(value, field.name), with_notes)
            for field in fields(value)
            if with_notes or field.name not in NOTES
        }
        return {"is": type(value).__name__, **named}
    if isinstance(value, tuple):
        return [_plain(one, with_notes) for one in value]
    # 1 and 1.0 are one definition.
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 1 << 53 else value


def arguments(text: str, of: str) -> dict[str, Any]:
    """The constructor's arguments for a dataclass ``of`` from its text; InvalidInput when it cannot be."""
    if len(text) > MAX_TEXT:
        raise InvalidInput.one("view", f"{len(text)} characters", f"at most {MAX_TEXT}")
    try:
        decoded = json.loads(text)
        if not isinstance(decoded, dict) or decoded.pop("is", None) != of:
            raise InvalidInput.one("view", text, f"a JSON object that is a {of}")
        return {name: _built(value) for name, value in decoded.items()}
    except (ValueError, TypeError, RecursionError) as error:
        raise InvalidInput.one("view", text, f"the canonical JSON of a {of} ({error})") from error


def _built(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_built(one) for one in value)
    if isinstance(value, dict):
        kind = value.pop("is", None)
        if kind not in _TYPES:
            raise ValueError(f"no part of a view: {kind!r}"[:100])
        return _TYPES[kind](**{name: _built(one) for name, one in value.items()})
    return value
