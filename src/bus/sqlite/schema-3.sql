-- Version 3: where a group began on a stream, and since when a version of a handler serves.

ALTER TABLE cursor ADD COLUMN began INTEGER;        -- the group has seen every entry after this one; NULL: not known
ALTER TABLE report ADD COLUMN since INTEGER NOT NULL DEFAULT 0;
