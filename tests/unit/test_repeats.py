"""A client's second try: one rule for the stream's split and for the lake's reading."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from rec.events.v1.events_pb2 import ACTION_KIND_CLICK, EventRecord
from services.contract import times
from services.contract.lake_rows import LogRecord, to_rows
from services.contract.lake_schema import SCHEMAS
from services.contract.repeats import REPEAT_WINDOW, SeenEvents, repeats
from services.feature_pipeline.repartition import Splitter
from services.lake.view_events import event_log

NOW_US = 1_760_000_000_000_000
# (gap to the offset before, id, partition)
LOGS = st.lists(st.tuples(st.integers(1, 4), st.sampled_from("abc"), st.integers(0, 1)), max_size=40)


def test_an_id_counts_again_once_its_window_has_passed() -> None:
    seen = SeenEvents(2)
    assert [seen.take(offset, one) for offset, one in enumerate("abcab")] == [False] * 5
    assert [seen.take(offset, "b") for offset in (6, 8, 11)] == [True, True, False]


@given(LOGS, st.integers(1, 6), st.integers(0, 40))
def test_both_forms_say_the_same_wherever_reading_begins(log, window: int, skipped: int) -> None:
    offsets = np.cumsum([gap for gap, _, _ in log]) if log else np.zeros(0, np.int64)
    partition = np.array([where for _, _, where in log], np.int64)
    ids = pa.array([one for _, one, _ in log], pa.string())
    shuffled = np.random.default_rng(skipped).permutation(len(log))
    found = np.empty(len(log), bool)
    found[shuffled] = repeats(partition[shuffled], offsets[shuffled], ids.take(pa.array(shuffled)), window)
    # A reader that begins anywhere is right from a window later on.
    for where in (0, 1):
        seen = SeenEvents(window)
        own = [at for at in range(len(log)) if partition[at] == where][skipped:]
        for at in own:
            said = seen.take(int(offsets[at]), log[at][1])
            if skipped == 0 or offsets[at] - offsets[own[0]] >= window:
                assert said == found[at]


def test_the_lake_counts_a_retry_as_the_split_does_inside_and_outside_of_the_window() -> None:
    def click(user: int, event_id: str) -> bytes:
        record = EventRecord()
        made = record.action
        made.event_id, made.request_id, made.user_id, made.item_id = event_id, "r", user, 9
        made.kind = ACTION_KIND_CLICK
        times.set_us(made.occurred_at, NOW_US)
        return record.SerializeToString()

    # Inside the window, at its end, behind it.
    first, inside, last, behind = 3, 4, 3 + REPEAT_WINDOW, 4 + REPEAT_WINDOW + 1
    log = [
        *((first, click(1, "x")), (inside, click(1, "y")), (inside + 1, click(1, "y"))),
        *((last, click(1, "x")), (behind + 1, click(1, "y"))),
    ]
    splitter = Splitter("actions", 0, lambda _item: 0)
    split = [offset for offset, value in log if splitter.split(offset, value).writes]
    table, bad = to_rows("actions", [LogRecord(0, offset, NOW_US // 1000, value) for offset, value in log])
    assert not bad
    events = event_log(SCHEMAS["impressions"].empty_table(), table, SCHEMAS["items"].empty_table()).events()
    assert split == [first, inside, behind + 1]
    assert [event.sequence // 1024 for event in events] == split
