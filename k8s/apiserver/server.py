"""etcd and kube-apiserver on loopback, in a folder of their own; nobody else can log in."""

from __future__ import annotations

import json
import secrets
import shutil
import subprocess
import time
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from local.child import POLL_S, Child
from local.errors import MissingPrerequisite, StartFailed
from local.ports import HOST, free_ports

START_TIMEOUT_S = 120.0
COMMAND_TIMEOUT_S = 120
STOP_GRACE_S = 10.0


class ApiServer:
    """``start``, then ``kubectl`` as often as one likes, then ``stop``."""

    def __init__(self, binaries: Path, folder: Path) -> None:
        self._binaries = binaries
        self._folder = folder
        self._children: list[Child] = []
        self._kubectl = shutil.which("kubectl") or ""
        if not self._kubectl:
            raise MissingPrerequisite("kubectl", "to send the manifests", "the package of your system")

    def start(self) -> None:
        """Returns when it is ready. Raises StartFailed with the end of a log."""
        client, peer, port = free_ports(3)
        etcd = f"http://{HOST}:{client}"
        self._spawn(
            "etcd", "--data-dir", str(self._folder / "etcd"), "--unsafe-no-fsync",
            "--listen-client-urls", etcd, "--advertise-client-urls", etcd,
            "--listen-peer-urls", f"http://{HOST}:{peer}",
        )  # fmt: skip
        token = secrets.token_hex(16)
        (self._folder / "tokens.csv").write_text(f"{token},admin,admin,system:masters\n")
        key = str(self._signing_key())
        self._spawn(
            "kube-apiserver", "--etcd-servers", etcd, "--bind-address", HOST, "--secure-port", str(port),
            "--cert-dir", str(self._folder / "certificates"),
            "--token-auth-file", str(self._folder / "tokens.csv"),
            "--authorization-mode", "RBAC", "--service-cluster-ip-range", "10.96.0.0/16",
            "--service-account-issuer", "https://kubernetes.default.svc",
            "--service-account-key-file", key, "--service-account-signing-key-file", key,
        )  # fmt: skip
        self._write_config(port, token)
        self._wait_until_ready()

    def kubectl(self, *arguments: str, given: str | None = None) -> subprocess.CompletedProcess[str]:
        """One command as its administrator; ``given`` goes to its standard input."""
        command = [self._kubectl, "--kubeconfig", str(self._folder / "config"), *arguments]
        return subprocess.run(
            command, input=given, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S, check=False
        )

    def stop(self) -> None:
        """Ends both, the API server first."""
        for child in reversed(self._children):
            child.stop(STOP_GRACE_S)

    def _spawn(self, name: str, *options: str) -> None:
        command = [str(self._binaries / name), *options]
        self._children.append(Child.start(name, command, self._folder / f"{name}.log"))

    def _signing_key(self) -> Path:
        path = self._folder / "service-accounts.pem"
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.TraditionalOpenSSL,
                serialization.NoEncryption(),
            )
        )
        return path

    def _write_config(self, port: int, token: str) -> None:
        cluster = {"server": f"https://{HOST}:{port}", "insecure-skip-tls-verify": True}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "here", "cluster": cluster}],
            "users": [{"name": "admin", "user": {"token": token}}],
            "contexts": [{"name": "here", "context": {"cluster": "here", "user": "admin"}}],
            "current-context": "here",
        }
        (self._folder / "config").write_text(json.dumps(config))

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while self.kubectl("get", "--raw", "/readyz").returncode != 0:
            for child in self._children:
                child.require_running()
            if time.monotonic() > deadline:
                raise StartFailed(
                    f"kube-apiserver is not ready; its log ends with:\n{self._children[-1].tail()}"
                )
            time.sleep(10 * POLL_S)
