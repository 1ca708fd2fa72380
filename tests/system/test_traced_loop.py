"""The whole loop traced, in processes: one trace id from a client's request to the delta that holds its
click, and on to the replica that applied it, out of what a real OTLP receiver got.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from services.contract.trace_ids import SpanRef, root_of
from tests.otlp_kit import Received, Receiver, receiving
from tests.system.conftest import seeded_loop

pytestmark = [pytest.mark.system, pytest.mark.timeout(240)]
SERVER, CLIENT, PRODUCER = 2, 3, 4


def joined(receiver: Receiver, request: int) -> list[Received]:
    """The join of a request's sample."""
    return [span for span in receiver.of(request) if span.name == "join"]


def learned(receiver: Receiver, sample: SpanRef) -> list[Received]:
    """The training steps that say that they learned from a sample."""
    return [span for span in receiver.spans if span.name == "train" and sample in span.links]


def applied(receiver: Receiver, delta: int) -> list[Received]:
    """What replicas did with the delta of a trace."""
    return [span for span in receiver.of(delta) if span.name == "process model-deltas"]


def test_one_trace_id_leads_from_a_request_to_the_delta_with_its_click(tmp_path: Path) -> None:
    with receiving() as receiver:
        env = {"RECLOOP_TRACING__ENDPOINT": receiver.endpoint, "RECLOOP_TRACING__SAMPLE_RATIO": "0.2"}
        with seeded_loop(tmp_path, env=env) as loop:
            story = loop.trace()
            assert (story["ends"], story["missing"]) == ("", [])
            root = root_of(story["request_id"])
            assert int(story["trace_id"], 16) == root.trace_id

            # What the services still have to send, they send within a second.
            receiver.until(lambda got: joined(got, root.trace_id))
            # The click's; what was not clicked follows when its window has ended.
            join = min(joined(receiver, root.trace_id), key=lambda span: span.end_us)
            receiver.until(lambda got: learned(got, join.ref))
            (step,) = learned(receiver, join.ref)
            receiver.until(lambda got: len(applied(got, step.ref.trace_id)) == 2)
            names = {name: loop.stack.log(name) for name in ("gateway", "trainer")}

    mine = {(span.service, span.name, span.kind): span for span in receiver.of(root.trace_id)}
    client = mine["loadgen", "one click", 1]
    assert (client.ref, client.parent) == (root, 0)
    by_ref = {span.ref: span for span in receiver.spans}

    def path(span: Received) -> list[str]:
        """From the root down to a span."""
        above = by_ref.get(SpanRef(span.ref.trace_id, span.parent))
        return [*(path(above) if above else []), span.service]

    for service, method in (
        ("recall", "rec.v1.RecallService/Retrieve"),
        ("feature", "rec.v1.FeatureService/GetFeatures"),
        ("ranking", "rec.v1.RankingService/Rank"),
    ):
        assert path(mine[service, method, SERVER]) == ["loadgen", "loadgen", "gateway", "gateway", service]
    written = {
        topic: mine[writer, f"send {topic}", PRODUCER]
        for writer, topic in (
            ("ranking", "feature-snapshots"),
            ("collector", "impressions"),
            ("collector", "actions"),
        )
    }
    assert path(written["actions"]) == ["loadgen", "loadgen", "collector", "collector"]
    # The fan-in: all three have the sample as their end.
    assert (join.service, set(join.links)) == ("joiner", {span.ref for span in written.values()})

    # The delta is a trace of its own, in which the step, the publication and the replica stand.
    delta = by_ref[SpanRef(step.ref.trace_id, step.parent)]
    assert (delta.service, delta.name, delta.parent) == ("trainer", "delta", 0)
    told = {moment["step"]: moment["what"] for moment in story["moments"]}
    assert told["delta"].startswith(
        f"{delta.attributes['recloop.lineage']} at {delta.attributes['recloop.sequence']}:"
    )
    (sent,) = (span for span in receiver.of(delta.ref.trace_id) if span.name == "send model-deltas")
    assert sent.parent == delta.ref.span_id
    (replica,) = (
        one for one in applied(receiver, delta.ref.trace_id) if one.attributes.get("recloop.arm") == "online"
    )
    assert (replica.service, replica.parent) == ("ranking", sent.ref.span_id)
    assert {one.service for one in applied(receiver, delta.ref.trace_id)} == {"ranking", "recall"}
    assert join.start_us < step.start_us < delta.end_us <= replica.end_us
    assert all("Traceback" not in text for text in names.values())
