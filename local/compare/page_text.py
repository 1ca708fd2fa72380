"""What each part of the report means, in a few lines of HTML each. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

SIDE_BY_SIDE = (
    "<b>Complete</b>: shown items with exactly one sample, of those that become one by the oracle's word. "
    "<b>Leak</b>: values that are not, bit for bit, those that were scored at t2. <b>AUC</b>: of the same "
    "model, trained on each, judged on the truth. <b>Delay</b>: from impression to visible sample. "
    "<b>State</b>: the most that waits in memory. <b>Written</b>: what a scheme writes beyond the events "
    "that all share. <b>CPU</b>: of its own processes."
)
LEAKS = (
    "Share of the values that differ from what was scored, by kind of column: <b>batch</b> from the "
    "catalogue, <b>streaming</b> from the events so far, <b>instant</b> from the request. Whatever reads "
    "the snapshot cannot leak."
)
DELAYS = (
    "From the moment at which Kafka has the impression to the one at which it has the sample; p50 (dot) to "
    "p99. A click is a sample at once, a negative when its window has closed, and offline all when the "
    "batch has run: here right behind the traffic, in a daily job up to a day later."
)
COSTS = (
    "State: payload that the joiner held at its fullest; of the batch its peak memory above an idle start. "
    "Label-first also keeps tables of batch features, 17 bytes an item. "
    "Written: keys, values and headers in Kafka, files in the lake. CPU: user and system time from the "
    "first request to the last sample; lookup's work in the feature server is not in it. The lake's writer "
    "also keeps the stream's samples."
)
COLUMNS = (
    "Every column of the encoding: how often the value read at t6 is not the one scored at t2, and how far "
    "they are apart on average. A column that moves with each impression always leaks: the sample's own is "
    "in between."
)
DIFFERENCES = (
    "Samples that are not, field by field and bit by bit, those of the batch join (the oracle). A lookup "
    "has no snapshot: it does not know the score or the model that was served."
)


def speed(speeds: Mapping[str, Any]) -> str:
    """Of ``figures["speeds"]``."""
    return (
        f"<code>{escape(speeds['column'])}</code> moves at each click of its item, and items are clicked "
        "more or less often. Rows that nobody clicked, cut into three classes by how often others clicked "
        f"their item per minute: the faster, the more often {escape(speeds['scheme'])} reads a value that "
        f"was not there when it was scored. {speeds['without_state']:,} rows of items that had no state yet "
        "are left out: just born, they had defaults in every column."
    )


def models(held: Mapping[str, Any]) -> str:
    """Of ``figures["held_out"]``."""
    return (
        f"One pass over the first {held['trained_share']:.0%} of the samples, then frozen and judged on the "
        f"{held['rows']:,} others with the features <em>as they were served</em>; dot: mean of "
        f"{held['seeds']} seeds, line: lowest to highest. Calibration: mean prediction / share of clicks. "
        "<em>Shuffled labels</em>: a model that was told nothing; its order is chance, on either side of 0.5."
    )
