"""Who may do what: the one table behind the services' authorisation, Kafka's ACLs and Redis' users.

An identity is the name of a process of the loop, or of who works with it (``operator``: people and the
launcher; ``page``: the web page). How a caller proves it is not said here: between services by a
certificate, to Kafka and Redis by a password (runtime.tls, runtime.secrets). What is not in the table is
refused.

Topics have their writers and readers in contract.topics; what a Kafka client needs besides (groups,
transactional ids) is here. Joiners of other schemes are the identity ``joiner`` too: they write topics whose
names go on with a suffix, in groups whose names begin alike.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from services.contract import topics
from services.contract.feature_events import FOLD_GROUP, SPLIT_GROUP

OPERATOR = "operator"
PAGE = "page"
LOADGEN = "loadgen"
SERVICES = (
    "gateway",
    "recall",
    "feature",
    "ranking",
    "collector",
    "joiner",
    "feature_pipeline",
    "release",
    "trainer",
    "lake",
)
IDENTITIES = (*SERVICES, LOADGEN, PAGE, OPERATOR)
# Every identity.
ANYONE = IDENTITIES

_WATCHERS = (OPERATOR, PAGE)
_REPLAYER = (LOADGEN, OPERATOR)
_REFLECTION = "ServerReflection/ServerReflectionInfo"

# Method -> who may call it.
CALLERS: dict[str, tuple[str, ...]] = {
    "rec.v1.GatewayService/Recommend": (LOADGEN, PAGE, OPERATOR),
    "rec.v1.RecallService/Retrieve": ("gateway", OPERATOR),
    "rec.v1.RecallService/GetRecallStatus": _WATCHERS,
    "rec.v1.FeatureService/GetFeatures": ("gateway", "joiner", "lake", OPERATOR),
    "rec.v1.FeatureService/DescribeFeatures": _WATCHERS,
    "rec.v1.FeatureService/ListFeatureViews": _WATCHERS,
    "rec.v1.FeatureService/ExplainFeatures": _WATCHERS,
    "rec.v1.FeatureService/WaitForBarrier": _REPLAYER,
    "rec.v1.RankingService/Rank": ("gateway", OPERATOR),
    "rec.v1.RankingService/GetModelStatus": (LOADGEN, *_WATCHERS),
    "rec.v1.RankingService/WatchApplied": (LOADGEN, *_WATCHERS),
    "rec.v1.RankingService/WaitForBarrier": _REPLAYER,
    "rec.v1.RankingService/EmitBarrier": _REPLAYER,
    "rec.v1.CollectorService/LogEvents": _REPLAYER,
    "rec.v1.CollectorService/StreamEvents": _REPLAYER,
    "rec.v1.CollectorService/PublishItems": _REPLAYER,
    "rec.v1.CollectorService/EmitBarrier": _REPLAYER,
    # Whose models are loaded, the signature says; whose may be registered, this does.
    "rec.v1.ReleaseService/RegisterGeneration": ("trainer", LOADGEN, OPERATOR),
    "rec.v1.ReleaseService/RegisterBase": ("trainer", OPERATOR),
    "rec.v1.ReleaseService/SetArm": ("trainer", LOADGEN, OPERATOR),
    "rec.v1.ReleaseService/RollBack": (OPERATOR,),
    "rec.v1.ReleaseService/ReportRollback": ("trainer", OPERATOR),
    "rec.v1.ReleaseService/GateGeneration": (OPERATOR,),
    "rec.v1.ReleaseService/StepGeneration": (OPERATOR,),
    "rec.v1.ReleaseService/HoldGeneration": (OPERATOR,),
    "rec.v1.ReleaseService/GetServed": _WATCHERS,
    "rec.v1.ReleaseService/ListReleases": ("trainer", LOADGEN, *_WATCHERS),
    "rec.v1.LakeService/GetHistoricalFeatures": (OPERATOR,),
    "rec.v1.LakeService/ExplainHistoricalFeature": (OPERATOR,),
    "rec.v1.ScenarioService/SwitchScenario": _WATCHERS,
    "rec.v1.ScenarioService/ListScenarios": _WATCHERS,
    "rec.v1.WorkerService/GetWorkerStatus": (LOADGEN, *_WATCHERS),
    "grpc.health.v1.Health/Check": ANYONE,
    "grpc.health.v1.Health/Watch": ANYONE,
    f"grpc.reflection.v1.{_REFLECTION}": (OPERATOR,),
    f"grpc.reflection.v1alpha.{_REFLECTION}": (OPERATOR,),
}

# Who reads every topic and asks where every group stands: evidence and reports are made of it.
_READ_ALL = (LOADGEN, OPERATOR)
# Names in topics.py that are no processes of the loop.
_PEOPLE = {"operators": OPERATOR, "reports": OPERATOR}
GROUPS: dict[str, tuple[str, ...]] = {
    "joiner": ("joiner",),
    "feature_pipeline": (SPLIT_GROUP, FOLD_GROUP),
    "lake": ("lake",),
}
TRANSACTIONAL_IDS: dict[str, tuple[str, ...]] = {
    "joiner": ("joiner-",),
    "feature_pipeline": ("feature-views-served",),
    "release": ("release",),
    "trainer": ("trainer-",),
}


@dataclass(frozen=True, order=True)
class KafkaRule:
    """What an identity may do with a resource: ``topic``, ``group`` or ``transactionalId``, named in full, or
    by what its name begins with (``prefixed``); ``*`` is every one."""

    identity: str
    resource: str
    name: str
    operations: tuple[str, ...]
    prefixed: bool = False


def kafka_rules() -> list[KafkaRule]:
    """Every rule; nothing else is allowed."""
    return sorted({*_topic_rules(), *_client_rules()})


def _topic_rules() -> Iterator[KafkaRule]:
    for topic in topics.ALL:
        for name in topic.writers:
            writer = _PEOPLE.get(name, name)
            yield KafkaRule(writer, "topic", topic.name, ("Write", "Describe"))
            if writer == "joiner":
                yield KafkaRule(writer, "topic", f"{topic.name}-", ("Write", "Describe"), prefixed=True)
        for name in topic.readers:
            yield KafkaRule(_PEOPLE.get(name, name), "topic", topic.name, ("Read", "Describe"))
    for reader in _READ_ALL:
        yield KafkaRule(reader, "topic", "*", ("Read", "Describe"))


def _client_rules() -> Iterator[KafkaRule]:
    for identity, groups in GROUPS.items():
        for group in groups:
            yield KafkaRule(identity, "group", group, ("Read", "Describe"), prefixed=identity == "joiner")
    for reader in _READ_ALL:
        yield KafkaRule(reader, "group", "*", ("Describe",))
    for identity, ids in TRANSACTIONAL_IDS.items():
        for one in ids:
            yield KafkaRule(
                identity, "transactionalId", one, ("Write", "Describe"), prefixed=one.endswith("-")
            )


# Redis: what each user may do, in the words of ACL SETUSER; contract.redis_keys says which keys are whose.
_READS = ("+@read", "+@connection", "-@dangerous")
_WRITES = ("+@all", "-@admin", "-@dangerous", "+info")
REDIS: dict[str, tuple[str, ...]] = {
    "feature": ("~f:*", "~p:barrier", "&p:barrier", *_READS, "+@pubsub", "+client|tracking"),
    "recall": ("~f:*", "~r:*", *_READS, "+eval"),
    "feature_pipeline": ("~f:*", "~r:*", "~p:*", "&p:barrier", *_WRITES),
    "lake": ("~f:*", "~p:view:*", "~p:mark:*", *_WRITES),
    LOADGEN: ("~f:*", "~r:*", "~p:*", *_WRITES),
    OPERATOR: ("~*", "&*", "+@all"),
}
