"""What make rollback-demo plants, and how it judges: a run whose logs say that a fault was served fails by
name."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from local.rollback import plants
from local.rollback.verdict import ORDER, Logs, failures, figures
from services.contract import delta, model_store
from services.contract.delta import BadDelta
from services.contract.errors import MalformedRecord
from services.contract.signature import SIGNING_NAME, TRUSTED_NAME, Trusted, make_keys
from tests.ranking_kit import Chain
from tests.trainer_kit import START_US, World, new_core

S = 1_000_000
T0 = 1_700_000_000 * S
LOG = "model-deltas"
# Sequences are published one a second; what the bots taught stands from 200 on; 260 takes it back to 130.
PLANTS = {
    "corrupt_delta": {
        "planted_us": T0 + 20 * S,
        "offsets": [900, 901],
        "sequence": 21,
        "created_us": T0 + 20 * S - S // 5,
    },
    "exploding_learning_rate": {"planted_us": T0 + 40 * S, "mended_us": T0 + 60 * S},
    "corrupt_full_model": {"planted_us": T0 + 80 * S, "generation": 2},
    "bad_full_model": {"planted_us": T0 + 90 * S, "generation": 3},
    "poisoned_clicks": {"planted_us": T0 + 200 * S},
}
BACK = 260


def at(second: float) -> int:
    return T0 + int(second * S)


def event(second: float, decision: str, arm: str = "online", **told: Any) -> dict[str, Any]:
    return {"at_us": at(second), "arm": arm, "decision": decision, **told}


def sequence_served(second: int) -> int:
    return second


class Story:
    """The logs of a run in which all went well; tests change one thing."""

    def __init__(self) -> None:
        seconds = np.arange(1, 300)
        online = {
            "arm": np.full(len(seconds), "online", object),
            "generation": np.ones(len(seconds), np.int64),
            "sequence": seconds.copy(),
            "sent_us": T0 + seconds * S + S // 2,
            "applied_us": T0 + seconds * S,
            "shown_true_p": np.where(seconds < BACK, 0.1, 0.2),
        }
        old = copy.deepcopy(online)
        old["arm"][:] = "baseline"
        old["sequence"][:] = 0
        old["applied_us"][:] = T0
        self.answers = {name: np.concatenate((online[name], old[name])) for name in online}
        self.applied = {
            "generation": np.ones(len(seconds), np.int64),
            "sequence": seconds.copy(),
            "applied_us": T0 + seconds * S,
            "created_us": T0 + seconds * S - S // 5,
        }
        self.deltas = [
            {
                "sequence": int(n),
                "epoch": 1 if n <= 40 else 2 if n <= 60 else 3 if n < BACK else 4,
                "created_us": at(n - 0.2),
                "hash": f"{n:x}",
                "restored_sequence": 130 if n == BACK else None,
                "max_abs": 3.0,
            }
            for n in seconds
        ]
        self.dead_letters = [
            {"at_us": at(20.5), "reason": "bad_hash", "origin": LOG, "partition": 1, "offset": 900},
            {"at_us": at(20.6), "reason": "undecodable", "origin": LOG, "partition": 1, "offset": 901},
            {"at_us": at(45), "reason": "step_update", "origin": "samples", "partition": 0, "offset": 7},
        ]
        guard = {"failed": ["log_loss"]}
        self.events = [
            event(82, "gate_failed", "generation/2/life", failed=["loadable"]),
            event(95, "gate_failed", "generation/3/life", failed=["auc", "rows"]),
            event(258.5, "rollback_ordered", order=9, reason="guard of arm online", guard=guard),
            event(260.1, "rolled_back", order=9, restored_sequence=130, sequence=BACK, rows=800),
        ]
        self.chain = {"generation": 1, "sequence": 299, "hash": f"{299:x}", "refused": {"bad_hash": 1}}
        self.load = {"requests": 598, "errors": 0, "latency_ms": {"p50": 9.0, "p99": 40.0}}
        self.bots = {"requests": 600, "errors": 0, "clicks": 6_000}

    def figures(self) -> dict[str, Any]:
        logs = Logs(self.answers, self.applied, self.events, self.dead_letters, self.deltas)
        return figures(PLANTS, self.chain, logs, self.load, self.bots) | {"deaths": [], "quick": False}

    def case(self, name: str) -> dict[str, Any]:
        return next(one for one in self.figures()["cases"] if one["name"] == name)

    def failures(self) -> list[str]:
        return failures(self.figures())

    def served(self, second: int, **changes: Any) -> None:
        """Changes the answer of the arm online that was sent in a second."""
        for name, value in changes.items():
            self.answers[name][second - 1] = value


def test_a_run_in_which_everything_is_found_and_mended_passes_with_its_seconds():
    story = Story()
    found = story.figures()
    assert story.failures() == []
    said = {one["name"]: (one["detected_s"], one["recovered_s"]) for one in found["cases"]}
    assert tuple(said) == ORDER
    assert said["corrupt_delta"] == (0.5, 1.0)
    assert said["exploding_learning_rate"] == (5.0, 21.0)
    assert said["corrupt_full_model"] == (2.0, 2.0)
    assert said["poisoned_clicks"] == (58.5, 60.0)
    assert [one["served_bad"] for one in found["cases"]] == [0, 0, 0, 0, 59]
    (rolled,) = found["rollbacks"]
    assert (rolled["healthy_s"], rolled["taken_back_s"], rolled["failed"]) == (1.5, 128.7, ["log_loss"])
    ctr = {name: arms["online"] for name, arms in found["true_ctr"].items()}
    assert ctr == {"before": 0.1, "poisoned": 0.1, "after": 0.2}
    assert found["arms"] == {"baseline": 299, "online": 299}


def corrupt_applied(story: Story) -> None:
    story.applied["created_us"][20] -= S


def exploded(story: Story) -> None:
    story.deltas[49]["max_abs"] = float("inf")


def bad_generation(story: Story) -> None:
    story.served(100, generation=3)


def late_answer(story: Story) -> None:
    story.served(270, sequence=210)


def poisoned_baseline(story: Story) -> None:
    story.answers["sequence"][299 + 240] = 205


def forked(story: Story) -> None:
    story.chain["hash"] = "ff"


def false_alarm(story: Story) -> None:
    guard = {"failed": ["psi"]}
    story.events[:0] = [
        event(30, "rollback_ordered", order=1, reason="guard of arm online", guard=guard),
        event(31, "rolled_back", order=1, restored_sequence=10, sequence=31, rows=5),
    ]


def slow(story: Story) -> None:
    story.events[2]["at_us"] = at(256.9)


def shallow(story: Story) -> None:
    story.events[3]["restored_sequence"] = 215


def never_found(story: Story) -> None:
    del story.events[2:]


def too_few_rows(story: Story) -> None:
    story.events[1]["failed"] = ["rows", "positives"]


def one_letter(story: Story) -> None:
    del story.dead_letters[1]


def not_mended(story: Story) -> None:
    for one in story.deltas[60:]:
        one["epoch"] = 2


def failed_request(story: Story) -> None:
    story.load["errors"] = 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (corrupt_applied, "corrupt_delta: served_bad = 1, not 0"),
        (exploded, "exploding_learning_rate: served_bad = 1, not 0"),
        (bad_generation, "bad_full_model: served_bad = 1, not 0"),
        (late_answer, "poisoned_clicks: 1 bad answers after it"),
        (poisoned_baseline, "the baseline served 1 bad answers"),
        (forked, "ranking does not serve a state of the trainer's chain"),
        (false_alarm, "1 rollbacks before anything that the model learns from was wrong"),
        (slow, "rollback to sequence 130: 3.1 s, more than 3.0"),
        (shallow, "43.7 s of learning taken back, less than 60"),
        (never_found, "poisoned_clicks: not detected"),
        (too_few_rows, "bad_full_model: not detected"),
        (one_letter, "corrupt_delta: not detected"),
        (not_mended, "exploding_learning_rate: not recovered"),
        (failed_request, "errors = 1, not 0"),
    ],
    ids=lambda one: getattr(one, "__name__", ""),
)
def test_a_run_that_shows_less_fails_and_says_what(change, said):
    story = Story()
    change(story)
    assert said in story.failures()


def test_a_quick_run_does_not_judge_how_fast_a_rollback_is_served_but_that_it_is():
    story = Story()
    slow(story)
    assert failures(story.figures() | {"quick": True}) == []
    unserved = story.figures()
    unserved["rollbacks"][0]["healthy_s"] = None
    assert failures(unserved | {"quick": True}) == ["rollback to sequence 130: never served"]


def test_corrupt_deltas_are_what_only_their_bytes_give_away(tmp_path: Path):
    chain = Chain(tmp_path)
    chain.next()
    true = chain.next()
    with pytest.raises(BadDelta) as refused:
        delta.unseal(plants.tampered(true))
    assert refused.value.reason == "bad_hash"
    with pytest.raises(BadDelta) as refused:
        delta.unseal(plants.torn(true))
    assert refused.value.reason == "undecodable"


def test_planted_full_models_are_signed_and_one_is_whole_and_wrong_the_other_damaged(tmp_path: Path):
    make_keys(tmp_path / "keys")
    trusted = Trusted.read(str(tmp_path / "keys" / TRUSTED_NAME))
    core = new_core()
    core.train(World(seed=1, users=30, items=60).records(100), now_us=START_US)
    state, store = core.state, str(tmp_path / "store")
    key = tmp_path / "keys" / SIGNING_NAME

    saved = plants.random_model(state, store, key)
    loaded, _ = model_store.load_base(saved.manifest_uri, trusted=trusted)
    ids, slots = state.tables["item"].ids()
    other = loaded.tables["item"]
    assert np.isfinite(other.rows).all() and set(other.ids()[0]) == set(ids)
    assert not np.array_equal(other.rows[other.slots(ids)], state.tables["item"].rows[slots])

    saved = plants.damaged_model(state, store, key)
    assert model_store.read_manifest(saved.manifest_uri, trusted=trusted).sequence == 0
    with pytest.raises(MalformedRecord):
        model_store.load_base(saved.manifest_uri, trusted=trusted)
