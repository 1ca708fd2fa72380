"""The batch join over the lake gives the golden set of the stream."""

from __future__ import annotations

from collections import Counter

from contract.test_join_golden import CONFIG, OUTPUT, line, read_log, say
from oracles.join_lake import lake_of, lake_samples, rows_of, said_offline, without_barriers
from oracles.join_logs import Logs, canonical
from oracles.join_oracle import joined

from services.contract.join_events import SOURCES
from services.lake.join import offline_join


def golden_logs() -> Logs:
    return {source: [raw for s, raw in read_log() if s is source] for source in SOURCES}


def test_the_batch_join_of_the_golden_log_says_what_the_stream_and_the_oracle_say() -> None:
    outputs = say(read_log())
    assert [line(output) for output in outputs] == OUTPUT.read_text().splitlines()
    result = offline_join(lake_of([golden_logs()]), CONFIG)
    said = said_offline(result.samples, result.reasons)[0]
    assert said == without_barriers(Counter(map(canonical, outputs)))
    assert said == without_barriers(joined(CONFIG, golden_logs()))


def test_every_column_of_its_samples_is_the_streams_byte_for_byte() -> None:
    result = offline_join(lake_of([golden_logs()]), CONFIG)
    stream = rows_of(lake_samples(say(read_log())))
    assert rows_of(result.samples) == stream
    assert stream.total() > 100
