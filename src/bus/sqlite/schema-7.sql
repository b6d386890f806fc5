-- Version 7: which group emitted what is delayed, so that it can take it back.

ALTER TABLE delayed ADD COLUMN owner INTEGER;       -- the group; NULL: nobody can
CREATE INDEX delayed_by_owner ON delayed(owner, event_id) WHERE owner IS NOT NULL;
