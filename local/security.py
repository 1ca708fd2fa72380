"""What a secured stack (SECURE=1) is started with: a development CA, and for every identity of
contract.access a certificate and passwords.

Everything is made anew at each start, below ``security/`` of the run's folder, one folder per identity that
only its owner can read. Who runs as which identity is decided here: a process by its module, commands as the
operator.
"""

from __future__ import annotations

import secrets
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from local.certificates import CA_NAME, CERTIFICATE_NAME, KEY_NAME, Authority, files_in, write_secret
from services.contract.access import IDENTITIES, OPERATOR, REDIS
from services.runtime.settings import KafkaSettings, RedisSettings, TlsSettings

# The broker itself, and whoever makes its topics and rules: above all of them.
BROKER = "kafka"
PASSWORD_NAME = "kafka-password"
REDIS_PASSWORD_NAME = "redis-password"
# Both in one file, as Kafka wants it.
KEYSTORE_NAME = "keystore.pem"
# How soon processes see files that have been replaced.
REREAD_MS = 1_000


@dataclass(frozen=True)
class Security:
    """The files of one stack. The CA's key is in no file, so only who made them can issue again.
    ``redis_tls``: whether the stack's Redis can.
    """

    folder: Path
    redis_tls: bool
    authority: Authority = field(default_factory=Authority.new)

    def write(self) -> None:
        """Everything, in place of what was there."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True, mode=0o700)
        for name in (*IDENTITIES, BROKER):
            own = self.folder / name
            self.authority.write(own, name)
            write_secret(own / PASSWORD_NAME, secrets.token_urlsafe(32).encode())
            if name in REDIS:
                write_secret(own / REDIS_PASSWORD_NAME, secrets.token_urlsafe(32).encode())
        broker = self.folder / BROKER
        both = (broker / KEY_NAME).read_bytes() + (broker / CERTIFICATE_NAME).read_bytes()
        write_secret(broker / KEYSTORE_NAME, both)

    def rotate(self) -> None:
        """New certificates for every process of the loop; the old ones stay valid until they end."""
        for name in IDENTITIES:
            self.authority.write(self.folder / name, name)

    def password(self, name: str, file: str = PASSWORD_NAME) -> str:
        """What is in a password file."""
        return (self.folder / name / file).read_text()

    def tls(self, identity: str) -> TlsSettings:
        """Between services."""
        return files_in(self.folder / identity).model_copy(update={"reread_ms": REREAD_MS})

    def kafka(self, identity: str, bootstrap: str) -> KafkaSettings:
        """To the broker."""
        own = self.folder / identity
        return KafkaSettings(
            bootstrap_servers=bootstrap,
            username=identity,
            password_file=str(own / PASSWORD_NAME),
            ca_file=str(own / CA_NAME),
        )

    def redis(self, identity: str, url: str) -> RedisSettings:
        """To Redis; without a login for those who have none."""
        if identity not in REDIS:
            return RedisSettings(url=url)
        own = self.folder / identity
        return RedisSettings(
            url=url,
            username=identity,
            password_file=str(own / REDIS_PASSWORD_NAME),
            ca_file=str(own / CA_NAME) if self.redis_tls else "",
        )

    def environment(self, identity: str, bootstrap: str, url: str) -> dict[str, str]:
        """The three as settings of a process."""
        groups = {
            "TLS": self.tls(identity),
            "KAFKA": self.kafka(identity, bootstrap),
            "REDIS": self.redis(identity, url),
        }
        return {
            f"RECLOOP_{group}__{name.upper()}": str(getattr(settings, name))
            for group, settings in groups.items()
            for name in settings.model_fields_set
        }


def identity_of(module: str) -> str:
    """Who a module runs as: services.joiner -> joiner, trainer -> trainer, anything else -> operator."""
    name = module.removeprefix("services.").partition(".")[0]
    return name if name in IDENTITIES else OPERATOR
