"""What a rolling restart cost, from the load's own evidence. Pure.

A request belongs to a replacement when it was under way at any moment of it. It failed when it has no answer
(``DROPPED`` included: one that the load could not even send); it is degraded when a part was missing from it.
An event is lost when the collector never acknowledged it, or when an item that was acknowledged as shown is
neither a sample nor a row with a reason, or is one whose snapshot is gone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from local.audit import Line
from local.evidence import Evidence, first_labels
from services.contract import topics

OK = "OK"
SNAPSHOT_LOST = "snapshot_lost"
# Of the load's events: what the collector never acknowledged.
UNACKNOWLEDGED = ("refused", "lost", "dropped", "pending")


def report(
    replaced: Sequence[Mapping[str, Any]],
    figures: Mapping[str, Any],
    evidence: Evidence,
    audit: Sequence[Line],
) -> dict[str, Any]:
    """``replaced``: what replace.Replaced says of each; ``figures``: the load's demo.json."""
    table = evidence.requests
    shown, by_request = _shown(evidence), _samples(evidence)
    services = [_service(one, table, shown, by_request) for one in replaced]
    rejected = Counter[str]()
    for items, origin, topic, reason in zip(
        *(evidence.rejected[name] for name in ("items", "origin_topic", "topic", "reason")), strict=True
    ):
        if origin == topics.IMPRESSIONS.name and topic == topics.LATE_EVENTS.name:
            rejected[reason] += items
    items_shown, samples = sum(shown.values()), sum(by_request.values())
    unexplained = items_shown - samples - rejected.total()
    unacknowledged = sum(figures["events"][name] for name in UNACKNOWLEDGED)
    found = {
        "services": services,
        "requests": len(table["status"]),
        "failed_requests": sum(status != OK for status in table["status"]),
        "failed_by_status": dict(Counter(status for status in table["status"] if status != OK)),
        "degraded_requests": sum(map(bool, table["degraded"])),
        "degraded_by": dict(Counter(why for why in table["degraded"] if why)),
        "events_acknowledged": figures["events"]["acknowledged"],
        "events_unacknowledged": unacknowledged,
        "items_shown": items_shown,
        "samples": samples,
        "rejected": dict(rejected),
        "unexplained": unexplained,
        "lost_events": unacknowledged + abs(unexplained) + rejected[SNAPSHOT_LOST],
        "audited": len(audit),
        "audit_differs": [line.figure for line in audit if not line.ok],
    }
    found["failed_checks"] = failures(found)
    return found


def failures(found: Mapping[str, Any]) -> list[str]:
    """What must not be, in words; empty when the roll cost nothing."""
    problems = []
    if not found["requests"] or not found["items_shown"]:
        problems.append("no load: nothing was asked, or nothing shown")
    if found["failed_requests"]:
        problems.append(f"{found['failed_requests']} requests failed: {found['failed_by_status']}")
    if found["lost_events"]:
        problems.append(
            f"{found['lost_events']} events lost: {found['events_unacknowledged']} not acknowledged, "
            f"{found['unexplained']} without a reason, {found['rejected'].get(SNAPSHOT_LOST, 0)} snapshots"
        )
    problems += [f"{one['service']} had to be killed" for one in found["services"] if not one["clean"]]
    problems += [f"no request was under way while {one['service']} was replaced" for one in _idle(found)]
    if found["audit_differs"]:
        problems.append(f"the audit differs: {', '.join(found['audit_differs'])}")
    return problems


def _idle(found: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [one for one in found["services"] if not one["requests"]]


def _service(
    one: Mapping[str, Any], table: Mapping[str, list], shown: Mapping[str, int], samples: Mapping[str, int]
) -> dict[str, Any]:
    rows = [
        i
        for i in range(len(table["status"]))
        if table["intended_us"][i] <= one["until_us"] and table["answered_us"][i] >= one["from_us"]
    ]
    asked = [table["request_id"][i] for i in rows]
    waits = [(table["answered_us"][i] - table["intended_us"][i]) / 1000 for i in rows]
    return {
        **one,
        "requests": len(rows),
        "failed": sum(table["status"][i] != OK for i in rows),
        "degraded": sum(bool(table["degraded"][i]) for i in rows),
        "slowest_ms": round(max(waits, default=0.0), 1),
        "items_shown": sum(shown.get(request, 0) for request in asked),
        "not_sampled": sum(max(0, shown.get(request, 0) - samples.get(request, 0)) for request in asked),
    }


def _shown(evidence: Evidence) -> Counter[str]:
    """Items that the collector acknowledged as shown, by request."""
    table, found, seen = evidence.events, Counter[str](), set[str]()
    for event, request, kind, items in zip(
        *(table[name] for name in ("event_id", "request_id", "kind", "items")), strict=True
    ):
        if kind == "impression" and event not in seen:
            seen.add(event)
            found[request] += items
    return found


def _samples(evidence: Evidence) -> Counter[str]:
    """Items that became samples, by request."""
    requests = evidence.samples["request_id"]
    return Counter(requests[i] for i in first_labels(evidence.samples))
