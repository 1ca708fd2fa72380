-- The plain left interval join of small records, shown items with clicks: no snapshots, so rows without score and features.
-- The key is the request, as in items.sql.
CREATE TEMPORARY VIEW shown AS
SELECT i.request_id, i.ts, r.item_id, r.place, r.score, r.item_features
FROM impressions i, LATERAL TABLE(each_row(cut_rows(i.item_ids), 0)) AS r (item_id, place, score, item_features);

INSERT INTO samples
SELECT h.request_id, h.item_id, CASE WHEN c.item_id IS NULL THEN CAST(0 AS FLOAT) ELSE CAST(1 AS FLOAT) END,
  h.place, h.score, h.item_features
FROM shown h
LEFT JOIN clicks c
  ON h.request_id = c.request_id AND h.item_id - c.item_id = 0
  AND c.ts BETWEEN h.ts - INTERVAL '${bound_s}' SECOND AND h.ts + INTERVAL '${window_s}' SECOND;
