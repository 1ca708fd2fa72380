"""The trace of a request is a function of its id, in every process the same."""

from __future__ import annotations

import pytest

from services.contract import trace_ids
from services.contract.trace_ids import (
    TRACEPARENT,
    SpanRef,
    bound_of,
    parse,
    root_of,
    sampled,
    span_of,
    trace_id_of,
    traceparent,
)


def test_the_ids_of_a_request_never_change() -> None:
    # Golden: processes of two versions have to agree while one replaces the other.
    assert f"{trace_id_of('sim-1:7'):032x}" == "9cb925187b2b004f5e212ab23f3cdfc5"
    assert f"{root_of('sim-1:7').span_id:016x}" == "d5337d66ac6a0032"
    assert root_of("sim-1:7").trace_id == trace_id_of("sim-1:7")


def test_other_requests_have_other_ids() -> None:
    refs = {root_of(f"r{number}") for number in range(10_000)}
    assert len({ref.trace_id for ref in refs}) == len({ref.span_id for ref in refs}) == 10_000


@pytest.mark.parametrize("ratio", [0.0, 0.01, 0.3, 1.0])
def test_the_share_of_sampled_requests_is_the_ratio_and_a_larger_one_keeps_them(ratio: float) -> None:
    ids = [trace_id_of(f"request-{number}") for number in range(20_000)]
    chosen = {one for one in ids if sampled(one, bound_of(ratio))}
    assert len(chosen) / len(ids) == pytest.approx(ratio, abs=0.012)
    assert all(sampled(one, bound_of(min(1.0, ratio * 2))) for one in chosen)


def test_a_header_comes_back_as_the_span_it_names() -> None:
    ref = root_of("r")
    assert parse(traceparent(ref)) == parse(traceparent(ref).encode()) == ref


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        b"\xff\xfe",
        "00-" + "0" * 32 + "-" + "1" * 16 + "-01",
        "00-" + "1" * 32 + "-" + "0" * 16 + "-01",
        "00-" + "A" * 32 + "-" + "1" * 16 + "-01",
        "00-" + "1" * 31 + "-" + "1" * 16 + "-01",
        # Not sampled by who sent it.
        "00-" + "1" * 32 + "-" + "1" * 16 + "-00",
        "ff-" + "1" * 32 + "-" + "1" * 16 + "-01",
    ],
)
def test_a_header_that_names_no_sampled_span_is_none(header: str | bytes | None) -> None:
    assert parse(header) is None


def test_a_record_names_its_span_among_other_headers() -> None:
    ref = root_of("r")
    assert span_of([("reason", b"late"), (TRACEPARENT, traceparent(ref).encode())]) == ref
    assert span_of([("reason", b"late")]) is None
    assert span_of(()) is None


def test_the_flags_are_bits() -> None:
    assert parse("00-" + "1" * 32 + "-" + "2" * 16 + "-03") == SpanRef(int("1" * 32, 16), int("2" * 16, 16))


def test_the_doors_are_methods_of_the_protos() -> None:
    from rec.v1 import gateway_pb2

    methods = {
        f"/{service.full_name}/{method.name}": method.input_type
        for service in gateway_pb2.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }
    assert set(methods) >= trace_ids.DOORS
    assert all("request_id" in methods[door].fields_by_name for door in trace_ids.DOORS)
