"""The table of who may do what: whole, and in agreement with what the processes are."""

from __future__ import annotations

import pytest

from local.processes import SPECS
from services.contract import access, topics
from services.contract.access import CALLERS, IDENTITIES, KafkaRule, kafka_rules
from services.feature_pipeline.served_views import WRITER
from services.joiner.settings import Settings as JoinerSettings
from services.lake.settings import Settings as LakeSettings
from services.release.settings import Settings as ReleaseSettings
from tests.unit.test_project_rules import rpcs


def test_every_method_has_its_callers_and_no_other_is_named() -> None:
    ours = {method for method in CALLERS if method.startswith("rec.")}
    assert ours == set(rpcs())
    assert {method for method in CALLERS if method not in ours} == {
        "grpc.health.v1.Health/Check",
        "grpc.health.v1.Health/Watch",
        "grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    }


def test_every_name_in_the_tables_is_an_identity() -> None:
    named = {one for callers in CALLERS.values() for one in callers}
    named |= {rule.identity for rule in kafka_rules()} | set(access.REDIS)
    assert named == set(IDENTITIES)


def test_every_process_that_is_launched_is_an_identity() -> None:
    launched = {spec.module[0].removeprefix("services.") for spec in SPECS}
    assert launched - {access.PAGE} == set(access.SERVICES)


def writers(topic: str) -> set[str]:
    return {rule.identity for rule in kafka_rules() if rule.name == topic and "Write" in rule.operations}


@pytest.mark.parametrize("topic", topics.ALL, ids=lambda topic: topic.name)
def test_only_its_owners_write_a_topic(topic: topics.Topic) -> None:
    assert writers(topic.name) == {name.replace("operators", access.OPERATOR) for name in topic.writers}
    assert not any(rule.name == "*" and "Write" in rule.operations for rule in kafka_rules())


def test_only_the_joiner_writes_topics_of_other_schemes() -> None:
    prefixed = [rule for rule in kafka_rules() if rule.resource == "topic" and rule.prefixed]
    assert {rule.identity for rule in prefixed} == {"joiner"}
    assert {rule.name for rule in prefixed} == {f"{topic.name}-" for topic in topics.JOINED}


def allows(identity: str, resource: str, name: str, operation: str) -> bool:
    def fits(rule: KafkaRule) -> bool:
        named = rule.name in ("*", name) or (rule.prefixed and name.startswith(rule.name))
        return rule.identity == identity and rule.resource == resource and named

    return any(fits(rule) and operation in rule.operations for rule in kafka_rules())


def test_groups_and_transactional_ids_are_those_of_the_processes() -> None:
    joiner, lake, release = JoinerSettings(), LakeSettings(), ReleaseSettings()
    for group in (joiner.group_id, "joiner-lookup"):
        assert allows("joiner", "group", group, "Read")
        assert allows("joiner", "transactionalId", f"{group}-3", "Write")
    assert allows("lake", "group", lake.group_id, "Read")
    assert allows("release", "transactionalId", release.transactional_id, "Write")
    assert allows("feature_pipeline", "transactionalId", WRITER, "Write")
    assert allows("trainer", "transactionalId", "trainer-1-online", "Write")
    assert not allows("trainer", "transactionalId", "release", "Write")
    assert not allows("recall", "topic", topics.SAMPLES.name, "Write")
