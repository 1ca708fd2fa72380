"""A handler of a gRPC service taken apart, so that something can stand around what it does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc

Behaviour = Callable[..., Any]

# (the request is streamed, the answer is) -> (its name in metrics, what makes such a handler)
_KINDS: dict[tuple[bool, bool], tuple[str, Callable[..., Any]]] = {
    (False, False): ("unary", grpc.unary_unary_rpc_method_handler),
    (True, False): ("client_stream", grpc.stream_unary_rpc_method_handler),
    (False, True): ("server_stream", grpc.unary_stream_rpc_method_handler),
    (True, True): ("bidi_stream", grpc.stream_stream_rpc_method_handler),
}


def kind_of(handler: Any) -> str:
    """unary, client_stream, server_stream or bidi_stream."""
    return _kind(handler)[0]


def behaviour_of(handler: Any) -> Behaviour:
    """The function that answers."""
    kinds = (handler.unary_unary, handler.stream_unary, handler.unary_stream, handler.stream_stream)
    found: Behaviour = next(one for one in kinds if one is not None)
    return found


def rewrapped(handler: Any, behaviour: Behaviour) -> Any:
    """The same handler with another function."""
    make = _kind(handler)[1]
    return make(
        behaviour,
        request_deserializer=handler.request_deserializer,
        response_serializer=handler.response_serializer,
    )


def _kind(handler: Any) -> tuple[str, Callable[..., Any]]:
    return _KINDS[bool(handler.request_streaming), bool(handler.response_streaming)]
