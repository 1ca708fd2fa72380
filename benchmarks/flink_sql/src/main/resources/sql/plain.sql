-- Right for any log, as one would write it first: each shown item waits for its own click, keyed by request and item.
CREATE TEMPORARY VIEW shown AS
SELECT i.request_id, i.ts, r.item_id, r.place, r.score, r.item_features
FROM impressions i
JOIN snapshots s
  ON i.request_id = s.request_id
  AND i.ts BETWEEN s.ts - INTERVAL '${bound_s}' SECOND AND s.ts + INTERVAL '${window_s}' SECOND,
LATERAL TABLE(each_row(cut_rows(i.item_ids, s.item_ids, s.scores, s.item_features), ${row_bytes}))
  AS r (item_id, place, score, item_features);

INSERT INTO samples
SELECT h.request_id, h.item_id, CASE WHEN c.item_id IS NULL THEN CAST(0 AS FLOAT) ELSE CAST(1 AS FLOAT) END,
  h.place, h.score, h.item_features
FROM shown h
LEFT JOIN clicks c
  ON h.request_id = c.request_id AND h.item_id = c.item_id
  AND c.ts BETWEEN h.ts - INTERVAL '${bound_s}' SECOND AND h.ts + INTERVAL '${window_s}' SECOND;
