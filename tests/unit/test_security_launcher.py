"""What the launcher decides for SECURE=1, without starting anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from local.commands import secured
from local.errors import LocalError
from local.kafka_acls import creations, denials
from local.kafka_config import secure_properties, server_properties
from local.processes import SPECS
from local.redis_server import acl_file, has_tls
from local.security import BROKER, Security, identity_of
from local.stack_config import StackConfig
from services.contract.access import IDENTITIES, REDIS, KafkaRule
from services.runtime.settings import Connections


@pytest.fixture(scope="module")
def security(tmp_path_factory: pytest.TempPathFactory) -> Security:
    made = Security(tmp_path_factory.mktemp("stack") / "security", redis_tls=False)
    made.write()
    return made


def test_secure_is_asked_for_by_1_and_needs_its_own_servers(tmp_path: Path) -> None:
    assert [secured({}), secured({"SECURE": "0"}), secured({"SECURE": "1"})] == [False, False, True]
    with pytest.raises(LocalError, match="SECURE=yes"):
        secured({"SECURE": "yes"})
    for name in ("KAFKA_BOOTSTRAP_SERVERS", "REDIS_URL"):
        with pytest.raises(LocalError, match=f"{name} is set"):
            secured({"SECURE": "1", name: "theirs"})
    with pytest.raises(ValueError, match="its own Kafka and Redis"):
        StackConfig(tmp_path, secure=True, redis_url="redis://theirs:1/0")


def test_a_process_runs_as_its_module_and_everybody_else_as_the_operator() -> None:
    assert {identity_of(spec.module[0]) for spec in SPECS} <= set(IDENTITIES) - {"operator", "loadgen"}
    assert identity_of("loadgen") == "loadgen"
    assert identity_of("services.joiner") == "joiner"
    assert identity_of("benchmarks.bench_join") == identity_of("") == "operator"


def test_the_environment_of_an_identity_is_what_its_settings_read(
    security: Security, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in security.environment("feature", "k:1", "redis://r:2/0").items():
        monkeypatch.setenv(name, value)
    found = Connections()
    assert found.tls == security.tls("feature")
    assert found.kafka == security.kafka("feature", "k:1")
    assert found.redis == security.redis("feature", "redis://r:2/0")
    assert found.redis.username == "feature"
    assert security.redis("gateway", "redis://r:2/0").username == "", "the gateway has no login to Redis"


def test_new_certificates_take_the_place_of_the_old_and_passwords_stay(security: Security) -> None:
    def held(name: str) -> tuple[bytes, str]:
        return Path(security.tls(name).certificate_file).read_bytes(), security.password(name)

    before = {name: held(name) for name in IDENTITIES}
    security.rotate()
    after = {name: held(name) for name in IDENTITIES}
    assert all(before[name][0] != after[name][0] and before[name][1] == after[name][1] for name in IDENTITIES)


def test_a_secured_broker_has_no_plaintext_listener(tmp_path: Path) -> None:
    lines = server_properties(1, 2, tmp_path) + secure_properties(1, 2, tmp_path, "secret")
    found = dict(line.split("=", 1) for line in lines.splitlines())
    assert found["listeners"] == "SASL_SSL://127.0.0.1:1,CONTROLLER://127.0.0.1:2"
    assert "PLAINTEXT" not in found["listener.security.protocol.map"] + found["advertised.listeners"]
    assert found["listener.name.controller.ssl.client.auth"] == "required"
    assert found["super.users"] == f"User:{BROKER};User:CN={BROKER}"


def test_a_rule_is_a_row_of_the_protocol_per_operation() -> None:
    rule = KafkaRule("joiner", "topic", "samples-", ("Write", "Describe"), prefixed=True)
    rows = [(2, "samples-", 4, "User:joiner", "*", operation, 3) for operation in (4, 8)]
    assert creations([rule]) == rows


def test_denials_are_read_from_the_brokers_log(tmp_path: Path) -> None:
    line = (
        "[2026-11-26 13:00:00,000] INFO Principal = User:recall is Denied operation = WRITE from host = "
        "127.0.0.1 on resource = Topic:LITERAL:samples for request = Produce with resourceRefCount = 1 "
        "based on rule DefaultDeny (kafka.authorizer.logger)\n"
    )
    log = tmp_path / "server.log"
    log.write_text("something else\n" + 2 * line)
    assert denials(log) == {("recall", "WRITE", "Topic", "samples"): 2}


def test_redis_users_are_those_of_the_table_and_no_password_stands_there(security: Security) -> None:
    lines = acl_file(security).splitlines()
    assert lines[0] == "user default off"
    assert [line.split()[1] for line in lines[1:]] == list(REDIS)
    assert all(security.password(name, "redis-password") not in "".join(lines) for name in REDIS)


@pytest.mark.parametrize(("knows", "found"), [("no-such-setting", True), ("tls-port", False)])
def test_whether_a_redis_has_tls_is_what_it_stops_at(tmp_path: Path, knows: str, found: bool) -> None:
    binary = tmp_path / "redis-server"
    binary.write_text(f"#!/bin/sh\necho \">>> '{knows} 1'\"\nexit 1\n")
    binary.chmod(0o755)
    assert has_tls(binary) is found
    assert not has_tls(tmp_path / "none")
