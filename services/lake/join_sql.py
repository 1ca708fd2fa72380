"""The rules of the join (contract.join_rules, contract.join) as SQL over whole logs.

Each step is a temporary table built from the ones above it; all partitions are in it at once, and none sees
another. Given: ``snapshots``, ``impressions``, ``actions`` (columns of contract.lake_rows without the packed
ones, ``row`` = place in its Arrow table, ``served`` = a snapshot's ids as a list), ``label_rules`` (kind,
label, window_us), and the durations of JoinConfig as macros. Sources count as in contract.join_events.

Why a batch may decide by sorting what the stream decides in sequence:

- A threshold (watermark of a record's own input before it) never falls. So of records with one event id and
  time, when the first is late all are, and when it is not, each later one is a repeat or, its
  memory gone, late: the first alone decides.
- Of the snapshots (impressions) of one request id the first is taken, the next one taken is the first that
  stands beyond the memory of the last one taken. What was refused in between remembers nothing, so this is a
  chain, followed step by step; only ids used more than once take part.
- Two taken ones of a request id stand further apart than any rule reaches: one match at most.
"""

from __future__ import annotations

STEPS: tuple[tuple[str, str], ...] = (
    # The three inputs, one below the other. A malformed record has no time and moves no clock.
    (
        "log",
        """
        SELECT
            0 AS source, partition, "offset", row, record, event_id, request_id,
            occurred_us AS at_us, 0 AS items
        FROM snapshots WHERE record <> 'malformed'
        UNION ALL
        SELECT 1, partition, "offset", row, record, event_id, request_id, occurred_us, len(item_ids)
        FROM impressions WHERE record <> 'malformed'
        UNION ALL
        SELECT 2, partition, "offset", row, record, event_id, request_id, occurred_us, 0
        FROM actions WHERE record <> 'malformed'
        """,
    ),
    # What the lower offsets of its own input say about a record.
    (
        "timed",
        """
        SELECT
            *,
            max(CASE WHEN record = 'barrier' THEN at_us END) OVER earlier AS barrier,
            coalesce(greatest(max(at_us) OVER earlier - bound_us(), barrier), never_us()) AS threshold,
            coalesce(barrier, never_us()) AS floor
        FROM log
        WINDOW earlier AS (
            PARTITION BY source, partition ORDER BY "offset"
            ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
        )
        """,
    ),
    # Where each partition stands when its logs are read: below ``complete`` and ``floor`` all is closed.
    (
        "ends",
        """
        SELECT
            partition,
            CASE WHEN count(*) = 3 THEN min(watermark) ELSE never_us() END AS complete,
            CASE WHEN count(*) = 3 THEN min(floor) ELSE never_us() END AS floor
        FROM (
            SELECT
                partition,
                coalesce(max(CASE WHEN record = 'barrier' THEN at_us END), never_us()) AS floor,
                greatest(max(at_us) - bound_us(), floor) AS watermark
            FROM log GROUP BY source, partition
        )
        GROUP BY partition
        """,
    ),
    # Actions repeat by event id and time alone, the others within their request.
    (
        "judged",
        """
        SELECT
            *,
            CASE
                WHEN "offset" > min("offset") OVER same AND min(threshold) OVER same <= at_us
                    AND threshold <= at_us + memory_us() THEN 'repeat'
                WHEN at_us < threshold THEN 'late'
                ELSE 'in time'
            END AS status
        FROM timed
        WHERE record = 'event'
        WINDOW same AS (
            PARTITION BY source, partition, event_id, at_us, CASE WHEN source < 2 THEN request_id END
        )
        """,
    ),
    # Snapshots (impressions) in time that share a request id.
    (
        "rivals",
        """
        SELECT *
        FROM (
            SELECT *, count(*) OVER (PARTITION BY source, partition, request_id) AS uses
            FROM judged WHERE source < 2 AND status = 'in time'
        )
        WHERE uses > 1
        """,
    ),
    (
        "seconds",
        """
        WITH RECURSIVE taken(source, partition, request_id, first_offset, first_at_us) AS (
            SELECT source, partition, request_id, min("offset"), arg_min(at_us, "offset")
            FROM rivals GROUP BY source, partition, request_id
            UNION ALL
            SELECT source, partition, request_id, min("offset"), arg_min(at_us, "offset")
            FROM taken JOIN rivals USING (source, partition, request_id)
            WHERE threshold > first_at_us + memory_us()
            GROUP BY source, partition, request_id
        )
        SELECT rivals.*
        FROM rivals ANTI JOIN taken
            ON rivals.source = taken.source AND rivals.partition = taken.partition
            AND rivals."offset" = taken.first_offset
        """,
    ),
    (
        "accepted",
        """
        SELECT judged.*
        FROM judged ANTI JOIN seconds USING (source, partition, "offset")
        WHERE status = 'in time'
        """,
    ),
    # Impressions with their snapshot (rules.snapshot_belongs), and whether their window is over.
    (
        "shown",
        """
        SELECT
            i.partition, i."offset", i.row, i.request_id, i.at_us, i.floor, i.items, s.row AS snapshot,
            e.complete > i.at_us + window_us() OR i.at_us < e.floor AS closed
        FROM (SELECT * FROM accepted WHERE source = 1) i
        JOIN ends e ON e.partition = i.partition
        LEFT JOIN (SELECT * FROM accepted WHERE source = 0) s
            ON s.partition = i.partition AND s.request_id = i.request_id
            AND s.at_us BETWEEN i.at_us - show_us() AND i.at_us + skew_us() AND i.at_us >= s.floor
        """,
    ),
    # One row per shown item: ``place`` in the list shown, ``served_row`` in the snapshot (from 0).
    (
        "items",
        """
        SELECT
            * EXCLUDE (ids, positions, found),
            unnest(ids) AS item_id,
            unnest(range(len(ids))) AS place,
            unnest(CASE WHEN len(positions) > 0 THEN positions ELSE range(len(ids)) END) AS position,
            unnest(found) - 1 AS served_row
        FROM (
            SELECT
                shown.*, i.unscored, i.item_ids AS ids, i.positions,
                list_transform(i.item_ids, lambda id: nullif(list_position(s.served, id), 0)) AS found
            FROM shown
            JOIN impressions i ON i.row = shown.row
            LEFT JOIN snapshots s ON s.row = shown.snapshot
        )
        """,
    ),
    # What became of each action that was in time; null: it still waits. Of those that could label an item
    # the first does.
    (
        "outcomes",
        """
        SELECT
            * EXCLUDE (outcome),
            CASE
                WHEN outcome = 'labels' AND row_number() OVER (
                    PARTITION BY outcome, partition, impression, item_id ORDER BY "offset"
                ) > 1 THEN 'already_labelled'
                ELSE outcome
            END AS outcome
        FROM (
            SELECT
                a.partition, a."offset", a.request_id, a.at_us, shown."offset" AS impression,
                act.item_id, rule.label,
                CASE
                    WHEN rule.kind IS NULL THEN 'no_label_rule'
                    WHEN shown.row IS NULL THEN
                        CASE
                            WHEN e.complete > a.at_us + skew_us() OR a.at_us < e.floor THEN 'no_impression'
                        END
                    WHEN a.at_us > shown.at_us + rule.window_us OR shown.at_us < a.floor THEN 'after_window'
                    WHEN items.item_id IS NULL THEN 'not_impressed'
                    WHEN items.unscored THEN 'unscored'
                    WHEN shown.snapshot IS NULL THEN CASE WHEN shown.closed THEN 'snapshot_lost' END
                    WHEN items.served_row IS NULL THEN 'not_in_snapshot'
                    ELSE 'labels'
                END AS outcome
            FROM (SELECT * FROM accepted WHERE source = 2) a
            JOIN ends e ON e.partition = a.partition
            JOIN actions act ON act.row = a.row
            LEFT JOIN label_rules rule ON rule.kind = act.kind
            LEFT JOIN shown
                ON shown.partition = a.partition AND shown.request_id = a.request_id
                AND a.at_us >= greatest(shown.at_us - skew_us(), shown.floor)
                AND a.at_us <= shown.at_us + reach_us()
            LEFT JOIN items
                ON items.partition = shown.partition AND items."offset" = shown."offset"
                AND items.item_id = act.item_id
        )
        """,
    ),
    # Each record (for impressions: with how many of its items) that did not become what it stands for.
    (
        "reasons",
        """
        SELECT
            'malformed' AS reason, 0 AS source, partition, "offset", NULL::BIGINT AS occurred_us,
            '' AS request_id, items, NULL AS ids
        FROM snapshots WHERE record = 'malformed'
        UNION ALL
        SELECT 'malformed', 1, partition, "offset", NULL, '', items, NULL
        FROM impressions WHERE record = 'malformed'
        UNION ALL
        SELECT 'malformed', 2, partition, "offset", NULL, '', items, NULL
        FROM actions WHERE record = 'malformed'
        UNION ALL
        SELECT 'late', source, partition, "offset", at_us, request_id, items, NULL
        FROM judged WHERE status = 'late'
        UNION ALL
        SELECT
            if(source = 0, 'second_snapshot', 'second_impression'),
            source, partition, "offset", at_us, request_id, items, NULL
        FROM seconds
        UNION ALL
        SELECT
            if(unscored, 'unscored', 'snapshot_lost'),
            1, partition, "offset", at_us, request_id, count(*), NULL
        FROM items WHERE unscored OR (snapshot IS NULL AND closed)
        GROUP BY unscored, partition, "offset", at_us, request_id
        UNION ALL
        SELECT
            'not_in_snapshot',
            1, partition, "offset", at_us, request_id, count(*), list(item_id ORDER BY place)
        FROM items WHERE NOT unscored AND snapshot IS NOT NULL AND served_row IS NULL
        GROUP BY partition, "offset", at_us, request_id
        UNION ALL
        SELECT outcome, 2, partition, "offset", at_us, request_id, 0, NULL
        FROM outcomes WHERE outcome <> 'labels'
        """,
    ),
)

# The decided items, in the order of their snapshots' rows: acted on, or left when the window was over.
DECIDED = """
    SELECT
        i.snapshot, i.served_row, i.partition, i.item_id, i.position::UINTEGER AS position,
        coalesce(a.label, 0)::FLOAT AS label, i.at_us AS impressed_us, a.at_us AS acted_us
    FROM items i
    LEFT JOIN (SELECT * FROM outcomes WHERE outcome = 'labels') a
        ON a.partition = i.partition AND a.impression = i."offset" AND a.item_id = i.item_id
    WHERE i.served_row IS NOT NULL AND NOT i.unscored AND (i.closed OR a.at_us IS NOT NULL)
    ORDER BY i.snapshot, i.place
"""

REASONS = """
    SELECT
        reason, source::TINYINT AS source, partition, "offset", occurred_us, request_id,
        items::INTEGER AS items, ids::UBIGINT[] AS ids
    FROM reasons ORDER BY source, partition, "offset", reason
"""
