"""The run: a stack under load, into which faults are planted one after the other, each at a known moment.

    load begins -> corrupt deltas on Kafka -> the trainer restarts with an exploding learning rate, then as
    it was -> a damaged and a bad full model are registered -> the baseline stands -> bots -> more load

After each the run waits until the loop has dealt with it, so that a fault is judged by itself; one that is
never found is waited for ``patience_s`` and judged by the verdict. Left in ``folder``: ``load/`` (evidence of
every answer), ``bots.json``, ``events.json``, ``dead_letters.json``, ``deltas.json``, ``run.json`` (``Run``).
"""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaProducer

from local.compare.workers import channel_to
from local.demo import LOAD_GRACE_S, Stage, await_load, require_load, staged
from local.errors import StartFailed
from local.rollback import plants
from local.rollback.watch import PARTITION, Watch
from local.stack_config import StackConfig
from local.up import say
from rec.model.v1.model_pb2 import DeltaHeader, ParameterDelta
from rec.v1 import release_pb2, release_pb2_grpc
from services.contract import model_store, topics
from services.contract.model_store import SavedBase
from services.contract.signature import SIGNING_NAME
from services.contract.times import to_us

POLL_S = 0.2
# The bots' last visits and clicks.
BOTS_GRACE_S = 20.0
# What the load is needed for.
DEALT_WITH = "the last fault had been dealt with"


@dataclass(frozen=True)
class Plan:
    """``rate`` of users' requests per second, each for ``candidates``, for ``duration_s`` at most; the first
    fault ``lead_s`` after the load began. ``exploded_s``: how long the trainer refuses steps before it gets
    its setting back. Bots as many as users, for ``bots_s``. ``warm_s``: how long the baseline serves before
    they come. ``after_s``: watched behind the last recovery. ``patience_s``: for each thing that is waited
    for."""

    rate: float
    candidates: int
    duration_s: float
    lead_s: float
    exploded_s: float
    warm_s: float
    bots_s: float
    after_s: float
    patience_s: float


@dataclass
class Run:
    """``plants``: by case, what was planted and when (wall microseconds). ``chain``: sequence and hash that
    ranking serves in the end. ``load_status``: of the load's process."""

    plants: dict[str, dict[str, Any]] = field(default_factory=dict)
    chain: dict[str, Any] = field(default_factory=dict)
    load_status: int = 0
    deaths: list[str] = field(default_factory=list)

    def write(self, folder: Path) -> None:
        """As run.json."""
        (folder / "run.json").write_text(json.dumps(asdict(self), indent=2) + "\n")


def run(folder: Path, config: StackConfig, plan: Plan) -> Run:
    """Runs it all; raises LocalError when a part fails, Interrupted when the user stops it."""
    with staged(folder, config) as stage:
        faults = _Faults(stage, plan)
        faults.all()
        faults.keep_logs()
    faults.run.deaths = list(stage.stack.deaths)
    faults.run.write(folder)
    return faults.run


