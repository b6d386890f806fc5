-- Version 1. `pos` of an event is stream << 40 | seq, so that a stream lies together and is found by one integer.

CREATE TABLE stream(
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    hidden INTEGER NOT NULL,             -- 1: a group's own stream of retries and replays
    created_at INTEGER NOT NULL,
    first_seq INTEGER NOT NULL DEFAULT 1, -- oldest retained entry
    last_seq INTEGER NOT NULL DEFAULT 0
) STRICT;

-- Not STRICT: whatever lies here is delivered, and what is no event becomes a dead letter.
CREATE TABLE event(
    pos INTEGER PRIMARY KEY,
    id, source, type, subject, time, dataschema, correlation_id, causation_id, traceparent, ext, data,
    stored_at INTEGER NOT NULL,
    past
);

CREATE TABLE consumer(
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,           -- the group
    handler TEXT NOT NULL,
    retry_stream INTEGER NOT NULL,
    selection TEXT NOT NULL,             -- JSON: {"streams": [...], "discover": [[prefix, pattern], ...]}
    seen_stream INTEGER NOT NULL,        -- newest stream when the selection was last applied
    seen_at INTEGER NOT NULL,            -- when it last had a living handler
    lost INTEGER NOT NULL DEFAULT 0      -- entries trimmed before they were settled
) STRICT;

CREATE TABLE cursor(
    group_id INTEGER NOT NULL,
    stream_id INTEGER NOT NULL,
    position INTEGER NOT NULL,           -- last entry ever claimed
    unused_since INTEGER,                -- the handler no longer reads the stream
    PRIMARY KEY(group_id, stream_id)
) STRICT, WITHOUT ROWID;

-- One claim: who holds which entries, and which of them are done.
CREATE TABLE span(
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    group_id INTEGER NOT NULL,
    stream_id INTEGER NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    done BLOB NOT NULL,                  -- bit i: entry first + i
    left INTEGER NOT NULL,               -- entries not done
    owner INTEGER NOT NULL,              -- process; 0: free
    epoch INTEGER NOT NULL,
    orphaned INTEGER NOT NULL
) STRICT;
CREATE INDEX span_by_group ON span(group_id, stream_id);
CREATE INDEX span_free ON span(group_id) WHERE owner = 0;

CREATE TABLE mark(
    group_id INTEGER NOT NULL,
    stream_id INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    deaths INTEGER NOT NULL,
    open INTEGER NOT NULL,               -- 1: runs alone now
    PRIMARY KEY(group_id, stream_id, seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE delayed(
    id INTEGER PRIMARY KEY,
    due INTEGER NOT NULL,
    stream_id INTEGER NOT NULL,          -- where it goes
    member TEXT,                         -- names a retry: group/stream/seq/attempts/snoozes
    event_id, source, type, subject, time, dataschema, correlation_id, causation_id, traceparent, ext, data,
    past
);
CREATE INDEX delayed_by_due ON delayed(due, stream_id);
CREATE UNIQUE INDEX delayed_by_member ON delayed(member) WHERE member IS NOT NULL;

-- Idempotency records. No index by expiry: a sweep in the order of keys removes what expired.
CREATE TABLE record(
    key BLOB PRIMARY KEY,
    stream_id INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    dead INTEGER,
    expires INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE kv(key TEXT PRIMARY KEY, value TEXT NOT NULL, expires INTEGER) WITHOUT ROWID;
CREATE INDEX kv_by_expiry ON kv(expires) WHERE expires IS NOT NULL;

CREATE TABLE dead_letter(
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    group_id INTEGER NOT NULL,
    handler TEXT NOT NULL,
    version TEXT NOT NULL,
    reason TEXT NOT NULL,
    stream TEXT NOT NULL,                -- origin
    seq INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    failed_at INTEGER NOT NULL,
    failures TEXT NOT NULL,
    undecodable TEXT,                    -- why it is no event
    idempotency_key TEXT,
    replayed_at INTEGER,
    event_id, source, type, subject, time, dataschema, correlation_id, causation_id, traceparent, ext, data
);
CREATE INDEX dead_letter_by_group ON dead_letter(group_id);

CREATE TABLE process(
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL,
    beat INTEGER NOT NULL,
    started_at INTEGER NOT NULL
) STRICT;

CREATE TABLE report(
    instance TEXT NOT NULL,
    handler TEXT NOT NULL,
    group_name TEXT NOT NULL,
    version TEXT NOT NULL,
    state TEXT NOT NULL,
    last_error TEXT,
    at INTEGER NOT NULL,
    PRIMARY KEY(instance, handler)
) STRICT, WITHOUT ROWID;

-- For people with a SQL shell: what was given up, newest first.
CREATE VIEW dead_letters AS
SELECT d.id, d.handler, c.name AS "group", d.reason, d.type, d.event_id,
       json_extract(d.failures, '$[#-1].message') AS error,
       d.attempts, strftime('%Y-%m-%dT%H:%M:%fZ', d.failed_at / 1000.0, 'unixepoch') AS failed_at,
       d.version, d.stream || '/' || d.seq || '-0' AS entry, d.idempotency_key,
       strftime('%Y-%m-%dT%H:%M:%fZ', d.replayed_at / 1000.0, 'unixepoch') AS replayed_at,
       d.data, d.failures
FROM dead_letter d LEFT JOIN consumer c ON c.id = d.group_id
ORDER BY d.id DESC;

-- The history, with its streams' names.
CREATE VIEW events AS
SELECT s.name AS stream, (e.pos & 0xffffffffff) || '-0' AS entry, e.type, e.id, e.source, e.subject, e.time, e.data,
       strftime('%Y-%m-%dT%H:%M:%fZ', e.stored_at / 1000.0, 'unixepoch') AS stored_at
FROM event e JOIN stream s ON s.id = e.pos >> 40;
