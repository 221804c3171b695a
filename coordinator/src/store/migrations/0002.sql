-- The attempt of a job that is being worked on. It changes with every report,
-- the rest of the job does not: so the small row is written and not the large
-- one, and a thousand of them lie together.
CREATE TABLE live (
    job    INTEGER PRIMARY KEY,
    record BLOB NOT NULL
) STRICT;
