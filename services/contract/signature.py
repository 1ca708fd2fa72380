"""Who may write a model: the trainer signs each manifest, every reader checks it before anything is loaded.

Ed25519 (RFC 8032) over the manifest's canonical JSON without its field ``signature``. A digest shows that
bytes are those that were named; only a signature shows that a trainer wrote them, and not whoever can write
to the store or to release. The field names the key by the first 16 hex digits of the SHA-256 of the public
key, so that keys can be changed: readers trust several at once.

The private key is a PEM file that only trainers (and the seed of a world) can read, the trusted keys are a
PEM file of public keys, one block each.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from services.contract.errors import BadSignature, InvalidInput

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

FIELD = "signature"
SIGNING_NAME = "signing.pem"
TRUSTED_NAME = "trusted.pem"
_END = "-----END PUBLIC KEY-----"


def canonical(manifest: dict[str, Any]) -> bytes:
    """The one form of a manifest: what stands in the file, and, without the signature, what is signed."""
    return (json.dumps(manifest, indent=1, sort_keys=True) + "\n").encode()


class Signer:
    """Holds a private key."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self._name = _name(key.public_key())

    @classmethod
    def read(cls, path: str) -> Signer | None:
        """The key in a PEM file; None for no path. InvalidInput when there is no such key in it."""
        if not path:
            return None
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        try:
            key = load_pem_private_key(Path(path).read_bytes(), password=None)
        except (OSError, ValueError, TypeError) as error:
            raise InvalidInput.one(
                "signing_key_file", path, f"an Ed25519 private key in PEM ({error})"
            ) from error
        if not isinstance(key, Ed25519PrivateKey):
            raise InvalidInput.one("signing_key_file", path, "an Ed25519 private key")
        return cls(key)

    def signed(self, manifest: dict[str, Any]) -> dict[str, Any]:
        """The manifest with this key's signature; one that it had is replaced."""
        plain = {name: value for name, value in manifest.items() if name != FIELD}
        return plain | {FIELD: {"key": self._name, "ed25519": self._key.sign(canonical(plain)).hex()}}


class Trusted:
    """The public keys whose manifests are loaded."""

    def __init__(self, keys: list[Ed25519PublicKey]) -> None:
        self._keys = {_name(key): key for key in keys}

    @classmethod
    def read(cls, path: str) -> Trusted | None:
        """The keys in a PEM file; None for no path. InvalidInput when it holds anything but such keys."""
        if not path:
            return None
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        from cryptography.hazmat.primitives.serialization import load_pem_public_key

        try:
            blocks = [block for block in Path(path).read_text().split(_END) if block.strip()]
            keys = [load_pem_public_key((block.strip() + "\n" + _END + "\n").encode()) for block in blocks]
        except (OSError, ValueError) as error:
            raise InvalidInput.one(
                "trusted_keys_file", path, f"Ed25519 public keys in PEM ({error})"
            ) from error
        if not keys or not all(isinstance(key, Ed25519PublicKey) for key in keys):
            raise InvalidInput.one("trusted_keys_file", path, "at least one Ed25519 public key, and no other")
        return cls([key for key in keys if isinstance(key, Ed25519PublicKey)])

    def check(self, manifest: dict[str, Any], uri: str) -> None:
        """BadSignature unless one of the keys has signed exactly this manifest."""
        from cryptography.exceptions import InvalidSignature

        said = manifest.get(FIELD)
        if not isinstance(said, dict):
            raise BadSignature.one(FIELD, "none", f"one by {self.names()}, in {uri}")
        key = self._keys.get(str(said.get("key")))
        if key is None:
            raise BadSignature.one(f"{FIELD}.key", said.get("key"), self.names())
        plain = {name: value for name, value in manifest.items() if name != FIELD}
        try:
            key.verify(bytes.fromhex(str(said.get("ed25519"))), canonical(plain))
        except (InvalidSignature, ValueError) as error:
            raise BadSignature.one(f"{FIELD}.ed25519", uri, f"that of {said['key']} over it") from error

    def names(self) -> str:
        """For people: the keys."""
        return ", ".join(sorted(self._keys))


def make_keys(folder: Path) -> tuple[Path, Path]:
    """(private, public) key files in a folder: those that are there, else a new pair. The private one is
    readable by its owner only."""
    private, public = folder / SIGNING_NAME, folder / TRUSTED_NAME
    if private.exists() and public.exists():
        return private, public
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
        PublicFormat,
    )

    key = Ed25519PrivateKey.generate()
    folder.mkdir(parents=True, exist_ok=True)
    private.unlink(missing_ok=True)
    made = os.open(private, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(made, "wb") as out:
        out.write(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return private, public


def _name(key: Ed25519PublicKey) -> str:
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:16]
