"""Which fields of a request release refuses, each named with what is allowed."""

from __future__ import annotations

from rec.model.v1 import model_pb2
from services.contract import times
from services.contract.assignment import ARM_NAME
from services.contract.errors import FieldViolation, InvalidInput

DIGEST_BYTES = 32
MAX_URI_CHARS = 2_048
MAX_REASON_CHARS = 500


def refuse(violations: list[FieldViolation]) -> None:
    """Raises InvalidInput when there is any violation."""
    if violations:
        raise InvalidInput(violations)


def bad_uri(uri: str, name: str) -> list[FieldViolation]:
    """A manifest's URI must be there and bounded."""
    if 1 <= len(uri) <= MAX_URI_CHARS:
        return []
    return [FieldViolation(name, f"{len(uri)} characters", f"1 to {MAX_URI_CHARS} characters")]


def bad_digest(digest: bytes, name: str) -> list[FieldViolation]:
    """SHA-256 only."""
    if len(digest) == DIGEST_BYTES:
        return []
    return [FieldViolation(name, f"{len(digest)} bytes", f"{DIGEST_BYTES} bytes (SHA-256)")]


def bad_base(base: model_pb2.BaseRef, partition: int) -> list[FieldViolation]:
    """``partition`` is the one of model-deltas that the base's lineage lives in."""
    wrong = [
        *bad_uri(base.manifest_uri, "base.manifest_uri"),
        *bad_digest(base.manifest_digest, "base.manifest_digest"),
        *bad_digest(base.chain_hash, "base.chain_hash"),
    ]
    if base.delta_partition != partition:
        allowed = f"{partition}, where the lineage lives"
        wrong.append(FieldViolation("base.delta_partition", str(base.delta_partition), allowed))
    if base.delta_offset < 0:
        wrong.append(FieldViolation("base.delta_offset", str(base.delta_offset), "0 or more"))
    return wrong


def bad_policy(policy: str) -> list[FieldViolation]:
    """Named like arms: a policy is part of keys and of a transactional id."""
    if ARM_NAME.fullmatch(policy):
        return []
    return [FieldViolation("lineage.policy", policy[:100], f"must match {ARM_NAME.pattern}")]


def bad_target(wish: model_pb2.Rollback, now_us: int) -> list[FieldViolation]:
    """A rollback needs a target, and one that lies behind."""
    wrong = []
    if wish.WhichOneof("target") is None:
        wrong.append(FieldViolation("target", "none", "to_sequence or to_time"))
    if wish.HasField("to_time") and not 0 < times.to_us(wish.to_time) < now_us:
        wrong.append(FieldViolation("to_time", wish.to_time.ToJsonString(), "a moment that has passed"))
    if not 1 <= len(wish.reason) <= MAX_REASON_CHARS:
        wrong.append(FieldViolation("reason", f"{len(wish.reason)} characters", f"1 to {MAX_REASON_CHARS}"))
    return wrong


def bad_teller(lineage: model_pb2.Lineage, ordered: model_pb2.Lineage) -> list[FieldViolation]:
    """Who trains one lineage knows nothing of what came of another's order."""
    if lineage == ordered:
        return []
    told, allowed = (f"{one.generation}/{one.policy[:64]}" for one in (lineage, ordered))
    return [FieldViolation("lineage", told, f"{allowed}, whose order it is")]


def bad_outcome(outcome: model_pb2.Rollback) -> list[FieldViolation]:
    """Exactly one of what was done and why not."""
    if outcome.HasField("done") == bool(outcome.error):
        return [FieldViolation("rollback", "both or neither", "either done or error")]
    if outcome.HasField("done") and outcome.done.restored_sequence >= outcome.sequence:
        allowed = f"below sequence {outcome.sequence}"
        return [FieldViolation("done.restored_sequence", str(outcome.done.restored_sequence), allowed)]
    return []


def bad_arm(name: str, state: int) -> list[FieldViolation]:
    """Names never clash with the generation/ keys of the log."""
    wrong = []
    if not ARM_NAME.fullmatch(name):
        wrong.append(FieldViolation("arm", name[:100], f"must match {ARM_NAME.pattern}"))
    if state not in model_pb2.ReleaseState.values() or state == model_pb2.RELEASE_STATE_UNSPECIFIED:
        wrong.append(FieldViolation("state", str(state), "SERVING, SHADOW or RETIRED"))
    return wrong