class _Faults:
    """One run of the steps."""

    def __init__(self, stage: Stage, plan: Plan) -> None:
        self.run = Run()
        self._stage, self._plan = stage, plan
        self._stack, self._folder = stage.stack, stage.folder
        self._watch = Watch(self._stack.addresses)
        self._load = stage.start_load(plan.rate, plan.duration_s, "--candidates", str(plan.candidates))

    def all(self) -> None:
        """Every fault, then the load's end."""
        say(f"load: {self._plan.rate:g} requests/s")
        time.sleep(self._plan.lead_s)
        self._until(lambda: self._watch.online().model.sequence > 2, "the model is learning")
        self._corrupt_deltas()
        self._exploding_rate()
        self._full_model("corrupt_full_model", plants.damaged_model)
        self._full_model("bad_full_model", plants.random_model)
        self._poisoned_clicks()
        time.sleep(self._plan.after_s)
        self._require_load()
        self._load.send(signal.SIGTERM)
        self.run.load_status = await_load(self._load, LOAD_GRACE_S)

    def keep_logs(self) -> None:
        """What the loop has said, while it still runs."""
        watch, online = self._watch, self._watch.online()
        self.run.chain = {
            "generation": online.model.lineage.generation,
            "sequence": online.model.sequence,
            "hash": online.chain_hash.hex(),
            "refused": dict(online.refused),
        }
        logs = {"events": watch.events(), "dead_letters": watch.dead_letters(), "deltas": watch.deltas()}
        for name, rows in logs.items():
            (self._folder / f"{name}.json").write_text(json.dumps(rows) + "\n")

    # -- the faults

    def _corrupt_deltas(self) -> None:
        """Two records on the lineage's partition: one whose body is not what its hash says, one cut short."""
        self._require_load()
        before = self._watch.online().model.sequence
        true = self._watch.newest_delta()
        values = [plants.tampered(true), plants.torn(true)]
        looks_like = DeltaHeader.FromString(ParameterDelta.FromString(values[0]).header)
        self._planted("corrupt_delta", sequence=looks_like.sequence, created_us=to_us(looks_like.created_at))
        offsets = _produced(self._stack.addresses.kafka_bootstrap, values)
        self.run.plants["corrupt_delta"]["offsets"] = offsets

        def refused() -> bool:
            letters = [one for one in self._watch.dead_letters() if one["origin"] == topics.MODEL_DELTAS.name]
            return {*offsets} <= {one["offset"] for one in letters}

        self._until(refused, "ranking refuses the corrupt deltas")
        self._until(lambda: self._watch.online().model.sequence > before + 2, "true deltas are applied")

    def _exploding_rate(self) -> None:
        """The trainer is restarted with a setting that is wrong, and later with the one that it had."""
        self._require_load()
        right = self._stack.config
        trainer = {**right.process_env.get("trainer", {}), **plants.EXPLODING}
        self._stack.config = replace(right, process_env={**right.process_env, "trainer": trainer})
        self._planted("exploding_learning_rate", settings=plants.EXPLODING)
        self._stack.restart("trainer")
        began = len(self._watch.dead_letters())
        self._until(lambda: len(self._watch.dead_letters()) > began, "the trainer refuses steps")
        time.sleep(self._plan.exploded_s)
        self._stack.config = right
        self.run.plants["exploding_learning_rate"]["mended_us"] = _now_us()
        before = self._watch.online().model.sequence
        self._stack.restart("trainer")
        self._until(lambda: self._watch.online().model.sequence > before + 2, "learning goes on")

    def _full_model(self, name: str, make: Callable[..., SavedBase]) -> None:
        """A full model is registered, as the batch trainer would."""
        self._require_load()
        store = self._stack.addresses.model_store_uri
        first = self._watch.listed().generations[0].base
        state, _ = model_store.load_base(first.manifest_uri, root=store)
        saved = make(state, store, self._stack.paths.model_keys / SIGNING_NAME)
        request = release_pb2.RegisterGenerationRequest(
            manifest_uri=saved.manifest_uri, manifest_digest=saved.manifest_digest, parent_generation=1
        )
        with channel_to("release", self._stack.addresses.target("release")) as channel:
            stub = release_pb2_grpc.ReleaseServiceStub(channel)
            generation = stub.RegisterGeneration(request, timeout=20).generation
        self._planted(name, generation=generation)
        what = f"generation {generation} is refused"
        self._until(lambda: self._watch.state_of(generation) == "rejected", what)

    def _poisoned_clicks(self) -> None:
        """Bots come; then the loop is left alone until nothing is taken back any more."""
        self._until(self._watch.baseline_serves, "the baseline stands")
        time.sleep(self._plan.warm_s)
        self._require_load()
        plan, where = self._plan, self._stack.addresses
        known = len(self._watch.rollbacks())
        self._planted("poisoned_clicks", rate=plan.rate, seconds=plan.bots_s)
        bots = self._stage.start(
            "bots", "local.rollback.bots", "--gateway", where.target("gateway"),
            "--collector", where.target("collector"), "--rate", str(plan.rate), "--seconds", str(plan.bots_s),
            "--candidates", str(plan.candidates), "--out", str(self._folder / "bots.json"),
        )  # fmt: skip
        if not bots.wait(plan.bots_s + BOTS_GRACE_S):
            raise StartFailed(f"the bots did not end; {bots.log} ends with:\n{bots.tail()}")

        def taken_back() -> bool:
            orders = self._watch.rollbacks()[known:]
            return bool(orders) and self._watch.online().model.sequence >= orders[-1] > 0

        self._until(taken_back, "the guard takes the arm back")

    # -- tools

    def _planted(self, name: str, **what: Any) -> None:
        self.run.plants[name] = {"planted_us": _now_us(), **what}
        say(f"planted: {name.replace('_', ' ')}")

    def _until(self, reached: Callable[[], bool], what: str) -> None:
        began = time.monotonic()
        while not reached():
            waited_s = time.monotonic() - began
            if waited_s > self._plan.patience_s:
                say(f"  not within {waited_s:.0f} s: {what}")
                return
            time.sleep(POLL_S)
        say(f"  {what} ({time.monotonic() - began:.1f} s)")

    def _require_load(self) -> None:
        require_load(self._load, DEALT_WITH)


def _produced(bootstrap: str, values: list[bytes]) -> list[int]:
    """Writes records where the first lineage's deltas stand; their offsets."""

    async def send() -> list[int]:
        producer = AIOKafkaProducer(bootstrap_servers=bootstrap, max_request_size=16 * 1024 * 1024)
        await producer.start()
        try:
            sent = [
                await producer.send_and_wait(topics.MODEL_DELTAS.name, value, partition=PARTITION)
                for value in values
            ]
        finally:
            await producer.stop()
        return [one.offset for one in sent]

    return asyncio.run(send())


def _now_us() -> int:
    return time.time_ns() // 1000
