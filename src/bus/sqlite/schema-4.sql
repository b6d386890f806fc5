-- Version 4: keys under which events came from outside, and counts that are kept instead of counted.

CREATE TABLE claim(
    key BLOB PRIMARY KEY,
    body BLOB NOT NULL,                  -- hash of what was sent under the key
    expires INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX claim_by_expiry ON claim(expires);

ALTER TABLE stream ADD COLUMN delayed INTEGER NOT NULL DEFAULT 0; -- entries of `delayed` on their way here
UPDATE stream SET delayed = (SELECT count(*) FROM delayed d WHERE d.stream_id = stream.id);
CREATE TRIGGER delayed_added AFTER INSERT ON delayed BEGIN
    UPDATE stream SET delayed = delayed + 1 WHERE id = NEW.stream_id;
END;
CREATE TRIGGER delayed_removed AFTER DELETE ON delayed BEGIN
    UPDATE stream SET delayed = delayed - 1 WHERE id = OLD.stream_id;
END;
CREATE TRIGGER delayed_moved AFTER UPDATE OF stream_id ON delayed BEGIN
    UPDATE stream SET delayed = delayed - 1 WHERE id = OLD.stream_id;
    UPDATE stream SET delayed = delayed + 1 WHERE id = NEW.stream_id;
END;

ALTER TABLE consumer ADD COLUMN dead INTEGER NOT NULL DEFAULT 0; -- its dead letters
UPDATE consumer SET dead = (SELECT count(*) FROM dead_letter d WHERE d.group_id = consumer.id);
CREATE TRIGGER dead_letter_added AFTER INSERT ON dead_letter BEGIN
    UPDATE consumer SET dead = dead + 1 WHERE id = NEW.group_id;
END;
CREATE TRIGGER dead_letter_removed AFTER DELETE ON dead_letter BEGIN
    UPDATE consumer SET dead = dead - 1 WHERE id = OLD.group_id;
END;
CREATE TRIGGER dead_letter_moved AFTER UPDATE OF group_id ON dead_letter BEGIN
    UPDATE consumer SET dead = dead - 1 WHERE id = OLD.group_id;
    UPDATE consumer SET dead = dead + 1 WHERE id = NEW.group_id;
END;
