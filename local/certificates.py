"""A development CA and what it signs: for one machine and short, never for a cluster.

Files are replaced whole (written aside, then renamed); what is secret is readable by its owner only.
"""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from local.ports import HOST
from services.runtime.settings import TlsSettings

CERTIFICATE_NAME = "certificate.pem"
KEY_NAME = "key.pem"
CA_NAME = "ca.pem"
LIFETIME = timedelta(days=7)
# Clocks differ a little.
_EARLY = timedelta(minutes=5)
_PREFIX: str = TlsSettings().identity_prefix


@dataclass(frozen=True)
class Authority:
    """Signs; its key exists in this process only."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def new(cls, name: str = "recloop development CA") -> Authority:
        """One that nobody trusts yet."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        built = (
            _builder(subject, subject, key, LIFETIME)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs=True), critical=True)
        )
        return cls(built.sign(key, hashes.SHA256()), key)

    def pem(self) -> bytes:
        """Its certificate, for those who trust it."""
        return bytes(self.certificate.public_bytes(Encoding.PEM))

    def issue(self, identity: str, *, lifetime: timedelta = LIFETIME) -> tuple[bytes, bytes]:
        """(certificate, key) in PEM: of a process on this machine that is server and client."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, identity)])
        names = [
            x509.UniformResourceIdentifier(_PREFIX + identity),
            x509.DNSName("localhost"),
            x509.DNSName(identity.replace("_", "-")),
            x509.IPAddress(ipaddress.ip_address(HOST)),
        ]
        both = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        built = (
            _builder(subject, self.certificate.subject, key, lifetime)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(both), critical=False)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
        )
        certificate = built.sign(self.key, hashes.SHA256())
        secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return bytes(certificate.public_bytes(Encoding.PEM)), bytes(secret)

    def write(self, folder: Path, identity: str, *, lifetime: timedelta = LIFETIME) -> TlsSettings:
        """Issues into a folder, in place of what was there; the settings that name the files."""
        certificate, key = self.issue(identity, lifetime=lifetime)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_secret(folder / KEY_NAME, key)
        write_secret(folder / CERTIFICATE_NAME, certificate)
        write_secret(folder / CA_NAME, self.pem())
        return files_in(folder)


def files_in(folder: Path) -> TlsSettings:
    """The settings that name the files of a folder."""
    return TlsSettings(
        certificate_file=str(folder / CERTIFICATE_NAME),
        key_file=str(folder / KEY_NAME),
        ca_file=str(folder / CA_NAME),
    )


def write_secret(path: Path, data: bytes) -> None:
    """Whole or not at all, for its owner only."""
    aside = path.with_name(f".{path.name}.new")
    aside.unlink(missing_ok=True)
    with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
        out.write(data)
    aside.replace(path)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, lifetime: timedelta
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _EARLY)
        .not_valid_after(now + lifetime)
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=signs, crl_sign=signs, encipher_only=False, decipher_only=False,
    )  # fmt: skip
