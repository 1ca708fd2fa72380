"""aiokafka's errors as the loop's.

| aiokafka | loop | why |
|---|---|---|
| ProducerFenced, stale epoch | Conflict | another owner of the transactional id has started |
| record too large | InvalidInput | no retry helps |
| not authorised | Forbidden | the ACLs (contract.access) do not let this process |
| offset out of range | NotFound | the log no longer holds it: start from a base |
| anything else | Unavailable | the broker is away, or the producer must be rebuilt |
"""

from __future__ import annotations

from aiokafka import errors as kafka

from services.contract.errors import Conflict, Forbidden, InvalidInput, LoopError, NotFound, Unavailable

# Error codes that brokers since 2.7 send and that the client does not know by name.
_FENCED_CODE = 90


_DENIED = (
    kafka.TopicAuthorizationFailedError,
    kafka.GroupAuthorizationFailedError,
    kafka.ClusterAuthorizationFailedError,
    kafka.TransactionalIdAuthorizationFailed,
)


def is_fenced(error: BaseException) -> bool:
    """Whether a newer owner of the transactional id has taken over."""
    return (
        isinstance(error, kafka.ProducerFenced | kafka.InvalidProducerEpoch)
        or getattr(error, "errno", None) == _FENCED_CODE
    )


def is_fatal(error: BaseException) -> bool:
    """Whether an idempotent producer that met this error can never send again and must be rebuilt."""
    return is_fenced(error) or isinstance(
        error,
        kafka.OutOfOrderSequenceNumber
        | kafka.InvalidProducerIdMapping
        | kafka.UnknownProducerId
        | kafka.ProducerClosed
        | kafka.NotLeaderForPartitionError
        | kafka.LeaderNotAvailableError,
    )


def loop_error(error: BaseException, what: str) -> LoopError:
    """The loop's error for an error of the Kafka client; ``what`` says what was being done."""
    if isinstance(error, LoopError):
        return error
    text = f"{what}: {error!r}"
    if is_fenced(error):
        return Conflict(text)
    if isinstance(error, _DENIED):
        return Forbidden("this process", what, repr(error))
    if isinstance(error, kafka.MessageSizeTooLargeError | kafka.RecordTooLargeError):
        return InvalidInput.one(what, type(error).__name__, "a smaller record")
    if isinstance(error, kafka.OffsetOutOfRangeError | kafka.NoOffsetForPartitionError):
        return NotFound(text)
    return Unavailable(text)
