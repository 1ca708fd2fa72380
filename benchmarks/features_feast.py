"""Feast beside it: a program of its own environment (`make bench-setup`), asked line by line.

Arguments: folder with items.parquet, log.parquet and labels.parquet; redis host:port. Says its version, then
answers each line of standard input: "get" -> seconds of get_online_features of 1,000 items x 16 columns and
one user, "array" -> the same with one array of 16 per entity, "history" -> seconds of the historical join,
its rows and the process's peak in MB.
"""

import random
import resource
import sys
import time
from datetime import timedelta
from pathlib import Path

import pandas as pd
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType, __version__
from feast.types import Array, Float32, Int64

WIDTH = 16


def main() -> None:
    folder, redis = sys.argv[1:3]
    names = [f"f{index}" for index in range(WIDTH)]
    item = Entity(name="item", join_keys=["item_id"], value_type=ValueType.INT64)
    user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64)
    store = FeatureStore(
        config=RepoConfig(
            registry=str(Path(folder) / "registry.db"),
            project="bench",
            provider="local",
            online_store={"type": "redis", "connection_string": f"{redis},db=1"},
            offline_store={"type": "file"},
            entity_key_serialization_version=3,
        )
    )

    def view(name, entity, fields):
        source = FileSource(
            name=name + "_source",
            path=str(Path(folder) / "items.parquet"),
            timestamp_field="event_timestamp",
        )
        return FeatureView(name=name, entities=[entity], schema=fields, source=source, ttl=timedelta(days=1))

    floats = [Field(name=one, dtype=Float32) for one in names]
    array = [Field(name="all", dtype=Array(Float32))]
    key = {"item": Field(name="item_id", dtype=Int64), "user": Field(name="user_id", dtype=Int64)}
    views = [
        view("items", item, [key["item"], *floats]), view("users", user, [key["user"], *floats]),
        view("item_arrays", item, [key["item"], *array]), view("user_arrays", user, [key["user"], *array]),
    ]  # fmt: skip
    history = []
    for entity, join in ((item, "item_id"), (user, "user_id")):
        source = FileSource(
            name=join + "_log", path=str(Path(folder) / "log.parquet"), timestamp_field="event_timestamp"
        )
        history.append(
            FeatureView(
                name=join + "_history",
                entities=[entity],
                source=source,
                ttl=timedelta(days=2),
                schema=[key[join[:4]], Field(name="position", dtype=Int64)],
            )
        )
    store.apply([item, user, *views, *history])
    frame = pd.read_parquet(str(Path(folder) / "items.parquet"))
    ids = frame["item_id"].tolist()
    for name, column in (("items", "item_id"), ("users", "user_id")):
        store.write_to_online_store(name, frame[[column, *names, "event_timestamp"]])
    for name, column in (("item_arrays", "item_id"), ("user_arrays", "user_id")):
        store.write_to_online_store(name, frame[[column, "all", "event_timestamp"]])
    print(__version__, flush=True)
    chance = random.Random(1)
    for line in sys.stdin:
        word = line.strip()
        if word == "history":
            labels = pd.read_parquet(str(Path(folder) / "labels.parquet"))
            started = time.perf_counter()
            found = store.get_historical_features(
                entity_df=labels, features=["item_id_history:position", "user_id_history:position"],
                full_feature_names=True,
            ).to_df()  # fmt: skip
            seconds = time.perf_counter() - started
            memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
            print(seconds, len(found), memory, flush=True)
            continue
        kinds = ("items", "users") if word == "get" else ("item_arrays", "user_arrays")
        columns = names if word == "get" else ["all"]
        wanted = chance.sample(ids, 1000)
        started = time.perf_counter()
        items = store.get_online_features(
            [f"{kinds[0]}:{one}" for one in columns], [{"item_id": one} for one in wanted]
        )
        store.get_online_features([f"{kinds[1]}:{one}" for one in columns], [{"user_id": wanted[0]}])
        seconds = time.perf_counter() - started
        assert len(items.proto.results[-1].values) == 1000
        print(seconds, flush=True)


if __name__ == "__main__":
    main()
