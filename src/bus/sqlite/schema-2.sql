-- Version 2: deliveries that lie at a carrier, and entries that are counted by two numbers.

-- Deliveries that are settled here and lie elsewhere: one row is the commit record of one.
CREATE TABLE carried(
    group_id INTEGER NOT NULL,
    stream_id INTEGER NOT NULL,
    seq INTEGER NOT NULL,                -- both numbers of the entry, unsigned bits
    sub INTEGER NOT NULL,
    lifted_at INTEGER,                   -- since when the carrier knows; NULL: it may not know
    PRIMARY KEY(group_id, stream_id, seq, sub)
) STRICT, WITHOUT ROWID;
CREATE INDEX carried_by_lift ON carried(lifted_at, group_id);

ALTER TABLE record ADD COLUMN sub INTEGER NOT NULL DEFAULT 0;
ALTER TABLE dead_letter ADD COLUMN sub INTEGER NOT NULL DEFAULT 0;

DROP VIEW dead_letters;
CREATE VIEW dead_letters AS
SELECT d.id, d.handler, c.name AS "group", d.reason, d.type, d.event_id,
       json_extract(d.failures, '$[#-1].message') AS error,
       d.attempts, strftime('%Y-%m-%dT%H:%M:%fZ', d.failed_at / 1000.0, 'unixepoch') AS failed_at,
       d.version, d.stream || '/' || d.seq || '-' || d.sub AS entry, d.idempotency_key,
       strftime('%Y-%m-%dT%H:%M:%fZ', d.replayed_at / 1000.0, 'unixepoch') AS replayed_at,
       d.data, d.failures
FROM dead_letter d LEFT JOIN consumer c ON c.id = d.group_id
ORDER BY d.id DESC;
