"""The differences between two sets of samples (and of reason rows) as SQL; reconcile.py explains the codes.

Given: ``streamed``, ``offline`` (samples, with ``place`` = row in their Arrow table), ``late``, ``reasons``
(reason rows of the stream and of the batch, ``ids`` = their item ids as a list). Each query of
``differences`` gives the same columns.
"""

from __future__ import annotations

EXPLAINED = ("evicted", "sampled_out")
# Codes of samples that both sides have -> the columns that must be equal: in the newest version, in all.
NEWEST = {"label_differs": ("label",), "time_differs": ("occurred_us", "acted_us", "scored_us")}
EVERY = {
    "features_differ": ("schema_hash", "user_features", "item_features"),
    "score_differs": ("score",),
    "position_differs": ("position",),
    "model_differs": ("generation", "policy", "sequence", "arm"),
    "user_differs": ("user_id",),
    "rate_differs": ("sample_rate",),
}
_BYTES = ("user_features", "item_features")
_KEY = "partition, request_id, impressed_us, item_id"
_REASON = 'reason, source, partition, "offset", request_id, items, item_ids'

_OF_ITEM = f'{_KEY}, NULL AS source, NULL AS "offset"'
_OF_RECORD = 'partition, request_id, NULL AS impressed_us, NULL AS item_id, source, "offset"'

STEPS = (
    # The stream's records of one sample.
    (
        "versions",
        f"""
        SELECT
            {_KEY}, list(place) AS places,
            max({{'version': label_version, 'place': place}}).place AS newest,
            count(*) AS records, count(DISTINCT label_version) AS versions,
            max(label_version)::BIGINT + 1 AS wanted
        FROM streamed GROUP BY {_KEY}
        """,
    ),
    (
        "pairs",
        f"""
        SELECT offline.place AS offline_place, unnest(places) AS streamed_place, newest
        FROM offline JOIN versions USING ({_KEY})
        """,
    ),
    # What the stream itself says about impressions that it has given up, or items that it has left out.
    (
        "excuses",
        f"""
        SELECT partition AS origin, request_id AS request, reason, ids
        FROM late WHERE source = 1 AND reason IN {EXPLAINED}
        """,
    ),
    (
        "reasons_missing",
        f"""
        SELECT reasons.*
        FROM reasons ANTI JOIN late USING ({_REASON})
        ANTI JOIN (SELECT * FROM late WHERE reason IN {EXPLAINED}) given_up
            USING (source, partition, "offset")
        """,
    ),
)

_SAMPLES = (
    f"""
    SELECT coalesce(max(excuses.reason), 'missing_in_stream') AS code, {_OF_ITEM}, '' AS detail
    FROM (SELECT {_KEY} FROM offline ANTI JOIN versions USING ({_KEY})) missing
    LEFT JOIN excuses
        ON origin = partition AND request = request_id AND (len(ids) = 0 OR list_contains(ids, item_id))
    GROUP BY ALL
    """,
    f"""
    SELECT 'extra_in_stream' AS code, {_OF_ITEM}, '' AS detail
    FROM versions ANTI JOIN offline USING ({_KEY})
    """,
    f"""
    SELECT 'duplicate_in_stream' AS code, {_OF_ITEM},
        concat(records, ' records of ', versions, ' versions') AS detail
    FROM versions WHERE records > versions
    """,
    f"""
    SELECT 'version_gap' AS code, {_OF_ITEM}, versions || ' of ' || wanted || ' versions' AS detail
    FROM versions WHERE versions <> wanted
    """,
)

_REASONS = (
    f"""
    SELECT 'reason_missing_in_stream' AS code, {_OF_RECORD}, reason AS detail
    FROM reasons_missing
    """,
    f"""
    SELECT
        CASE WHEN reason IN {EXPLAINED} THEN reason ELSE 'reason_extra_in_stream' END AS code,
        {_OF_RECORD}, reason AS detail
    FROM late ANTI JOIN reasons USING ({_REASON})
    """,
    f"""
    SELECT 'duplicate_in_stream' AS code, {_OF_RECORD}, count(*) || ' records of ' || reason AS detail
    FROM late GROUP BY {_REASON} HAVING count(*) > 1
    """,
)

# Per partition: impressed items that the batch has decided, and those that the stream does not explain.
COMPLETENESS = """
    SELECT partition, sum(decided)::BIGINT AS decided, sum(missing)::BIGINT AS missing
    FROM (
        SELECT partition, 1 AS decided, 0 AS missing FROM offline
        UNION ALL
        SELECT partition, items, 0 FROM reasons WHERE source = 1
        UNION ALL
        SELECT partition, 0, 1 FROM differences WHERE code = 'missing_in_stream'
        UNION ALL
        SELECT partition, 0, items FROM reasons_missing WHERE source = 1
    )
    GROUP BY partition ORDER BY partition
"""


def differences() -> str:
    """All differences, each once."""
    both = [_differing(code, columns) for code, columns in (NEWEST | EVERY).items()]
    return "SELECT DISTINCT * FROM (" + " UNION ALL ".join([*_SAMPLES, *_REASONS, *both]) + ")"


def _differing(code: str, columns: tuple[str, ...]) -> str:
    """Samples of both sides whose ``columns`` are not equal; the detail says which, and how unless they are
    bytes."""
    unequal = [f"s.{name} IS DISTINCT FROM o.{name}" for name in columns]
    said = [
        f"CASE WHEN {test} THEN concat('{name}'{_values(name)}) END"
        for name, test in zip(columns, unequal, strict=True)
    ]
    newest = "AND streamed_place = newest" if code in NEWEST else ""
    return f"""
        SELECT
            '{code}' AS code, o.partition, o.request_id, o.impressed_us, o.item_id,
            NULL AS source, NULL AS "offset", concat_ws(', ', {", ".join(said)}) AS detail
        FROM pairs
        JOIN streamed s ON s.place = streamed_place
        JOIN offline o ON o.place = offline_place
        WHERE ({" OR ".join(unequal)}) {newest}
    """


def _values(name: str) -> str:
    if name in _BYTES:
        return ""
    here, there = (f"coalesce({side}.{name}::VARCHAR, 'null')" for side in ("s", "o"))
    return f", ' ', {here}, ' instead of ', {there}"
