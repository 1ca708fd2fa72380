"""The rules of contract.access as ACLs of a broker whose authorizer knows none yet.

aiokafka's admin client has no call for it, but the request.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.protocol.admin import CreateAclsRequest_v1, DescribeAclsRequest
from aiokafka.protocol.api import Request

from local.errors import StartFailed
from services.contract.access import KafkaRule, kafka_rules
from services.runtime.kafka_connect import connection_options
from services.runtime.settings import KafkaSettings

# Numbers of the protocol.
_RESOURCES = {"topic": 2, "group": 3, "transactionalId": 5}
_OPERATIONS = {"Read": 3, "Write": 4, "Describe": 8}
_LITERAL, _PREFIXED = 3, 4
_ALLOW = 3
_ANY = 1
_PATIENCE_S = 20.0
_POLL_S = 0.05
_DENIED = re.compile(
    r"Principal = User:(?P<who>\S+) is Denied operation = (?P<operation>\w+) .*"
    r"resource = (?P<resource>\w+):\w+:(?P<name>\S+) "
)


class _CreateAcls(Request[CreateAclsRequest_v1]):
    """All in one request."""

    API_KEY = CreateAclsRequest_v1.API_KEY

    def __init__(self, creations: list[tuple[Any, ...]]) -> None:
        self._creations = creations

    def build(self, request_struct_class: type[CreateAclsRequest_v1]) -> CreateAclsRequest_v1:
        """aiokafka's."""
        return request_struct_class(self._creations)


def creations(rules: list[KafkaRule]) -> list[tuple[Any, ...]]:
    """One of the protocol's rows per operation: from any host, allowed. Who reads and writes a topic may
    describe it once."""
    rows = {
        (
            _RESOURCES[rule.resource],
            rule.name,
            _PREFIXED if rule.prefixed else _LITERAL,
            f"User:{rule.identity}",
            "*",
            _OPERATIONS[operation],
            _ALLOW,
        )
        for rule in rules
        for operation in rule.operations
    }
    return sorted(rows)


def create_acls(kafka: KafkaSettings) -> None:
    """Makes every rule of the table. Raises StartFailed with Kafka's reason."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, _create(kafka)).result()


async def _create(kafka: KafkaSettings) -> None:
    admin = AIOKafkaAdminClient(**connection_options(kafka), request_timeout_ms=kafka.request_timeout_ms)
    await admin.start()
    try:
        wanted = creations(kafka_rules())
        answer = await admin._send_request(_CreateAcls(wanted))
        for row, (code, message) in zip(wanted, answer.creation_responses, strict=True):
            if code:
                raise StartFailed(f"Kafka refused a rule for {row[3]} on {row[1]}: {message or code}")
        await _until_known(admin, len(wanted))
    finally:
        await admin.close()


async def _until_known(admin: AIOKafkaAdminClient, count: int) -> None:
    """The controller has the rules before the broker, which asks them, has read them."""
    everything = DescribeAclsRequest(_ANY, None, _ANY, None, None, _ANY, _ANY)
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        found = await admin._send_request(everything)
        if sum(len(resource[-1]) for resource in found.resources) >= count:
            return
        if time.monotonic() > deadline:
            raise StartFailed(f"Kafka does not know its rules after {_PATIENCE_S:.0f} s")
        await asyncio.sleep(_POLL_S)


def denials(log: Path) -> Counter[tuple[str, str, str, str]]:
    """How often the broker has denied (who, operation, resource, name), by its log."""
    found: Counter[tuple[str, str, str, str]] = Counter()
    for line in log.read_text(errors="replace").splitlines():
        if said := _DENIED.search(line):
            found[said["who"], said["operation"], said["resource"], said["name"]] += 1
    return found
