"""Redis' wire protocol: what is sent, and replies in any pieces."""

from __future__ import annotations

import pytest
from feature_kit import wire_of
from hypothesis import given
from hypothesis import strategies as st

from services.runtime.resp import ProtocolError, Reply, command, mget, value

VALUES = st.lists(st.one_of(st.none(), st.binary(max_size=40), st.just(b"\r\n$-1\r\n")), max_size=12)


@given(st.lists(VALUES, min_size=1, max_size=4), st.lists(st.integers(1, 25), min_size=1))
def test_replies_come_out_whole_however_their_bytes_are_cut(replies: list, cuts: list[int]) -> None:
    stream = b"".join(wire_of(values) for values in replies)
    buffer, got, reply, sent, turn = bytearray(), [], Reply(), 0, 0
    while sent < len(stream):
        size = cuts[turn % len(cuts)]
        buffer += stream[sent : sent + size]
        sent, turn, at = sent + size, turn + 1, 0
        while len(got) < len(replies):
            at = reply.feed(buffer, at)
            if not reply.done:
                break
            got.append(reply.values)
            reply = Reply()
        del buffer[:at]
    assert got == replies
    assert not buffer


def test_mget_is_the_command_of_all_its_keys() -> None:
    ids = (7).to_bytes(8, "little") + (2**63 + 1).to_bytes(8, "little")
    wanted = command(b"MGET", b"user", b"f:g:n", b"f:i:" + ids[:8], b"f:i:" + ids[8:])
    assert mget([(b"us", b"er", 2), (b"f:g:", b"n", 1), (b"f:i:", ids, 8)]) == wanted
    assert mget([(b"us", b"er", 2), (b"f:i:", b"", 8)]) == command(b"MGET", b"user")


def test_a_refusal_is_kept_and_a_line_is_a_value() -> None:
    refused, fine = Reply(), Reply()
    assert refused.feed(bytearray(b"-NOAUTH Authentication required.\r\n"), 0) == 34
    assert (refused.done, refused.error) == (True, "NOAUTH Authentication required.")
    fine.feed(bytearray(b"+OK\r\n"), 0)
    assert (fine.done, fine.values, fine.error) == (True, [b"OK"], None)


@pytest.mark.parametrize(
    "data", [b"HTTP/1.1 400\r\n", b"*x\r\n", b"*1\r\n:5\r\n", b"*1\r\n$x\r\n", b"*1\r\n" + b"9" * 40]
)
def test_what_is_no_reply_is_an_error_not_a_wait(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        Reply().feed(bytearray(data), 0)


HELLO = b"%2\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nmodules\r\n*1\r\n%1\r\n+id\r\n:5\r\n"


def test_the_greeting_of_the_newer_protocol_is_read_to_its_end_in_any_pieces() -> None:
    for cut in range(len(HELLO)):
        reply, buffer = Reply(), bytearray(HELLO[:cut])
        at = reply.feed(buffer, 0)
        assert not reply.done
        buffer += HELLO[cut:] + b"+next"
        assert (reply.feed(buffer, at), reply.done, reply.error) == (len(HELLO), True, None)


def test_the_newer_null_is_a_null() -> None:
    reply = Reply()
    reply.feed(bytearray(b"*3\r\n$1\r\na\r\n_\r\n$1\r\nb\r\n"), 0)
    assert (reply.done, reply.values) == (True, [b"a", None, b"b"])


def test_a_push_is_a_value_once_it_is_whole() -> None:
    push = b">2\r\n$10\r\ninvalidate\r\n*2\r\n$3\r\na\r\n\r\n$1\r\nb\r\n"
    assert value(bytearray(push + b"*"), 0) == ([b"invalidate", [b"a\r\n", b"b"]], len(push))
    assert [value(bytearray(push[:cut]), 0) for cut in range(len(push))] == [None] * len(push)
    flushed = bytearray(b">2\r\n$10\r\ninvalidate\r\n_\r\n")
    assert value(flushed, 0) == ([b"invalidate", None], len(flushed))
    with pytest.raises(ProtocolError):
        value(bytearray(b"?2\r\n"), 0)
