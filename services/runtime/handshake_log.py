"""Counts the handshakes that gRPC refuses, by reason.

gRPC has no metric and no callback for them: a connection without TLS, without a certificate or with a wrong
one never becomes a call. It only writes a line with the reason to the process's stderr. So, with TLS on,
stderr goes through a pipe: those lines are counted, and one of each reason in ten seconds is passed on, as is
everything else. Both ends are counted: a server's certificate that this process does not accept is a refused
handshake too.
"""

from __future__ import annotations

import os
import re
import threading
import time
from contextlib import suppress

from services.runtime.telemetry import counter

_LINE = re.compile(rb"Handshake failed with.*OPENSSL_internal:(\w+)|Handshake failed with")
_STDERR = 2
_READ_BYTES = 65_536
_REPEAT_S = 10.0
# OpenSSL's words -> ours. Whatever else is said is "other".
REASONS = {
    b"WRONG_VERSION_NUMBER": "plaintext",
    b"HTTP_REQUEST": "plaintext",
    b"PEER_DID_NOT_RETURN_A_CERTIFICATE": "no_certificate",
    b"CERTIFICATE_VERIFY_FAILED": "wrong_certificate",
}


class HandshakeLog:
    """``start`` before the first handshake, ``stop`` after the last; once per process."""

    def __init__(self) -> None:
        self._refused = counter("tls_refused", "TLS handshakes that failed, by reason.", ["reason"])
        for reason in (*dict.fromkeys(REASONS.values()), "other"):
            self._refused.labels(reason)
        self._passed: dict[str, float] = {}
        self._thread: threading.Thread | None = None
        self._kept = self._pipe = -1

    def start(self) -> None:
        """From now on stderr goes through here."""
        reading, writing = os.pipe()
        self._kept = os.dup(_STDERR)
        os.dup2(writing, _STDERR)
        os.close(writing)
        self._pipe = os.fstat(_STDERR).st_ino
        self._thread = threading.Thread(
            target=self._pump, args=(reading, self._kept), name="handshake log", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """stderr is itself again; what was written until now is passed on."""
        if self._thread is None:
            return
        if os.fstat(_STDERR).st_ino == self._pipe:
            os.dup2(self._kept, _STDERR)
        self._thread.join(timeout=1.0)
        if not self._thread.is_alive():
            os.close(self._kept)
        self._thread = None

    def _pump(self, reading: int, kept: int) -> None:
        """Until nobody writes any more. A line is passed on when it is whole."""
        rest = b""
        while found := os.read(reading, _READ_BYTES):
            *lines, rest = (rest + found).split(b"\n")
            _write(kept, b"".join(line + b"\n" for line in lines if not self.swallows(line)))
        _write(kept, rest)
        os.close(reading)

    def swallows(self, line: bytes) -> bool:
        """Counts a line that says that a handshake failed; whether it was one, and not to be passed on."""
        said = _LINE.search(line)
        if said is None:
            return False
        reason = REASONS.get(said[1] or b"", "other")
        self._refused.labels(reason).inc()
        now = time.monotonic()
        if now - self._passed.get(reason, -_REPEAT_S) < _REPEAT_S:
            return True
        self._passed[reason] = now
        return False


def _write(out: int, data: bytes) -> None:
    # Whoever reads our logs may have gone; the pipe is emptied nevertheless.
    with suppress(OSError):
        while data:
            data = data[os.write(out, data) :]
