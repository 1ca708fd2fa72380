"""Which arms share the users now, folded from model-releases. Pure: the gateway assigns by it.

Two draws, each by a hash of its own, so that neither moves the users of the other:

1. arms with a standing share (the guard's baseline) keep their users whatever else runs;
2. all others, while a generation is compared, fall to the arms of its experiment.

Who is drawn by neither, or whose arm is not one that serves, is left to ranking's default arm.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from rec.model.v1 import model_pb2
from services.contract.assignment import arm_of, check_shares
from services.contract.errors import MalformedRecord
from services.contract.topics import GENERATION_PREFIX

_STANDING = "standing"
# The rest of the first draw; sorts before every arm, so that a share that grows keeps the users it has.
_NOBODY = ""


@dataclass(frozen=True)
class Experiment:
    """A comparison that runs. ``name`` decides who gets what, and is that of the generation under test."""

    name: str
    shares: Mapping[str, float]


@dataclass(frozen=True)
class Assigned:
    """An arm, empty = the default one, and why: "standing", "experiment", "default", or "not_serving" (drawn
    for an arm that does not serve)."""

    arm: str
    reason: str


DEFAULT = Assigned("", "default")


class Experiments:
    """``take`` folds records in, in log order; ``assigned`` is then cheap."""

    def __init__(self) -> None:
        self._arms: dict[str, model_pb2.Release] = {}
        # By generation: those under comparison.
        self._compared: dict[int, Experiment] = {}
        self._standing: dict[str, float] = {}

    @property
    def running(self) -> Experiment | None:
        """Of the newest generation that is compared."""
        return self._compared[max(self._compared)] if self._compared else None

    def take(self, key: bytes | None, value: bytes | None) -> None:
        """One record; of a kind that shares no users it changes nothing. InvalidInput."""
        name = (key or b"").decode(errors="replace")
        if value is None:
            self._arms.pop(name, None)
        else:
            try:
                release = model_pb2.Release.FromString(value)
            except DecodeError as error:
                raise MalformedRecord.one("release", repr(error), "a Release") from error
            if release.arm != name:
                raise MalformedRecord.one("release.arm", release.arm, f"{name[:64]}, as its key")
            self._fold(release)
        self._standing = self._standing_shares()

    def assigned(self, user_id: int) -> Assigned:
        """The arm of a user now."""
        if self._standing:
            arm = arm_of(user_id, _STANDING, self._standing)
            if arm != _NOBODY:
                return Assigned(arm, "standing")
        running = self.running
        if running is None:
            return DEFAULT
        arm = arm_of(user_id, running.name, running.shares)
        return Assigned(arm, "experiment") if self._serves(arm) else Assigned("", "not_serving")

    def _fold(self, release: model_pb2.Release) -> None:
        if release.HasField("life"):
            generation = release.lineage.generation
            if release.life.shares:
                shares = check_shares(release.life.shares)
                self._compared[generation] = Experiment(f"generation-{generation}", shares)
            else:
                self._compared.pop(generation, None)
        elif not release.arm.startswith(GENERATION_PREFIX):
            self._arms[release.arm] = release

    def _serves(self, arm: str) -> bool:
        found = self._arms.get(arm)
        return found is not None and found.state == model_pb2.RELEASE_STATE_SERVING

    def _standing_shares(self) -> dict[str, float]:
        shares = {arm: one.standing_share for arm, one in self._arms.items() if self._serves(arm)}
        taken = {arm: share for arm, share in shares.items() if share > 0}
        return {_NOBODY: 1 - sum(taken.values()), **taken} if taken else {}
