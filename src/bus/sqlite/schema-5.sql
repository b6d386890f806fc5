-- Version 5: what time it was when somebody last looked, so that it is noticed where a clock is set back.

CREATE TABLE clock(seen INTEGER NOT NULL) STRICT;
INSERT INTO clock(seen) VALUES(0);
