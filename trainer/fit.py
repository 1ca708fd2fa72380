"""Many passes over a set of samples until the newest of them are foretold no better. Pure: no I/O but what
ranks tell each other.

Each pass takes the same steps as the online trainer (trainer/step.py) over the rows in their order. After it
the model is judged on rows that it has not seen; the best model so far is kept. When ``patience`` passes in a
row have not beaten it by ``min_gain``, the best learns the judged rows, and those that are newer still, once:
serving wants them learned.

An id is counted, and gets its row, in the first pass only: later ones see nothing new of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from services.contract.model_state import ModelState, digest
from trainer.batch_settings import FitSettings
from trainer.holdout import judged
from trainer.ranks import ALONE, Ranks
from trainer.samples import Batch
from trainer.settings import AdmissionSettings, LearningSettings
from trainer.step import train_step

# Seen this often before it gets a row: never.
_NO_NEW_ROWS = AdmissionSettings(min_count_user=1 << 31, min_count_item=1 << 31, min_count_category=1 << 31)
_LOSS = "log_loss"


@dataclass(frozen=True)
class Pass:
    """What a pass gave: figures on the judged rows (auc, log_loss, calibration), rows whose step was not
    taken."""

    number: int
    figures: dict[str, float]
    skipped_rows: int


@dataclass
class Progress:
    """Where a fit stands after a pass: all that is needed to go on from there."""

    passes: list[Pass] = field(default_factory=list)
    best: int = 0

    def take(self, done: Pass, min_gain: float) -> bool:
        """Whether the pass is the best so far."""
        self.passes.append(done)
        best = self.best_pass
        if best is None or done.figures[_LOSS] < best.figures[_LOSS] - min_gain:
            self.best = done.number
            return True
        return False

    @property
    def best_pass(self) -> Pass | None:
        """None before the first."""
        return self.passes[self.best - 1] if self.best else None

    def over(self, settings: FitSettings) -> bool:
        """Whether no more passes are worth it."""
        number = len(self.passes)
        return number >= settings.max_passes or (number > 0 and number - self.best >= settings.patience)


@dataclass(frozen=True)
class Standing:
    """The models of a fit after a pass: the newest, and the best."""

    newest: ModelState
    best: ModelState


@dataclass(frozen=True)
class Fit:
    """How a set of samples is learned."""

    learning: LearningSettings
    admission: AdmissionSettings
    settings: FitSettings
    ranks: Ranks = ALONE

    def passes(self, standing: Standing, progress: Progress, rows: Batch, judge: Batch) -> Iterator[Standing]:
        """Makes passes, from where ``progress`` stands, until they are over; yields after each, so that the
        caller can keep it."""
        state, best = standing.newest, standing.best
        while not progress.over(self.settings):
            first = not progress.passes
            seen = None if first else _Seen(state)
            skipped = self._pass(state, rows, self.admission if first else _NO_NEW_ROWS)
            if seen is not None:
                seen.restore(state)
            self.ranks.agree(lambda: {"the model after a pass": digest(state).hex()})
            done = Pass(len(progress.passes) + 1, judged(state, judge, self.ranks), skipped)
            if progress.take(done, self.settings.min_gain):
                best = state.copy()
            yield Standing(state, best)

    def finish(self, best: ModelState, newest: Batch) -> int:
        """The last pass, over the judged rows and what is newer; rows whose step was not taken."""
        return self._pass(best, newest, self.admission)

    def _pass(self, state: ModelState, rows: Batch, admission: AdmissionSettings) -> int:
        parts = rows.split(self.learning.minibatch_rows)
        how = (self.learning, admission, self.ranks)
        return sum(len(part) for part in parts if train_step(state, part, *how).skipped)


class _Seen:
    """What a state knows of how often and when ids were seen. A later pass counts them again, and must not:
    recall's softmax divides by these counts, and expiry looks at the times."""

    def __init__(self, state: ModelState) -> None:
        self._tables = {
            name: (table.counts.copy(), table.last_seen_us.copy(), table.pending.copy())
            for name, table in state.tables.items()
        }
        self._samples = state.samples_trained

    def restore(self, state: ModelState) -> None:
        """Puts it back."""
        for name, (counts, last_seen_us, pending) in self._tables.items():
            table = state.tables[name]
            table.counts, table.last_seen_us, table.pending = counts, last_seen_us, pending
        state.samples_trained = self._samples
