-- Version 6: what durable steps came to.

CREATE TABLE step(
    event BLOB NOT NULL,                 -- names the steps of an event, as `record` does; see dead_letter.steps
    name TEXT NOT NULL,
    result TEXT NOT NULL,                -- JSON; empty: nothing
    expires INTEGER,                     -- NULL: it stays as long as the event's dead letter
    PRIMARY KEY(event, name)
) STRICT, WITHOUT ROWID;
CREATE INDEX step_by_expiry ON step(expires) WHERE expires IS NOT NULL;

ALTER TABLE dead_letter ADD COLUMN steps BLOB; -- where its steps are recorded
CREATE INDEX dead_letter_by_steps ON dead_letter(steps) WHERE steps IS NOT NULL;
CREATE TRIGGER dead_letter_took_its_steps AFTER DELETE ON dead_letter WHEN OLD.steps IS NOT NULL BEGIN
    DELETE FROM step WHERE event = OLD.steps AND NOT EXISTS (SELECT 1 FROM dead_letter WHERE steps = OLD.steps);
END;
