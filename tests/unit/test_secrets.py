"""What is wrong with a certificate, a key or a password is said with field and file, and never more."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import ValidationError

from local.certificates import Authority, files_in
from services.contract.errors import InvalidInput
from services.runtime.handshake_log import HandshakeLog
from services.runtime.secrets import read_password
from services.runtime.settings import KafkaSettings, TlsSettings
from services.runtime.tls import read_material

CA = Authority.new()
OTHER = Authority.new("another")
PASSWORD = "correct-horse-battery"


def cut(path: str) -> None:
    whole = Path(path).read_bytes()
    Path(path).write_bytes(whole[: len(whole) // 2])


def put(path: str, data: bytes) -> None:
    Path(path).write_bytes(data)


def test_whole_files_are_taken(tmp_path: Path) -> None:
    material = read_material(CA.write(tmp_path, "gateway"))
    assert material.ends_at > datetime.now(UTC) + timedelta(days=6)
    assert b"PRIVATE" not in repr(material).encode(), "a key is never printed"
    assert Path(files_in(tmp_path).key_file).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("break_it", "field", "said"),
    [
        (lambda f: Path(f.certificate_file).unlink(), "tls.certificate_file", "can be read"),
        (lambda f: Path(f.key_file).unlink(), "tls.key_file", "can be read"),
        (lambda f: Path(f.ca_file).unlink(), "tls.ca_file", "can be read"),
        (lambda f: cut(f.certificate_file), "tls.certificate_file", "whole certificates"),
        (lambda f: cut(f.key_file), "tls.key_file", "whole private key"),
        (lambda f: cut(f.ca_file), "tls.ca_file", "whole certificates"),
        (lambda f: put(f.key_file, CA.issue("gateway")[1]), "tls.key_file", "the key of"),
        (lambda f: put(f.ca_file, OTHER.pem()), "tls.certificate_file", "signed by"),
    ],
    ids=["no certificate", "no key", "no ca", "half a certificate", "half a key", "half a ca",
         "a foreign key", "a foreign ca"],
)  # fmt: skip
def test_what_is_not_whole_is_named(
    tmp_path: Path, break_it: Callable[[TlsSettings], None], field: str, said: str
) -> None:
    files = CA.write(tmp_path, "gateway")
    break_it(files)
    with pytest.raises(InvalidInput, match=said) as caught:
        read_material(files)
    assert [violation.field for violation in caught.value.violations] == [field]
    assert "PRIVATE" not in str(caught.value)


@pytest.mark.parametrize(("days", "said"), [(8, "expired at"), (-1, "not valid before")])
def test_a_certificate_of_another_time_is_named(tmp_path: Path, days: int, said: str) -> None:
    files = CA.write(tmp_path, "gateway")
    with pytest.raises(InvalidInput, match=said):
        read_material(files, datetime.now(UTC) + timedelta(days=days))


def test_a_certificate_must_say_who_it_is(tmp_path: Path) -> None:
    files = CA.write(tmp_path, "gateway").model_copy(update={"identity_prefix": "spiffe://elsewhere/"})
    with pytest.raises(InvalidInput, match="spiffe://elsewhere/"):
        read_material(files)


def test_two_of_three_files_are_refused() -> None:
    with pytest.raises(ValidationError, match="all three, or none"):
        TlsSettings(certificate_file="a", key_file="b")
    with pytest.raises(ValidationError, match="both, or neither"):
        KafkaSettings(username="joiner")


def test_a_password_is_one_whole_line(tmp_path: Path) -> None:
    path = tmp_path / "password"
    for whole in (PASSWORD, PASSWORD + "\n"):
        path.write_text(whole)
        assert read_password("kafka.password_file", str(path)) == PASSWORD
    for broken in ("", "\n", PASSWORD[:8], f"{PASSWORD}\n{PASSWORD}\n"):
        path.write_text(broken)
        with pytest.raises(InvalidInput, match="one line of at least 16") as caught:
            read_password("kafka.password_file", str(path))
        assert PASSWORD[:8] not in str(caught.value)
    with pytest.raises(InvalidInput, match="can be read"):
        read_password("kafka.password_file", str(tmp_path / "none"))


def test_a_handshake_that_failed_is_counted_by_reason_and_said_once() -> None:
    from tests.tls_kit import counted

    start = "I1126 12:00:00.0 1 ssl_transport_security.cc:2563] Handshake failed with error SSL_ERROR_SSL: "
    line = (start + "error:1000007d:SSL routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED: x").encode()
    found, before = HandshakeLog(), counted("tls_refused", reason="wrong_certificate")
    assert [found.swallows(line) for _ in range(3)] == [False, True, True]
    assert counted("tls_refused", reason="wrong_certificate") == before + 3
    other = counted("tls_refused", reason="other")
    found.swallows(b"Handshake failed with error SSL_ERROR_SYSCALL")
    assert counted("tls_refused", reason="other") == other + 1
    assert not found.swallows(b'{"event": "listening"}')
