"""``python -m k8s.kafka_objects``: writes the topics for Strimzi's operator from services/contract/topics.py.

The files are committed, so that ``kubectl apply -k`` needs no Python; a test fails when they differ.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from services.contract import topics

API = "kafka.strimzi.io/v1"
CLUSTER = "recloop"
REPLICAS = 3
FOLDER = Path(__file__).parent / "components/strimzi-kafka"
HEAD = "# Written by `python -m k8s.kafka_objects` from services/contract/topics.py.\n"


def topic(of: topics.Topic) -> dict[str, Any]:
    """The KafkaTopic of one topic."""
    return {
        "apiVersion": API,
        "kind": "KafkaTopic",
        "metadata": {"name": of.name, "labels": {"strimzi.io/cluster": CLUSTER}},
        "spec": {
            "partitions": of.partitions,
            "replicas": REPLICAS,
            "config": dict(sorted(of.kafka_config().items())),
        },
    }


def files() -> dict[Path, str]:
    """Every generated file and its text."""
    return {FOLDER / "topics.yaml": HEAD + yaml.safe_dump_all(map(topic, topics.ALL), sort_keys=False)}


def stale() -> list[Path]:
    """The files that the code has changed since."""
    return [path for path, text in files().items() if not path.is_file() or path.read_text() != text]


def main() -> None:
    """Writes them."""
    for path, text in files().items():
        path.write_text(text)


if __name__ == "__main__":
    main()
