"""TLS material: this process's certificate and key, and who may sign a peer's.

The three files are read when a process starts, and any fault in them ends it. While it runs they are looked
at every ``reread_ms``. Whole new material takes the place of the old for every handshake from then on, and
channels move to connections of their own (grpc_rotation); what is not whole (a certificate whose key has not
been written yet) changes nothing and is counted. Connections that stand keep what they were made with, until
``max_connection_age_ms`` ends them.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import grpc

from services.contract.errors import InvalidInput
from services.runtime.settings import TlsSettings
from services.runtime.telemetry import counter, gauge, get_logger

if TYPE_CHECKING:
    # Imported where it is used: a process without TLS does without it.
    from cryptography import x509

log = get_logger(__name__)


@dataclass(frozen=True, eq=False)
class Material:
    """What one reading of the three files gave, in PEM. ``ends_at``: when the certificate expires."""

    certificate: bytes
    key: bytes = field(repr=False)
    authorities: bytes
    ends_at: datetime

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """For a client: shows the certificate, takes servers that the authorities signed."""
        return grpc.ssl_channel_credentials(self.authorities, self.key, self.certificate)

    def server_configuration(self) -> grpc.ServerCertificateConfiguration:
        """For a server."""
        return grpc.ssl_server_certificate_configuration([(self.key, self.certificate)], self.authorities)


def read_material(settings: TlsSettings, now: datetime | None = None) -> Material:
    """Reads and checks the files: InvalidInput names the one that is missing, half written, expired, not
    signed by the authorities, or of another certificate."""
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    now = now or datetime.now(UTC)
    chain_pem = _bytes_of("tls.certificate_file", settings.certificate_file)
    key_pem = _bytes_of("tls.key_file", settings.key_file)
    authorities_pem = _bytes_of("tls.ca_file", settings.ca_file)
    chain = _certificates("tls.certificate_file", settings.certificate_file, chain_pem)
    authorities = _certificates("tls.ca_file", settings.ca_file, authorities_pem)
    own = chain[0]
    try:
        key = load_pem_private_key(key_pem, password=None)
    except (ValueError, TypeError) as error:
        raise InvalidInput.one(
            "tls.key_file", settings.key_file, "a whole private key in PEM, no password"
        ) from error
    if _public(key) != _public(own):
        raise InvalidInput.one("tls.key_file", settings.key_file, "the key of tls.certificate_file")
    _check_dates(settings.certificate_file, own, now)
    if not any(_signed_by(chain[-1], one) for one in authorities):
        raise InvalidInput.one(
            "tls.certificate_file", settings.certificate_file, "signed by one of tls.ca_file"
        )
    if not identity_in(own, settings.identity_prefix):
        raise InvalidInput.one(
            "tls.certificate_file",
            settings.certificate_file,
            f"a SAN URI that begins with {settings.identity_prefix}",
        )
    return Material(chain_pem, key_pem, authorities_pem, own.not_valid_after_utc)


def identity_in(certificate: x509.Certificate, prefix: str) -> str:
    """The name that a certificate gives its owner; empty when it gives none."""
    from cryptography import x509

    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ""
    uris: list[str] = names.get_values_for_type(x509.UniformResourceIdentifier)
    return next((uri[len(prefix) :] for uri in uris if uri.startswith(prefix)), "")


def _bytes_of(name: str, path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InvalidInput.one(name, path, f"a file that can be read ({error.strerror})") from error


def _certificates(name: str, path: str, pem: bytes) -> list[x509.Certificate]:
    from cryptography import x509

    try:
        return list(x509.load_pem_x509_certificates(pem))
    except ValueError as error:
        raise InvalidInput.one(name, path, "whole certificates in PEM") from error


def _check_dates(path: str, certificate: x509.Certificate, now: datetime) -> None:
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if not begins <= now < ends:
        what = f"expired at {ends.isoformat()}" if now >= ends else f"not valid before {begins.isoformat()}"
        raise InvalidInput.one("tls.certificate_file", path, f"a certificate that is valid now ({what})")


def _public(owner: object) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    key = owner.public_key()  # type: ignore[attr-defined]
    return bytes(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def _signed_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    from cryptography.exceptions import InvalidSignature

    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return certificate == authority
    return True


class TlsFiles:
    """The newest whole material. Used by gRPC's threads and by the event loop."""

    def __init__(self, settings: TlsSettings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._stamp = self._stamped()
        self._material = read_material(settings)
        self._look_at = time.monotonic() + settings.reread_ms / 1000
        self._reloads = counter("tls_reloads", "Changed certificate files: taken, refused.", ["outcome"])
        gauge("tls_certificate_expires_seconds", "When the certificate ends (Unix time).").set_function(
            self._ends_s
        )

    @property
    def material(self) -> Material:
        """Looks at the files when it is time to."""
        if time.monotonic() >= self._look_at and self._lock.acquire(blocking=False):
            try:
                self._look_at = time.monotonic() + self._settings.reread_ms / 1000
                self._look()
            finally:
                self._lock.release()
        return self._material

    def _ends_s(self) -> float:
        # Whoever looks at the metrics makes this look at the files, also where nobody connects.
        return self.material.ends_at.timestamp()

    def _look(self) -> None:
        stamp = self._stamped()
        if stamp == self._stamp:
            return
        try:
            self._material = read_material(self._settings)
        except InvalidInput as error:
            # Looked at again next time: another process may be in the middle of writing them.
            self._reloads.labels("refused").inc()
            log.warning("certificates not taken", error=str(error))
        else:
            self._stamp = stamp
            self._reloads.labels("taken").inc()
            log.info("certificates taken", until=self._material.ends_at.isoformat())

    def _stamped(self) -> list[tuple[int, int, int]]:
        """What changes when a file is replaced or written to."""
        stamps = []
        for name in (self._settings.certificate_file, self._settings.key_file, self._settings.ca_file):
            try:
                found = Path(name).stat()
            except OSError:
                stamps.append((0, 0, 0))
            else:
                stamps.append((found.st_ino, found.st_mtime_ns, found.st_size))
        return stamps


@cache
def files_of(settings: TlsSettings) -> TlsFiles:
    """One for all servers and channels of the process. Raises InvalidInput as read_material does."""
    return TlsFiles(settings)


def server_credentials(settings: TlsSettings) -> grpc.ServerCredentials | None:
    """Of a server that takes only clients with a certificate, and serves new certificates as they come; None
    without TLS."""
    if not settings.on:
        return None
    files = files_of(settings)
    served = files.material

    def newest() -> grpc.ServerCertificateConfiguration | None:
        # Called at each handshake; None keeps the last.
        nonlocal served
        material = files.material
        if material is served:
            return None
        served = material
        return material.server_configuration()

    return grpc.dynamic_ssl_server_credentials(
        served.server_configuration(), newest, require_client_authentication=True
    )
