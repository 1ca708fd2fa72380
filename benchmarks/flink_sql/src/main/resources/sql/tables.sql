-- The inputs and the output. ${...} come from the options.
CREATE TEMPORARY TABLE snapshots (
  request_id STRING,
  item_ids BYTES,
  scores BYTES,
  item_features BYTES,
  ts TIMESTAMP_LTZ(3),
  WATERMARK FOR ts AS ts - INTERVAL '${bound_s}' SECOND
) WITH (
  'connector' = 'kafka',
  'topic' = '${inputs}feature-snapshots',
  'properties.bootstrap.servers' = '${bootstrap}',
  'properties.max.partition.fetch.bytes' = '4194304',
  'scan.startup.mode' = 'earliest-offset',
  'scan.bounded.mode' = 'latest-offset',
  'format' = 'recloop-event',
  'recloop-event.kind' = 'SNAPSHOT'
);

CREATE TEMPORARY TABLE impressions (
  request_id STRING,
  item_ids BYTES,
  ts TIMESTAMP_LTZ(3),
  WATERMARK FOR ts AS ts - INTERVAL '${bound_s}' SECOND
) WITH (
  'connector' = 'kafka',
  'topic' = '${inputs}impressions',
  'properties.bootstrap.servers' = '${bootstrap}',
  'properties.max.partition.fetch.bytes' = '4194304',
  'scan.startup.mode' = 'earliest-offset',
  'scan.bounded.mode' = 'latest-offset',
  'format' = 'recloop-event',
  'recloop-event.kind' = 'IMPRESSION'
);

CREATE TEMPORARY TABLE actions (
  request_id STRING,
  item_id BIGINT,
  kind INT,
  ts TIMESTAMP_LTZ(3),
  WATERMARK FOR ts AS ts - INTERVAL '${bound_s}' SECOND
) WITH (
  'connector' = 'kafka',
  'topic' = '${inputs}actions',
  'properties.bootstrap.servers' = '${bootstrap}',
  'properties.max.partition.fetch.bytes' = '4194304',
  'scan.startup.mode' = 'earliest-offset',
  'scan.bounded.mode' = 'latest-offset',
  'format' = 'recloop-event',
  'recloop-event.kind' = 'ACTION'
);

CREATE TEMPORARY VIEW clicks AS SELECT request_id, item_id, ts FROM actions WHERE kind = 1;

CREATE TEMPORARY TABLE samples (
  request_id STRING,
  item_id BIGINT,
  label FLOAT,
  place INT,
  score FLOAT,
  item_features BYTES
) WITH (
  'connector' = 'kafka',
  'topic' = '${output}',
  'properties.bootstrap.servers' = '${bootstrap}',
  'properties.linger.ms' = '20',
  'properties.batch.size' = '262144',
  'properties.transaction.timeout.ms' = '600000',
  'key.format' = 'raw',
  'key.fields' = 'request_id',
  'value.format' = 'recloop-sample',
  'sink.delivery-guarantee' = 'exactly-once',
  'sink.transactional-id-prefix' = '${output}'
);
