"""What release asks of a manifest before it is registered: signed by a trusted key, and the one named.

Followers check it again with the state behind it; what is refused here never gets a number.
"""

from __future__ import annotations

import asyncio

from rec.model.v1 import model_pb2
from services.contract import model_store
from services.contract.errors import LoopError, MalformedRecord
from services.contract.model_store import SavedBase
from services.contract.signature import Trusted
from services.runtime.telemetry import counter


class Manifests:
    """Reads them from the store's root; reads none while no key is trusted."""

    def __init__(self, root: str, trusted: Trusted | None) -> None:
        self._root = root
        self._trusted = trusted
        self._refused = counter("release_manifests_refused", "Manifests not registered.", ["error"])

    async def check_generation(self, uri: str, digest: bytes) -> None:
        """NotFound, BadSignature, or MalformedRecord when it is another manifest or no full model."""
        saved = await self._read(uri, digest)
        if saved is not None and saved.sequence != 0:
            self._refused.labels("MalformedRecord").inc()
            raise MalformedRecord.one("sequence", saved.sequence, "0: a full model starts a lineage")

    async def check_base(self, lineage: model_pb2.Lineage, base: model_pb2.BaseRef) -> None:
        """As ``check_generation``; MalformedRecord also when the reference says other than the manifest."""
        saved = await self._read(base.manifest_uri, base.manifest_digest)
        if saved is None:
            return
        said = (*_key(lineage), base.sequence, base.epoch, base.chain_hash.hex(), base.delta_offset)
        lineage_found, chain = (saved.generation, saved.policy), saved.chain_hash.hex()
        found = (*lineage_found, saved.sequence, saved.epoch, chain, saved.delta_offset)
        if said != found:
            self._refused.labels("MalformedRecord").inc()
            raise MalformedRecord.one("base", said, f"{found}, as in {saved.manifest_uri}")

    async def _read(self, uri: str, digest: bytes) -> SavedBase | None:
        if self._trusted is None or not uri:
            return None
        try:
            return await asyncio.to_thread(
                model_store.read_manifest,
                uri,
                root=self._root,
                manifest_digest=digest,
                trusted=self._trusted,
            )
        except LoopError as error:
            self._refused.labels(type(error).__name__).inc()
            raise


def _key(lineage: model_pb2.Lineage) -> tuple[int, str]:
    return lineage.generation, lineage.policy
